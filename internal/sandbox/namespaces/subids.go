package namespaces

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"

	subid "github.com/moby/sys/user"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

const (
	subuidFile = "/etc/subuid"
	subgidFile = "/etc/subgid"
	// firstSubID and subIDs are what useradd(8) gives the first user.
	firstSubID, subIDs = 100000, 65536
)

// idMaps are the arguments of newuidmap and newgidmap for the current user: it
// is root, then come its subordinate IDs. The error is an
// *sandbox.UnsupportedError when something is missing.
func idMaps() (uids, gids []string, err error) {
	name, id := currentUser()
	var missing, fixes []string
	for _, program := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program+" is not installed")
		}
	}
	if len(missing) > 0 {
		fixes = append(fixes, "install newuidmap (Debian: apt-get install uidmap; Fedora: dnf install shadow-utils)")
	}
	uids, err = idMap(subuidFile, os.Geteuid(), name, id)
	gids, gerr := idMap(subgidFile, os.Getegid(), name, id)
	if err := errors.Join(err, gerr); err != nil {
		return nil, nil, err
	}
	var files []string
	if uids == nil {
		files = append(files, subuidFile)
	}
	if gids == nil {
		files = append(files, subgidFile)
	}
	if len(files) > 0 {
		start, err := freeSubID(subuidFile, subgidFile)
		if err != nil {
			return nil, nil, err
		}
		missing = append(missing, fmt.Sprintf("user %s has no subordinate ids in %s", name, strings.Join(files, " and ")))
		fixes = append(fixes, fmt.Sprintf("add the line %s:%d:%d to %s", name, start, subIDs, strings.Join(files, " and ")))
	}
	if len(missing) > 0 {
		return nil, nil, &sandbox.UnsupportedError{What: strings.Join(missing, ", "), Fix: strings.Join(fixes, " and ")}
	}
	return uids, gids, nil
}

// currentUser returns the number twice for a user without a name.
func currentUser() (name, id string) {
	id = strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(id); err == nil {
		return u.Username, id
	}
	return id, id
}

// idMap is nil for a user that file has no line for.
func idMap(file string, self int, name, id string) ([]string, error) {
	ranges, err := subid.ParseSubIDFileFilter(file, func(s subid.SubID) bool {
		return (s.Name == name || s.Name == id) && s.Count > 0
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading subordinate ids: %w", err)
	}
	if len(ranges) == 0 {
		return nil, nil
	}
	out := []string{"0", strconv.Itoa(self), "1"}
	next := int64(1)
	for _, r := range ranges {
		out = append(out, strconv.FormatInt(next, 10), strconv.FormatInt(r.SubID, 10), strconv.FormatInt(r.Count, 10))
		next += r.Count
	}
	return out, nil
}

// freeSubID is the first ID above those that anybody has.
func freeSubID(files ...string) (int64, error) {
	free := int64(firstSubID)
	for _, file := range files {
		ranges, err := subid.ParseSubIDFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, fmt.Errorf("reading subordinate ids: %w", err)
		}
		for _, r := range ranges {
			free = max(free, r.SubID+r.Count)
		}
	}
	return free, nil
}

// writeMaps gives the process pid its IDs.
func writeMaps(pid int, uids, gids []string) error {
	for _, m := range []struct {
		program string
		ids     []string
	}{{"newuidmap", uids}, {"newgidmap", gids}} {
		var out bytes.Buffer
		cmd := exec.Command(m.program, append([]string{strconv.Itoa(pid)}, m.ids...)...)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			return &sandbox.UnsupportedError{
				What: fmt.Sprintf("%s: %v: %s", m.program, err, bytes.TrimSpace(out.Bytes())),
				Fix:  fmt.Sprintf("check that %s has its set-user-ID bit, that nothing forbids using it (no_new_privs), and what %s and %s say", m.program, subuidFile, subgidFile),
			}
		}
	}
	return nil
}
