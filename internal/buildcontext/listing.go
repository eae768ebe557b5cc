package buildcontext

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/filetree"
	"github.com/org/kaniko-multiarch/internal/layer"
)

// Listing is what Materialize would copy, without the copy: the files are read
// where they are.
type Listing struct {
	c     *Context
	sel   Selection
	files map[string]*listed
	// complete is false when a copy may differ from what is listed.
	complete bool
	newest   time.Time
}

var _ filetree.Tree = (*Listing)(nil)

type listed struct {
	stat     *filetree.Stat
	children []string
	at       state
}

// state changes with each change of a file.
type state struct {
	dev, ino    uint64
	size        int64
	mod, change unix.Timespec
}

// tick is more than the clock of file times lags behind, and than it takes from
// one of its times to the next (a jiffy is up to 10 ms).
const tick = 25 * time.Millisecond

// List lists the selected files, among which dir, where the build works, must
// not be. It returns nil for files that only a copy can tell the truth about:
// those with extended attributes, which the directory of the copy may not be able
// to hold, and such of the future, of which nobody could tell whether they change.
func (c *Context) List(ctx context.Context, dir string, sel Selection) (*Listing, error) {
	for range 2 {
		started := time.Now()
		l, err := c.list(ctx, dir, sel)
		if err != nil || !l.complete || l.newest.After(started) {
			return nil, err
		}
		wait := tick - started.Sub(l.newest)
		if wait <= 0 {
			return l, nil
		}
		// A change from here on could leave a file with the same times.
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return nil, nil
}

func (c *Context) list(ctx context.Context, dir string, sel Selection) (*Listing, error) {
	// The root of a copy is a directory that was just made.
	l := &Listing{c: c, sel: sel, complete: true, files: map[string]*listed{"/": {stat: &filetree.Stat{Mode: unix.S_IFDIR | 0o755}}}}
	err := c.walk(ctx, dir, sel, func(p string, fi fs.FileInfo) (err error) {
		l.complete, err = l.add(path.Join("/", p), fi.Mode(), fi.Sys().(*types.Stat))
		if err == nil && !l.complete {
			err = fs.SkipAll
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the context: %w", err)
	}
	return l, nil
}

// add reports whether a file can be listed.
func (l *Listing) add(name string, mode fs.FileMode, st *types.Stat) (bool, error) {
	if len(st.Xattrs) > 0 {
		if xattrs, err := layer.Xattrs(l.c.path+name, nil); err != nil || len(xattrs) > 0 {
			return false, err
		}
	}
	at, raw, err := l.c.state(name)
	if err != nil {
		return false, readError(name[1:], err)
	}
	s := &filetree.Stat{Mode: raw}
	f := &listed{stat: s, at: at}
	switch {
	case s.IsLink():
		s.Target = st.Linkname
	case !s.IsDir() && st.Linkname != "":
		first, ok := l.files[path.Join("/", st.Linkname)]
		if !ok {
			return false, nil
		}
		first.stat.Links = first
		f.stat = first.stat
	case mode&fs.ModeDevice != 0:
		s.Rdev = unix.Mkdev(uint32(st.Devmajor), uint32(st.Devminor))
	}
	above, ok := l.files[path.Dir(name)]
	if !ok {
		return false, nil
	}
	above.children = append(above.children, path.Base(name))
	l.files[name] = f
	if changed := time.Unix(at.change.Unix()); changed.After(l.newest) && !s.IsDir() {
		l.newest = changed
	}
	return true, nil
}

// state looks at a file of the context.
func (c *Context) state(name string) (state, uint32, error) {
	var st unix.Stat_t
	if err := unix.Lstat(c.path+name, &st); err != nil {
		return state{}, 0, err
	}
	return state{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}, st.Mode, nil
}

// Unchanged reports whether the same files would be listed now, with the same
// content.
func (l *Listing) Unchanged(ctx context.Context, dir string) (bool, error) {
	now, err := l.c.list(ctx, dir, l.sel)
	if err != nil || !now.complete || len(now.files) != len(l.files) {
		return false, err
	}
	for name, f := range l.files {
		other, ok := now.files[name]
		if !ok || f.stat.Mode != other.stat.Mode || !f.stat.IsDir() && f.at != other.at {
			return false, nil
		}
	}
	return true, nil
}

// Lstat implements filetree.Tree.
func (l *Listing) Lstat(name string) (*filetree.Stat, error) {
	return filetree.Follow(name, func(name string) (*filetree.Stat, bool) {
		f, ok := l.files[name]
		if !ok {
			return nil, false
		}
		return f.stat, true
	})
}

// ReadDir implements filetree.Tree.
func (l *Listing) ReadDir(name string) ([]string, error) {
	f, ok := l.files[name]
	if !ok {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	return f.children, nil
}

// Xattrs implements filetree.Tree: files with such are not listed.
func (l *Listing) Xattrs(string) (map[string]string, error) { return nil, nil }

// Open implements filetree.Tree.
func (l *Listing) Open(name string) (io.ReadCloser, error) { return source{l.c}.Open(name[1:]) }
