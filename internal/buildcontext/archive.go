package buildcontext

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// WriteTar writes the selected files as an uncompressed tar, as Materialize would
// copy them. Their times are not in it, so that a checkout of the same files has
// the same bytes: each is given to mtime, in nanoseconds since 1970 and in the
// order of the tar.
func (c *Context) WriteTar(ctx context.Context, w io.Writer, sel Selection, mtime func(int64)) error {
	files, err := c.selected(sel)
	if err != nil {
		return fmt.Errorf("selecting files of the context: %w", err)
	}
	if err := fsutil.WriteTar(ctx, &timeless{FS: files, mtime: mtime}, w); err != nil {
		return fmt.Errorf("packing the context: %w", err)
	}
	return nil
}

// timeless is a file system whose files are of 1970. It is for one walk that opens
// each file right after it was shown.
type timeless struct {
	fsutil.FS
	mtime func(int64)
	// size is that of the file that was shown last.
	size int64
}

func (t *timeless) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	return t.FS.Walk(ctx, target, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fn(p, d, err)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		stat, ok := info.Sys().(*types.Stat)
		if !ok {
			return fmt.Errorf("%s: metadata of an unknown kind", p)
		}
		t.mtime(stat.ModTime)
		stat = stat.Clone()
		stat.ModTime, t.size = 0, stat.Size
		return fn(p, timelessEntry{d, stat}, nil)
	})
}

// Open gives a file the size that it was shown with: logs grow while they are read.
func (t *timeless) Open(name string) (io.ReadCloser, error) {
	f, err := t.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return &sized{ReadCloser: f, name: name, left: t.size}, nil
}

type sized struct {
	io.ReadCloser
	name string
	left int64
}

func (s *sized) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.ReadCloser.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	if err == io.EOF && s.left > 0 {
		err = fmt.Errorf("%s became shorter while the context was read: build from files that nothing changes, or exclude it in .dockerignore", s.name)
	}
	return n, err
}

type timelessEntry struct {
	fs.DirEntry
	stat *types.Stat
}

func (e timelessEntry) Info() (fs.FileInfo, error) { return &fsutil.StatInfo{Stat: e.stat}, nil }

// Contains returns the path in the context of a file that is in it. Links on the
// way to the file, or in its place, could lead elsewhere in a copy: they are not in
// it.
func (c *Context) Contains(file string) (string, bool) {
	dir, err := os.Readlink(c.path)
	if err != nil {
		return "", false
	}
	abs, err := filepath.Abs(file)
	if err != nil {
		return "", false
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", false
	}
	name, err := filepath.Rel(dir, real)
	if err != nil || !filepath.IsLocal(name) {
		return "", false
	}
	info, err := os.Lstat(abs)
	return name, err == nil && info.Mode().IsRegular()
}
