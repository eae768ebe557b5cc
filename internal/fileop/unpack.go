package fileop

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"

	cfs "github.com/containerd/continuity/fs"
	fscopy "github.com/tonistiigi/fsutil/copy"

	"github.com/org/kaniko-multiarch/internal/layer"
)

// unpack replaces the copy of the file name when that is a tar archive,
// compressed or not, by what is in the archive. It reports whether it did.
//
// As in BuildKit, only the directories made for Dest get the action's time, its
// mode does not count, and the archive's owners stay unless one is asked for.
func (j *copyJob) unpack(ctx context.Context, name string) (bool, error) {
	p, err := cfs.RootPath(j.src, name)
	if err != nil {
		return false, err
	}
	if fi, err := os.Lstat(p); err != nil || !fi.Mode().IsRegular() {
		return false, err
	}
	f, err := os.Open(p)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if ok, err := isArchive(f); !ok || err != nil {
		return false, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, err
	}

	to, err := cfs.RootPath(j.dst, j.to)
	if err != nil {
		return false, err
	}
	if _, err := fscopy.MkdirAll(to, 0o755, chowner(j.owner), j.Time); err != nil {
		return false, err
	}
	r, err := decompress(f)
	if err != nil {
		return false, err
	}
	defer r.Close()
	opts := layer.UnpackOptions{BestEffortXattrs: true, Dangling: true}
	if j.owner != nil {
		opts.Chown = &layer.Owner{UID: j.owner.UID, GID: j.owner.GID}
	}
	if err := layer.Unpack(ctx, r, to, opts); err != nil {
		return false, fmt.Errorf("unpacking the archive: %w", err)
	}
	return true, nil
}

// isArchive reports whether f, read from its start, is a tar archive with
// something in it. A file that cannot be decompressed is none and is copied as
// it is; only for xz, whose rarer filters we cannot undo, is that an error.
func isArchive(f io.Reader) (bool, error) {
	r, err := decompress(f)
	if err != nil {
		return false, onlyXZError(err)
	}
	_, err = tar.NewReader(r).Next()
	return err == nil, onlyXZError(r.Close())
}
