package inplace

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/layer"
)

// batchSize is how many files of a directory one goroutine makes.
const batchSize = 256

func (t *tree) path(name string) string { return filepath.Join(t.dir, name) }

// walk calls do for every name but the root, a directory before what is in it.
func (t *tree) walk(do func(name string, e *entry)) {
	var walk func(string, *entry)
	walk = func(dir string, e *entry) {
		for base, child := range e.children {
			name := path.Join(dir, base)
			do(name, child)
			if child.children != nil {
				walk(name, child)
			}
		}
	}
	walk(".", t.root)
}

// named is an entry and its name in a directory.
type named struct {
	base string
	*entry
}

// realise makes the files what the index says. The index gets what was made.
func (t *tree) realise(ctx context.Context, linked bool) error {
	for _, name := range t.stale {
		if err := os.RemoveAll(t.path(name)); err != nil {
			return err
		}
	}
	t.stale = nil
	group, making := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	var later []string
	err := t.makeDirs(".", t.root, func(dir string, e *entry) error {
		var batch []named
		for base, child := range e.children {
			switch {
			case child.children != nil || child.exists() || !t.makes(child):
				continue
			case linked && child.node.Links > 1:
				later = append(later, path.Join(dir, base))
				continue
			}
			batch = append(batch, named{base, child})
			if len(batch) == batchSize {
				full := batch
				group.Go(func() error { return t.makeFiles(making, dir, full) })
				batch = nil
			}
		}
		if len(batch) > 0 {
			group.Go(func() error { return t.makeFiles(making, dir, batch) })
		}
		return context.Cause(making)
	})
	// What a goroutine says is the reason for what makeDirs says then.
	if gerr := group.Wait(); gerr != nil {
		return gerr
	}
	if err != nil {
		return err
	}
	if err := t.makeLinks(ctx, later); err != nil {
		return err
	}
	if err := t.finishDirs(".", t.root); err != nil {
		return err
	}
	t.age(t.root)
	return nil
}

// makeDirs makes the directories, and calls files for each.
func (t *tree) makeDirs(name string, e *entry, files func(string, *entry) error) error {
	if !e.exists() {
		if err := os.Mkdir(t.path(name), 0o700); err != nil {
			return err
		}
		e.dirty = true
	} else if e.dirty = e.dirty || t.lacks(e); e.dirty {
		// What is made in it must not inherit anything. All other attributes
		// that it should not have go here, too.
		if err := t.clearXattrs(name, e); err != nil {
			return err
		}
	}
	if err := files(name, e); err != nil {
		return err
	}
	for base, child := range e.children {
		if child.children == nil || !t.makes(child) {
			continue
		}
		if err := t.makeDirs(path.Join(name, base), child, files); err != nil {
			return err
		}
	}
	return nil
}

// lacks reports whether something is to be made in the directory e.
func (t *tree) lacks(e *entry) bool {
	for _, child := range e.children {
		if !child.exists() && t.makes(child) {
			return true
		}
	}
	return false
}

func (t *tree) clearXattrs(name string, e *entry) error {
	for attr := range e.xattrs {
		if err := unix.Lremovexattr(t.path(name), attr); err != nil {
			return fmt.Errorf("removing the extended attribute %s of %q: %w", attr, name, err)
		}
	}
	e.xattrs = nil
	return nil
}

// makeFiles makes files in the directory name.
func (t *tree) makeFiles(ctx context.Context, name string, files []named) error {
	dir, err := os.Open(t.path(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	m := layer.NewMaker()
	for _, f := range files {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := t.makeFile(ctx, m, dir, f); err != nil {
			return fmt.Errorf("unpacking %q: %w", path.Join(name, f.base), err)
		}
	}
	return nil
}

func (t *tree) makeFile(ctx context.Context, m *layer.Maker, dir *os.File, f named) error {
	fd := int(dir.Fd())
	if f.from.tar == nil && f.node.Mode&unix.S_IFMT == unix.S_IFREG {
		return errPassed()
	}
	if err := m.Make(ctx, f.node, f.from.tar, fd, f.base); err != nil {
		return err
	}
	if err := f.found(filepath.Join(dir.Name(), f.base)); err != nil {
		return err
	}
	return unix.Fstatat(fd, f.base, &f.is, unix.AT_SYMLINK_NOFOLLOW)
}

// found keeps the extended attributes that a file really got.
func (e *entry) found(name string) (err error) {
	e.xattrs = nil
	if len(e.node.Xattrs) > 0 {
		e.xattrs, err = layer.Xattrs(name, nil)
	}
	return err
}

// makeLinks makes names that have others: of each file the first one as a file,
// unless there is one, and the rest as links to it.
func (t *tree) makeLinks(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	made := map[*layer.Node]string{}
	t.walk(func(name string, e *entry) {
		if e.children == nil && e.node.Links > 1 && e.exists() {
			made[e.node] = name
		}
	})
	for _, name := range names {
		e := t.root.lookup(name)
		first, ok := made[e.node]
		if !ok {
			dir, base := path.Split(name)
			if err := t.makeFiles(ctx, strings.TrimSuffix(dir, "/"), []named{{base, e}}); err != nil {
				return err
			}
			made[e.node] = name
			continue
		}
		if err := os.Link(t.path(first), t.path(name)); err != nil {
			return err
		}
		e.xattrs = t.root.lookup(first).xattrs
		if err := lstat(t.path(name), &e.is); err != nil {
			return err
		}
	}
	return nil
}

// finishDirs sets what waited for all files.
func (t *tree) finishDirs(name string, e *entry) error {
	if e.dirty {
		if err := t.finishDir(name, e); err != nil {
			return fmt.Errorf("unpacking %q: %w", name, err)
		}
	}
	for base, child := range e.children {
		if child.children == nil || !t.makes(child) {
			continue
		}
		if err := t.finishDirs(path.Join(name, base), child); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) finishDir(name string, e *entry) error {
	dir, err := os.Open(t.path(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := e.node.Finish(int(dir.Fd())); err != nil {
		return err
	}
	if err := e.found(dir.Name()); err != nil {
		return err
	}
	e.dirty = false
	return unix.Fstat(int(dir.Fd()), &e.is)
}

// age keeps newest right.
func (t *tree) age(e *entry) {
	t.saw(e, &e.is)
	for _, child := range e.children {
		t.age(child)
	}
}

func lstat(name string, st *unix.Stat_t) error {
	if err := unix.Lstat(name, st); err != nil {
		return &os.PathError{Op: "lstat", Path: name, Err: err}
	}
	return nil
}
