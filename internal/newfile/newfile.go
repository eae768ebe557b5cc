// Package newfile writes files that appear, or take the place of others, when
// they are complete.
//
// It must not know what is in them.
package newfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Write makes the file name of what write writes, and its directory when that
// is missing. After an error what was there is still there.
//
// Pipes, devices and links stay what they are, as do files that cannot be
// replaced, such as Kubernetes' /dev/termination-log, which is mounted: these
// get the content as it comes.
func Write(name string, write func(io.Writer) error) error {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	info, err := os.Lstat(name)
	there := err == nil
	if there && !info.Mode().IsRegular() {
		return through(name, write)
	}
	f, err := os.CreateTemp(dir, ".kaniko-multiarch-")
	if there && (errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS)) {
		return through(name, write)
	}
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	// Jobs that read it often run as another user.
	if err := errors.Join(write(f), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	err = os.Rename(f.Name(), name)
	if errors.Is(err, unix.EBUSY) {
		return through(name, func(w io.Writer) error { return copyFrom(f.Name(), w) })
	}
	return err
}

// Put is Write with content that is there already.
func Put(name string, data []byte) error {
	return Write(name, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

func through(name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

func copyFrom(name string, w io.Writer) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}
