package namespaces

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/ids"
	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/stub"
)

// tree is the root directory while it is put together. Its content is not
// trusted: every path is resolved within it, and used by descriptor.
type tree struct {
	path string
	dir  *os.File
}

// setUpRoot puts the root together and makes it "/". All happens on top of a
// small tmpfs in our mount namespace, so the host's files are not touched and
// nothing has to be undone.
func (s *spec) setUpRoot() error {
	unix.Umask(0)
	root, err := openPath(s.Root)
	if err != nil {
		return fmt.Errorf("opening the root directory: %w", err)
	}
	keep, err := openAll(s.KeepTimes)
	if err != nil {
		return err
	}
	resolvConf, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reading the resolver's configuration: %w", err)
	}
	// Sources are paths of the host and opened before any of them can be hidden.
	mounts, err := s.plan(resolvConf)
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", s.Root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700"); err != nil {
		return fmt.Errorf("mounting a tmpfs: %w", err)
	}
	t := tree{path: filepath.Join(s.Root, "rootfs")}
	for i := range mounts {
		if mounts[i].file == nil {
			continue
		}
		if mounts[i].source, err = writeSource(s.Root, strconv.Itoa(i), mounts[i].file); err != nil {
			return fmt.Errorf("writing %s: %w", mounts[i].dest, err)
		}
	}
	if err := os.Mkdir(t.path, 0o755); err != nil {
		return fmt.Errorf("making a mount point: %w", err)
	}
	if err := unix.Mount(fdPath(root), t.path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding the root directory: %w", err)
	}
	if t.dir, err = openPath(t.path); err != nil {
		return fmt.Errorf("opening the root directory: %w", err)
	}
	for _, m := range mounts {
		if err := m.mount(t); err != nil {
			return fmt.Errorf("mounting %s: %w", m.dest, err)
		}
	}
	if err := s.makeDevices(t); err != nil {
		return err
	}
	if _, err := t.mkdirAll(s.Cwd); err != nil {
		return fmt.Errorf("making the working directory %s: %w", s.Cwd, err)
	}
	for i, k := range s.KeepTimes {
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(keep[i]), []unix.Timespec{k.Atime, k.Mtime}, 0); err != nil {
			return fmt.Errorf("restoring the times of %s: %w", strings.TrimPrefix(k.Path, s.Root), err)
		}
	}
	// Until here the paths of descriptors were in use.
	runtime.KeepAlive(root)
	runtime.KeepAlive(keep)
	runtime.KeepAlive(mounts)
	if err := t.pivot(); err != nil {
		return err
	}
	return s.maskPaths()
}

// writeSource writes a file in memory, to be bound elsewhere.
func writeSource(dir, name string, file *sandbox.File) (*os.File, error) {
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, file.Data, 0o600); err != nil {
		return nil, err
	}
	if err := os.Chown(path, file.UID, file.GID); err != nil {
		return nil, ids.Explain(err, "its owner is %d:%d", file.UID, file.GID)
	}
	if err := unix.Chmod(path, file.Mode&0o7777); err != nil {
		return nil, err
	}
	return openPath(path)
}

// pivot makes the tree "/" and lets go of everything else.
func (t tree) pivot() error {
	if err := unix.Fchdir(int(t.dir.Fd())); err != nil {
		return fmt.Errorf("changing to the root directory: %w", err)
	}
	err := unix.PivotRoot(".", ".")
	if errors.Is(err, unix.EPERM) {
		return &sandbox.UnsupportedError{
			What: "cannot change the root directory",
			Fix:  "allow the system call pivot_root (docker: --security-opt seccomp=unconfined), or use --isolation=inplace in a container",
		}
	}
	if err != nil {
		return fmt.Errorf("changing the root directory: %w", err)
	}
	// The old root now lies on top of the new one, and "." is the old one.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting the old root directory: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("changing to the root directory: %w", err)
	}
	return nil
}

// open returns a handle to what is at path now, the topmost mount included.
func (t tree) open(path string) (*os.File, error) {
	f, err := pathrs.OpenatInRoot(t.dir, path)
	if err != nil {
		return nil, sandbox.Cause(err)
	}
	return f, nil
}

// mkdirAll makes a directory and its parents. Symbolic links that lead nowhere
// are followed, as runc does.
func (t tree) mkdirAll(path string) (*os.File, error) {
	rel, err := t.resolve(path)
	if err != nil {
		return nil, err
	}
	f, err := pathrs.MkdirAllHandle(t.dir, rel, 0o755)
	if err != nil {
		return nil, sandbox.Cause(err)
	}
	return f, nil
}

// mountPoint opens path, and makes it when there is nothing: a directory, or an
// empty file. made tells which was the case.
func (t tree) mountPoint(path string, dir bool) (f *os.File, made bool, err error) {
	f, err = t.open(path)
	if errors.Is(err, unix.ENOENT) {
		f, err = t.makeMountPoint(path, dir)
		made = true
	}
	if errors.Is(err, unix.EROFS) {
		return nil, false, errors.New("the mount point does not exist and lies below a read-only mount; make it writable or mount elsewhere")
	}
	if err != nil {
		return nil, false, fmt.Errorf("making the mount point: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, false, fmt.Errorf("making the mount point: %w", err)
	}
	if info.IsDir() && !dir {
		return nil, false, errors.New("a file cannot be mounted on a directory")
	}
	if !info.IsDir() && dir {
		return nil, false, errors.New("a directory cannot be mounted on a file")
	}
	return f, made, nil
}

func (t tree) makeMountPoint(path string, dir bool) (*os.File, error) {
	if dir {
		return t.mkdirAll(path)
	}
	rel, err := t.resolve(path)
	if err != nil {
		return nil, err
	}
	parent, err := pathrs.MkdirAllHandle(t.dir, filepath.Dir(rel), 0o755)
	if err != nil {
		return nil, sandbox.Cause(err)
	}
	defer parent.Close()
	fd, err := unix.Openat(int(parent.Fd()), filepath.Base(rel), unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	unix.Close(fd)
	return t.open(rel)
}

// resolve follows the links of a path that need not exist. The result is a path
// relative to the tree.
func (t tree) resolve(path string) (string, error) {
	full, err := securejoin.SecureJoin(t.path, path)
	if err != nil {
		return "", sandbox.Cause(err)
	}
	return filepath.Join(".", strings.TrimPrefix(full, t.path)), nil
}

func openPath(path string) (*os.File, error) {
	return os.OpenFile(path, unix.O_PATH|unix.O_CLOEXEC, 0)
}

func openAll(dirs []stub.Times) ([]*os.File, error) {
	var out []*os.File
	for _, d := range dirs {
		f, err := openPath(d.Path)
		if err != nil {
			return nil, fmt.Errorf("opening a directory: %w", err)
		}
		out = append(out, f)
	}
	return out, nil
}

func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
