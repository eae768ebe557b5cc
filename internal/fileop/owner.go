package fileop

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	cfs "github.com/containerd/continuity/fs"
	"github.com/moby/sys/user"

	"github.com/org/kaniko-multiarch/internal/graph"
)

const (
	passwdFile = "/etc/passwd"
	groupFile  = "/etc/group"

	// maxUserFile bounds what a hostile image can make us read, in bytes.
	maxUserFile = 10 << 20
)

// Tree returns the root directory of an action's input, counted as in
// graph.Identity.Input.
type Tree func(input int) (dir string, err error)

// UnknownOwnerError is the name of a user or group where there is no tree to look
// it up in: in an image of nothing.
type UnknownOwnerError struct {
	// Kind is "user" or "group".
	Kind string
	Name string
}

func (e *UnknownOwnerError) Error() string {
	return fmt.Sprintf("%s %q: the image has no files, so no names: give a number", e.Kind, e.Name)
}

// ResolveOwner turns o into numbers. A user without a group brings its own
// group: that of /etc/passwd for a name, the same number for a number. A nil o
// gives nil. As with BuildKit, a name that the tree does not have is root, or for a
// group that of the user; that is rarely meant, so it is not silent.
func ResolveOwner(o *graph.Owner, tree Tree, warn Warn) (*ID, error) {
	if o == nil {
		return nil, nil
	}
	var id ID
	if u := o.User; u != nil {
		id = ID{UID: u.ID, GID: u.ID}
		if u.Name != "" {
			found, err := lookupUser(u, tree, warn)
			if err != nil {
				return nil, err
			}
			id = found
		}
	}
	switch g := o.Group; {
	case g == nil:
	case g.Name == "":
		id.GID = g.ID
	default:
		gid, err := lookupGroup(g, tree, id.GID, warn)
		if err != nil {
			return nil, err
		}
		id.GID = gid
	}
	return &id, nil
}

func lookupUser(who *graph.Identity, tree Tree, warn Warn) (ID, error) {
	if who.Input == graph.None {
		return ID{}, &UnknownOwnerError{Kind: "user", Name: who.Name}
	}
	f, err := openUserFile(tree, who.Input, passwdFile)
	if err != nil {
		return ID{}, fmt.Errorf("looking up user %q: %w", who.Name, err)
	}
	defer f.Close()
	users, err := user.ParsePasswdFilter(f, func(u user.User) bool { return u.Name == who.Name })
	if err != nil {
		return ID{}, fmt.Errorf("looking up user %q in %s: %w", who.Name, passwdFile, err)
	}
	if len(users) == 0 {
		warn.say("the image has no user %q: the files belong to root; add the user before, or give a number", who.Name)
		return ID{}, nil
	}
	return ID{UID: users[0].Uid, GID: users[0].Gid}, nil
}

func lookupGroup(who *graph.Identity, tree Tree, otherwise int, warn Warn) (int, error) {
	if who.Input == graph.None {
		return 0, &UnknownOwnerError{Kind: "group", Name: who.Name}
	}
	f, err := openUserFile(tree, who.Input, groupFile)
	if err != nil {
		return 0, fmt.Errorf("looking up group %q: %w", who.Name, err)
	}
	defer f.Close()
	groups, err := user.ParseGroupFilter(f, func(g user.Group) bool { return g.Name == who.Name })
	if err != nil {
		return 0, fmt.Errorf("looking up group %q in %s: %w", who.Name, groupFile, err)
	}
	if len(groups) == 0 {
		warn.say("the image has no group %q: the files get group %d; add the group before, or give a number", who.Name, otherwise)
		return otherwise, nil
	}
	return groups[0].Gid, nil
}

// openUserFile opens a file of an input's tree; a missing one is empty. It
// refuses what is not a regular file without opening it: a step can leave a
// fifo that blocks, or a device that is the host's.
func openUserFile(tree Tree, input int, name string) (io.ReadCloser, error) {
	empty := io.NopCloser(eof{})
	root, err := tree(input)
	if err != nil {
		return nil, err
	}
	p, err := cfs.RootPath(root, name)
	if isMissing(err) {
		return empty, nil
	}
	if err != nil {
		return nil, inTree(err, root)
	}
	fi, err := os.Lstat(p)
	if isMissing(err) {
		return empty, nil
	}
	if err != nil {
		return nil, inTree(err, root)
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	if fi.Size() > maxUserFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxUserFile)
	}
	f, err := os.Open(p)
	return f, inTree(err, root)
}

// isMissing reports whether a path, or a directory above it, does not exist.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }
