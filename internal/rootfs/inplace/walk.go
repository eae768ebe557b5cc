package inplace

import (
	"context"
	"os"
	"path"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// candidate is a name whose file may have changed.
type candidate struct {
	name string
	// old is nil when the index does not have the name.
	old *entry
	is  unix.Stat_t
}

// walker compares a tree with its index.
type walker struct {
	ctx   context.Context
	tree  *tree
	group *errgroup.Group

	mu         sync.Mutex
	candidates []candidate
	// gone are the names that are in the index only; what was in them is not
	// listed.
	gone []string
}

func (t *tree) compare(ctx context.Context) (*walker, error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	w := &walker{ctx: ctx, tree: t, group: group}
	group.Go(func() error { return w.dir(".", t.root) })
	return w, group.Wait()
}

// dir looks at what is in a directory; e is nil when the index has none there.
func (w *walker) dir(name string, e *entry) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	full := w.tree.path(name)
	f, err := os.Open(full)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	fd := int(f.Fd())
	var found []candidate
	var below []named
	known := 0
	for _, base := range names {
		var old *entry
		if e != nil {
			old = e.children[base]
		}
		c := candidate{old: old}
		if err := unix.Fstatat(fd, base, &c.is, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "lstat", Path: path.Join(full, base), Err: err}
		}
		if old != nil {
			known++
		}
		if old == nil || touched(&old.is, &c.is) {
			c.name = path.Join(name, base)
			found = append(found, c)
		}
		if c.is.Mode&unix.S_IFMT == unix.S_IFDIR {
			if old != nil && old.children == nil {
				old = nil
			}
			below = append(below, named{base, old})
		}
	}
	w.add(name, e, names, known, found)
	for _, d := range below {
		next := func() error { return w.dir(path.Join(name, d.base), d.entry) }
		if w.group.TryGo(next) {
			continue
		}
		if err := next(); err != nil {
			return err
		}
	}
	return nil
}

// touched reports whether something may have happened to a file. Its ctime
// cannot be set, but goes along with a renamed directory.
func touched(a, b *unix.Stat_t) bool {
	return a.Ino != b.Ino || a.Dev != b.Dev || a.Ctim != b.Ctim || a.Size != b.Size
}

func (w *walker) add(name string, e *entry, names []string, known int, found []candidate) {
	var gone []string
	if e != nil && known < len(e.children) {
		here := make(map[string]bool, len(names))
		for _, base := range names {
			here[base] = true
		}
		for base, child := range e.children {
			if !here[base] && child.exists() {
				gone = append(gone, path.Join(name, base))
			}
		}
	}
	if len(found) == 0 && len(gone) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.candidates = append(w.candidates, found...)
	w.gone = append(w.gone, gone...)
}
