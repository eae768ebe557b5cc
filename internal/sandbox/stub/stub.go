// Package stub makes and removes the mount points and the working directory
// that a process needs in a file tree and that the tree does not have.
//
// It must not know how anything is mounted.
package stub

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/identity"
)

// Stubs are the paths that do not exist in a root and will be made as mount
// points, each before its parent. The rules are those of BuildKit's
// executor/stubs.go, but for one: BuildKit leaves a new modification time on
// the directory that a mount point was made in, we keep the old one.
type Stubs struct {
	root  string
	paths []string
}

// Find looks for them. The mount points of /proc, /sys and /dev stay in
// the root, as they do with BuildKit.
func Find(root string, mounts []sandbox.Mount, recursive bool) Stubs {
	s := Stubs{root: root}
	names := []string{"/etc/resolv.conf", "/etc/hosts"}
	for _, m := range mounts {
		names = append(names, m.Dest)
	}
	for _, name := range names {
		path, err := securejoin.SecureJoin(root, name)
		if err != nil {
			continue
		}
		for ; path != root && missing(path); path = filepath.Dir(path) {
			s.paths = append(s.paths, path)
			if !recursive {
				break
			}
		}
	}
	return s
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// Times are the times of a directory.
type Times struct {
	Path         string
	Atime, Mtime unix.Timespec
}

// Parents returns the directories that exist and will hold a stub for a while.
func (s Stubs) Parents() []Times {
	var out []Times
	seen := map[string]bool{}
	for _, path := range s.paths {
		dir := filepath.Dir(path)
		var st unix.Stat_t
		if seen[dir] || unix.Lstat(dir, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		seen[dir] = true
		out = append(out, Times{Path: dir, Atime: st.Atim, Mtime: st.Mtim})
	}
	return out
}

// Remove removes the stubs that are still empty; what the process put there
// stays. Nobody else may change the root meanwhile.
func (s Stubs) Remove() error {
	var errs []error
	for _, path := range s.paths {
		if err := s.removeOne(path); err != nil {
			rel := strings.TrimPrefix(path, s.root)
			errs = append(errs, fmt.Errorf("removing the mount point %s: %w", rel, sandbox.Cause(err)))
		}
	}
	return errors.Join(errs...)
}

func (s Stubs) removeOne(path string) error {
	// The process may have replaced a directory on the way by a link.
	parent := filepath.Dir(path)
	if real, err := securejoin.SecureJoin(s.root, strings.TrimPrefix(parent, s.root)); err != nil || real != parent {
		return nil
	}
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil
	case info.IsDir():
		if entries, err := os.ReadDir(path); err != nil || len(entries) > 0 {
			return err
		}
	case !info.Mode().IsRegular() || info.Size() > 0:
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(parent, &st); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, parent, []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// MakeCwd makes a working directory that does not exist. It belongs to the user
// and stays in the root.
func MakeCwd(root, cwd string, u identity.User) error {
	path, err := securejoin.SecureJoin(root, cwd)
	if err != nil {
		return fmt.Errorf("finding the working directory %s: %w", cwd, sandbox.Cause(err))
	}
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := user.MkdirAllAndChown(path, 0o755, u.UID, u.GID); err != nil {
		return fmt.Errorf("making the working directory %s: %w", cwd, sandbox.Cause(err))
	}
	return nil
}
