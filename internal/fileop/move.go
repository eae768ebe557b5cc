package fileop

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/graph"
)

// Move is Copy from a tree that nobody needs afterwards. What a directory has is
// moved where that comes to the same, which takes no longer for many files or
// large ones. Whatever Move returns, the source is not what it was.
func Move(ctx context.Context, dst, src string, c *graph.Copy, owner *ID, warn Warn) error {
	return copyFrom(ctx, dst, Source{Dir: src, Spare: true}, c, owner, warn)
}

// moved is a file or directory on its way past the copier.
type moved struct{ from, to string }

// movable reports whether files come out as they are, and can get there.
func (j *copyJob) movable(fi fs.FileInfo) bool {
	as := j.owner == nil && j.Mode == nil && j.ModeString == "" && j.Time == nil
	all := len(j.Include)+len(j.Exclude)+len(j.Required) == 0
	return j.spare && as && all && j.ContentsOnly && fi.IsDir() && sameDevice(j.src, j.dst)
}

func sameDevice(a, b string) bool {
	var one, other unix.Stat_t
	return unix.Lstat(a, &one) == nil && unix.Lstat(b, &other) == nil && one.Dev == other.Dev
}

// setAside takes what need not be copied out of the source name, a directory,
// into the new directory aside.
func (j *copyJob) setAside(name, aside string) (list []moved, err error) {
	dir, err := j.resolve(name)
	if err != nil {
		return nil, err
	}
	landing, err := j.landing(name, true)
	if err != nil || inherits(landing) {
		return nil, err
	}
	children, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	err = keepTime(dir, func() error {
		for _, c := range children {
			from, to := filepath.Join(dir, c.Name()), filepath.Join(landing, c.Name())
			if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
				continue // to merge, or an error that the copier says better
			}
			same, err := comesOutSame(from)
			if err != nil {
				return err
			}
			if !same {
				continue
			}
			m := moved{filepath.Join(aside, c.Name()), to}
			if err := os.Rename(from, m.from); err != nil {
				return err
			}
			list = append(list, m)
		}
		return nil
	})
	return list, err
}

// inherits reports whether new files in dir, or the first directory above it that
// exists, get an ACL from there.
func inherits(dir string) bool {
	for {
		_, err := unix.Lgetxattr(dir, "system.posix_acl_default", nil)
		if !errors.Is(err, unix.ENOENT) {
			return err == nil
		}
		dir = filepath.Dir(dir)
	}
}

// comesOutSame reports whether a copy of the tree at name would be like it. Which
// names of a file are linked to each other is for the copier to say, and it makes
// files of sockets.
func comesOutSame(name string) (same bool, err error) {
	same = true
	err = filepath.WalkDir(name, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if fi.Sys().(*syscall.Stat_t).Nlink > 1 || d.Type() == fs.ModeSocket {
			same = false
			return fs.SkipAll
		}
		return nil
	})
	return same, err
}

// bring puts what was set aside where it belongs.
func bring(list []moved) error {
	if len(list) == 0 {
		return nil
	}
	return keepTime(filepath.Dir(list[0].to), func() error {
		for _, m := range list {
			if err := os.Rename(m.from, m.to); err != nil {
				return err
			}
		}
		return nil
	})
}

// keepTime gives a directory the times back that it had before do.
func keepTime(dir string, do func() error) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: dir, Err: err}
	}
	if err := do(); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}
