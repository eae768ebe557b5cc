package buildcontext

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// source is a context as fsutil reads one. It differs from fsutil's own in what
// a change during the walk does, an error instead of missing files, and in
// sockets, which it does not have: nothing can use a copy of one.
type source struct{ c *Context }

var _ fsutil.FS = source{}

// Walk calls fn for target, unless that is the root, and for everything below
// it, in lexical order.
func (s source) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	target = filepath.Join("/", target)
	start := s.c.path + target
	if target == "/" {
		start += "." // the path alone is a link
	}
	links := map[inode]string{}
	return filepath.WalkDir(start, func(full string, d fs.DirEntry, err error) error {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		p := strings.TrimPrefix(filepath.Clean(full), s.c.path)
		if p == target && isMissing(err) {
			return nil // asked for by name: it need not exist
		}
		if p == "" {
			return err
		}
		p = p[1:]
		if d != nil && (d.Type()&fs.ModeSocket != 0 || s.c.hides(d)) {
			return nil
		}
		if d != nil {
			d = entry{DirEntry: d, full: full, path: p, links: links}
		}
		return fn(p, d, readError(p, err))
	})
}

func (s source) Open(name string) (io.ReadCloser, error) {
	f, err := s.c.root.Open(name)
	if err != nil {
		return nil, readError(name, err)
	}
	return f, nil
}

// entry is a file whose metadata is read when it is asked for, which fsutil
// does for selected files only.
type entry struct {
	fs.DirEntry
	full, path string
	// links has the first path of each file with several.
	links map[inode]string
}

// inode identifies a file; a context can span file systems.
type inode struct{ dev, ino uint64 }

func (e entry) Info() (fs.FileInfo, error) {
	stat, err := e.stat()
	if err != nil {
		return nil, readError(e.path, err)
	}
	return &fsutil.StatInfo{Stat: stat}, nil
}

func (e entry) stat() (*types.Stat, error) {
	stat, err := fsutil.Stat(e.full)
	if err != nil {
		return nil, err
	}
	stat.Path = e.path
	if e.IsDir() || e.Type()&fs.ModeSymlink != 0 {
		return stat, nil
	}
	fi, err := e.DirEntry.Info()
	if err != nil {
		return nil, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || st.Nlink < 2 {
		return stat, nil
	}
	id := inode{uint64(st.Dev), st.Ino}
	first, ok := e.links[id]
	if !ok {
		e.links[id] = e.path
	} else if first != e.path {
		stat.Linkname, stat.Size = first, 0
	}
	return stat, nil
}

// readError names the file. A file that is gone was listed a moment before;
// fsutil would take the plain error as a wish to skip the rest of the
// directory, so that error is not in the chain.
func readError(name string, err error) error {
	if err == nil {
		return nil
	}
	if isMissing(err) {
		return fmt.Errorf("%s disappeared while the context was read: build from files that nothing changes, or exclude it in .dockerignore", name)
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	return fmt.Errorf("reading %s of the context: %w", name, err)
}

func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
