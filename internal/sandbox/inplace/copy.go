package inplace

import (
	"context"
	"errors"
	"io"
	"os"

	fscopy "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sys/unix"
)

// copyDir makes dst a copy of the directory src, its own looks included. Where
// the file system can share blocks it does.
func copyDir(ctx context.Context, src, dst string) error {
	looks, err := readAttrs(src)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dst, 0o700); err != nil {
		return err
	}
	contents := fscopy.WithCopyInfo(fscopy.CopyInfo{CopyDirContents: true})
	if err := fscopy.Copy(ctx, src, ".", dst, ".", contents); err != nil {
		return err
	}
	return looks.apply(dst)
}

// copyFile makes dst a copy of the file src.
func copyFile(src, dst string) error {
	looks, err := readAttrs(src)
	if err != nil {
		return err
	}
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if err := unix.Chown(dst, looks.UID, looks.GID); err != nil {
		return err
	}
	return looks.apply(dst)
}
