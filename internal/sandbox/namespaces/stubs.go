package namespaces

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

// stubs are the paths that do not exist in a root and will be made as mount
// points, each before its parent. The rules are those of BuildKit's
// executor/stubs.go, but for one: BuildKit leaves a new modification time on
// the directory that a mount point was made in, we keep the old one.
type stubs struct {
	root  string
	paths []string
}

// findStubs looks for them. The mount points of /proc, /sys and /dev stay in
// the root, as they do with BuildKit.
func findStubs(root string, mounts []sandbox.Mount, recursive bool) stubs {
	s := stubs{root: root}
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

// parents returns the directories that exist and will hold a stub for a while.
func (s stubs) parents() []dirTimes {
	var out []dirTimes
	seen := map[string]bool{}
	for _, path := range s.paths {
		dir := filepath.Dir(path)
		var st unix.Stat_t
		if seen[dir] || unix.Lstat(dir, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		seen[dir] = true
		out = append(out, dirTimes{Path: dir, Atime: st.Atim, Mtime: st.Mtim})
	}
	return out
}

// remove removes the stubs that are still empty; what the process put there
// stays. Nobody else may change the root meanwhile.
func (s stubs) remove() error {
	var errs []error
	for _, path := range s.paths {
		if err := s.removeOne(path); err != nil {
			rel := strings.TrimPrefix(path, s.root)
			errs = append(errs, fmt.Errorf("removing the mount point %s: %w", rel, cause(err)))
		}
	}
	return errors.Join(errs...)
}

func (s stubs) removeOne(path string) error {
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

// makeCwd makes a working directory that does not exist. It belongs to the user
// and stays in the root.
func makeCwd(root, cwd string, u identity.User) error {
	path, err := securejoin.SecureJoin(root, cwd)
	if err != nil {
		return fmt.Errorf("finding the working directory %s: %w", cwd, cause(err))
	}
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := user.MkdirAllAndChown(path, 0o755, u.UID, u.GID); err != nil {
		return fmt.Errorf("making the working directory %s: %w", cwd, cause(err))
	}
	return nil
}
