// Package identity looks up who a process runs as in the passwd and group
// files of a file tree. The tree is not trusted: its symbolic links are followed
// within it, and only regular files are read.
//
// It must not know how processes are isolated.
package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/moby/sys/user"
)

// maxFileSize bounds the passwd and group files that are read, in bytes. It is
// BuildKit's limit.
const maxFileSize = 10 << 20

// User is who a process runs as.
type User struct {
	UID, GID int
	// Groups are the supplementary groups. GID is always among them, as it is
	// for a process that runc starts.
	Groups []int
	// Home is the home directory of UID, "/" when passwd does not name one.
	Home string
}

// Lookup finds the user that spec stands for in the tree at root. The forms are
// "name", "uid", "name:group" and "uid:gid", each part a name or a number; "" is
// root, which need not be in passwd. A number need not be in passwd either; an
// unknown name is an error that wraps user.ErrNoPasswdEntries or
// user.ErrNoGroupEntries.
func Lookup(root, spec string) (User, error) {
	passwd, err := readFile(root, "etc/passwd")
	if err != nil {
		return User{}, fmt.Errorf("looking up user %q: %w", spec, err)
	}
	if uid, gid, ok := numeric(spec); ok {
		return User{UID: uid, GID: gid, Groups: []int{gid}, Home: home(passwd, uid)}, nil
	}
	group, err := readFile(root, "etc/group")
	if err != nil {
		return User{}, fmt.Errorf("looking up user %q: %w", spec, err)
	}
	found, err := user.GetExecUser(orRoot(spec), nil, bytes.NewReader(passwd), bytes.NewReader(group))
	switch {
	case errors.Is(err, user.ErrNoPasswdEntries):
		return User{}, fmt.Errorf("%w; create the user in the image first or give its numeric id", err)
	case errors.Is(err, user.ErrNoGroupEntries):
		return User{}, fmt.Errorf("%w; create the group in the image first or give its numeric id", err)
	case err != nil:
		return User{}, fmt.Errorf("looking up user %q: %w", spec, err)
	}
	groups := []int{found.Gid}
	for _, gid := range found.Sgids {
		if gid != found.Gid {
			groups = append(groups, gid)
		}
	}
	return User{UID: found.Uid, GID: found.Gid, Groups: groups, Home: home(passwd, found.Uid)}, nil
}

// numeric reads "uid:gid". Such a user has no supplementary groups, whatever
// the group file says.
func numeric(spec string) (uid, gid int, ok bool) {
	u, g, ok := strings.Cut(spec, ":")
	if !ok {
		return 0, 0, false
	}
	uid, uidOK := number(u)
	gid, gidOK := number(g)
	return uid, gid, uidOK && gidOK
}

// number refuses the largest number of 32 bits, which setresuid(2) reads as
// "leave it as it is".
func number(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == math.MaxUint32 {
		return 0, false
	}
	return int(n), true
}

func orRoot(spec string) string {
	if spec == "" {
		return "0"
	}
	return spec
}

// home ignores what is wrong in passwd: it is only a default for $HOME.
func home(passwd []byte, uid int) string {
	users, err := user.ParsePasswdFilter(bytes.NewReader(passwd), func(u user.User) bool { return u.Uid == uid })
	if err != nil || len(users) == 0 || users[0].Home == "" {
		return "/"
	}
	return users[0].Home
}

// readFile returns no content for a file that does not exist.
func readFile(root, name string) ([]byte, error) {
	handle, err := pathrs.OpenInRoot(root, name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", name, err)
	}
	defer handle.Close()
	info, err := handle.Stat()
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", name, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("/%s in the image is not a regular file", name)
	}
	file, err := pathrs.Reopen(handle, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", name, err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", name, err)
	}
	if len(content) > maxFileSize {
		return nil, fmt.Errorf("/%s in the image is larger than %d bytes", name, maxFileSize)
	}
	return content, nil
}
