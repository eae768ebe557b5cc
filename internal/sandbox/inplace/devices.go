package inplace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// device is an entry of /dev, which all steps share: what one step adds, the
// next must not find.
type device struct {
	// Path is relative to /dev.
	Path     string
	Mode     uint32
	UID, GID int
	Rdev     uint64
	Target   string
}

// saveDevices lists a /dev that is the container's own. On a machine's, nodes
// come and go by themselves.
func saveDevices(dev string, points map[string]string) ([]device, error) {
	if points["dev"] == "devtmpfs" || !isDir(dev) {
		return nil, nil
	}
	var out []device
	err := filepath.WalkDir(dev, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == dev {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dev, p) // p is below dev
		n := device{Path: rel, Mode: st.Mode, UID: int(st.Uid), GID: int(st.Gid), Rdev: uint64(st.Rdev)}
		if d.Type()&os.ModeSymlink != 0 {
			if n.Target, err = os.Readlink(p); err != nil {
				return err
			}
		}
		out = append(out, n)
		if d.IsDir() && rel == "pts" {
			return filepath.SkipDir
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing /dev: %w", sandbox.Cause(err))
	}
	return out, nil
}

// restoreDevices removes what is new and makes what is missing.
func restoreDevices(dev string, devices []device) error {
	if len(devices) == 0 {
		return nil
	}
	known := map[string]bool{"pts": true}
	for _, d := range devices {
		known[d.Path] = true
	}
	err := filepath.WalkDir(dev, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == dev {
			return err
		}
		rel, _ := filepath.Rel(dev, p) // p is below dev
		if !known[rel] {
			if err := os.RemoveAll(p); err != nil && !errors.Is(err, unix.EBUSY) {
				return err
			}
		}
		if d.IsDir() && (!known[rel] || rel == "pts") {
			return filepath.SkipDir
		}
		return nil
	})
	errs := []error{err}
	for _, d := range devices {
		errs = append(errs, d.restore(filepath.Join(dev, d.Path)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("restoring /dev: %w", err)
	}
	return nil
}

func (d *device) restore(p string) error {
	var st unix.Stat_t
	err := unix.Lstat(p, &st)
	if err == nil && (st.Mode&unix.S_IFMT != d.Mode&unix.S_IFMT || uint64(st.Rdev) != d.Rdev || d.Target != "" && !pointsTo(p, d.Target)) {
		if err := os.RemoveAll(p); err != nil {
			return err
		}
		err = unix.ENOENT
	}
	if err == nil && st.Mode == d.Mode && int(st.Uid) == d.UID && int(st.Gid) == d.GID {
		return nil
	}
	if err != nil {
		if err := d.make(p); err != nil {
			return err
		}
	}
	if err := unix.Lchown(p, d.UID, d.GID); err != nil {
		return &os.PathError{Op: "chown", Path: p, Err: err}
	}
	if d.Target != "" {
		return nil
	}
	return unix.Chmod(p, d.Mode&0o7777)
}

func (d *device) make(p string) error {
	switch d.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return os.Mkdir(p, 0o755)
	case unix.S_IFLNK:
		return os.Symlink(d.Target, p)
	case unix.S_IFREG:
		return nil // its content is not known; nothing depends on it
	}
	if err := unix.Mknod(p, d.Mode, int(d.Rdev)); err != nil {
		return &os.PathError{Op: "mknod", Path: p, Err: err}
	}
	return nil
}

func pointsTo(p, target string) bool {
	now, err := os.Readlink(p)
	return err == nil && now == target
}
