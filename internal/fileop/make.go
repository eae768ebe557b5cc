package fileop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	cfs "github.com/containerd/continuity/fs"
	fscopy "github.com/tonistiigi/fsutil/copy"

	"github.com/org/kaniko-multiarch/internal/graph"
)

// Mkdir makes the directory m.Path in the tree at dst. One that exists stays as
// it is. The umask does not count.
func Mkdir(dst string, m *graph.Mkdir, owner *ID) error {
	dst = filepath.Clean(dst)
	if err := mkdir(dst, m, owner); err != nil {
		return fmt.Errorf("making directory %s: %w", m.Path, inTree(err, dst))
	}
	return nil
}

func mkdir(dst string, m *graph.Mkdir, owner *ID) error {
	p, err := cfs.RootPath(dst, m.Path)
	if err != nil {
		return err
	}
	mode := fs.FileMode(m.Mode) & fs.ModePerm
	if m.MakeParents {
		_, err := fscopy.MkdirAll(p, mode, chowner(owner), m.Time)
		return err
	}
	if err := os.Mkdir(p, mode); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	if err := os.Chmod(p, mode); err != nil {
		return err
	}
	return finish(p, owner, m.Time)
}

// Symlink makes a symbolic link at s.Path in the tree at dst. Its target is
// neither looked at nor changed. Something at s.Path is an error.
func Symlink(dst string, s *graph.Symlink, owner *ID) error {
	dst = filepath.Clean(dst)
	p, err := cfs.RootPath(dst, filepath.Join("/", s.Path))
	if err == nil {
		err = os.Symlink(s.Target, p)
	}
	if err == nil {
		err = finish(p, owner, s.Time)
	}
	if err != nil {
		return fmt.Errorf("making symbolic link %s: %w", s.Path, inTree(err, dst))
	}
	return nil
}

// Mkfile writes the file m.Path in the tree at dst. A symbolic link there is
// followed; anything else but a directory is replaced, never opened: a device
// node would be the host's.
func Mkfile(dst string, m *graph.Mkfile, owner *ID) error {
	dst = filepath.Clean(dst)
	if err := mkfile(dst, m, owner); err != nil {
		return fmt.Errorf("making file %s: %w", m.Path, inTree(err, dst))
	}
	return nil
}

func mkfile(dst string, m *graph.Mkfile, owner *ID) error {
	p, err := cfs.RootPath(dst, filepath.Join("/", m.Path))
	if err != nil {
		return err
	}
	if p == dst {
		return syscall.EISDIR
	}
	// A directory cannot be replaced by the rename below; it says so badly.
	if fi, err := os.Lstat(p); err == nil && fi.IsDir() {
		return syscall.EISDIR
	}
	tmp, err := writeTemp(filepath.Dir(p), m.Data, fs.FileMode(m.Mode)&fs.ModePerm)
	if err != nil {
		// The name of the temporary file means nothing to anybody.
		if pe, ok := errors.AsType[*fs.PathError](err); ok {
			return &fs.PathError{Op: pe.Op, Path: p, Err: pe.Err}
		}
		return err
	}
	defer os.Remove(tmp)
	if err := finish(tmp, owner, m.Time); err != nil {
		return err
	}
	return os.Rename(tmp, p)
}

// writeTemp writes a new file into dir. The caller removes it.
func writeTemp(dir string, data []byte, mode fs.FileMode) (_ string, err error) {
	f, err := os.CreateTemp(dir, ".tmp-mkfile")
	if err != nil {
		return "", err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(data); err != nil {
		return "", err
	}
	return f.Name(), f.Chmod(mode)
}

// finish sets what is set last: the owner, then the time.
func finish(p string, owner *ID, t *time.Time) error {
	if err := fscopy.Chown(p, nil, chowner(owner)); err != nil {
		return err
	}
	return fscopy.Utimes(p, t)
}
