package inplace

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// Work implements rootfs.Store. An idle tree of parents, or else of the first
// of them, is taken over: whoever wants that tree again as it was gets another
// one, made of the layers.
func (s *Store) Work(ctx context.Context, parents []rootfs.Layer) (rootfs.Work, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	layers, err := s.changes(parents)
	if err != nil {
		return nil, err
	}
	release, err := s.state.Hold()
	if err != nil {
		return nil, err
	}
	defer release()
	s.settled.RLock()
	s.mu.Lock()
	t, upper := s.take(layers, writing)
	s.mu.Unlock()
	err = s.prepare(ctx, t, upper)
	s.settled.RUnlock()
	if err != nil {
		return nil, err
	}
	if err := waitPast(ctx, t.newest); err != nil {
		return nil, errors.Join(err, s.drop(t))
	}
	return &work{store: s, tree: t}, nil
}

// take returns an idle tree that has the most of layers, or a new one, and
// which of layers it does not have. The tree is in use then. s.mu is locked.
func (s *Store) take(layers []*change, how use) (_ *tree, upper []*change) {
	var best *tree
	for _, t := range s.trees {
		n := len(t.layers)
		if t.use != idle || n == 0 || n > len(layers) || !slices.Equal(t.layers, layers[:n]) {
			continue
		}
		if best == nil || n > len(best.layers) {
			best = t
		}
	}
	if best == nil {
		best = s.newTree()
		s.trees = append(s.trees, best)
	}
	upper = layers[len(best.layers):]
	best.layers = slices.Clone(layers)
	best.use = how
	best.ready = make(chan struct{})
	best.failed = nil
	return best, upper
}

// prepare makes a tree that was taken what it should be, or drops it.
func (s *Store) prepare(ctx context.Context, t *tree, upper []*change) error {
	err := t.show(ctx, upper, t.use == reading)
	if err != nil {
		err = errors.Join(fmt.Errorf("making a tree of %d layers: %w", len(t.layers), err), s.drop(t))
	}
	t.failed = err
	close(t.ready)
	return err
}

// drop removes a tree.
func (s *Store) drop(t *tree) error {
	s.mu.Lock()
	s.trees = slices.DeleteFunc(s.trees, func(other *tree) bool { return other == t })
	s.mu.Unlock()
	return os.RemoveAll(t.dir)
}

// work is a tree that is written to.
type work struct {
	store *Store
	tree  *tree
	ended bool
}

// Path implements rootfs.Work.
func (w *work) Path() string { return w.tree.dir }

// Commit implements rootfs.Work. When it fails the tree is gone.
func (w *work) Commit(ctx context.Context) (_ rootfs.Layer, err error) {
	if w.ended {
		return nil, errors.New("the tree was committed or discarded before")
	}
	release, err := w.store.state.Hold()
	if err != nil {
		return nil, err
	}
	defer release()
	w.ended = true
	w.store.settled.RLock()
	defer w.store.settled.RUnlock()
	c, err := w.commit(ctx)
	// It may be why the commit has failed.
	if disturbed := w.store.undisturbed(w.tree); disturbed != nil {
		err = disturbed
	}
	if err != nil {
		return nil, errors.Join(err, w.store.drop(w.tree))
	}
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	w.tree.layers = append(w.tree.layers, c)
	w.tree.use = idle
	return c, nil
}

func (w *work) commit(ctx context.Context) (*change, error) {
	t := w.tree
	found, err := t.compare(ctx)
	if err != nil {
		return nil, fmt.Errorf("finding what changed: %w", err)
	}
	var changes []layer.Change
	for _, name := range found.gone {
		changes = append(changes, layer.Change{Path: name, Kind: layer.Delete})
	}
	modified := make([]bool, len(found.candidates))
	for i := range found.candidates {
		c := &found.candidates[i]
		same, err := c.same(ctx, t.path(c.name))
		if err != nil {
			return nil, fmt.Errorf("comparing %q: %w", c.name, err)
		}
		if modified[i] = !same; !same {
			changes = append(changes, layer.Change{Path: c.name, Kind: layer.Modify})
		}
	}
	c, err := w.capture(ctx, changes)
	if err != nil {
		return nil, err
	}
	for i, f := range found.candidates {
		if modified[i] && f.is.Mode&unix.S_IFMT == unix.S_IFSOCK {
			c.sockets[f.name] = socket(&f.is)
		}
	}
	var root unix.Stat_t
	if err := lstat(t.dir, &root); err != nil {
		return nil, err
	}
	c.root.Mode, c.root.UID, c.root.GID, c.root.Mtime = root.Mode, int(root.Uid), int(root.Gid), root.Mtim
	t.adopt(c, &root, found.candidates, modified)
	return c, w.store.watchTar(c.tar)
}

func socket(st *unix.Stat_t) *layer.Node {
	return &layer.Node{Mode: st.Mode, UID: int(st.Uid), GID: int(st.Gid), Mtime: st.Mtim, Links: 1}
}

// capture writes the changes to a tar: the tree goes on changing.
func (w *work) capture(ctx context.Context, changes []layer.Change) (*change, error) {
	s := w.store
	f, err := os.Create(s.state.Path(filepath.Join("l", s.state.NewName())))
	if err != nil {
		return nil, err
	}
	s.keep(f)
	root, err := scanned(ctx, func(scan io.Writer) error {
		out := newHoles(f)
		if err := layer.Write(ctx, io.MultiWriter(out, scan), w.tree.dir, changes, layer.WriteOptions{}); err != nil {
			return err
		}
		return out.Close()
	})
	if err != nil {
		return nil, err
	}
	return &change{store: s, tar: f, root: root, sockets: map[string]*layer.Node{}, made: true}, nil
}

// scanned scans a tar while write writes it.
func scanned(ctx context.Context, write func(io.Writer) error) (root *layer.Node, err error) {
	r, w := io.Pipe()
	var group errgroup.Group
	group.Go(func() (err error) {
		defer func() { r.CloseWithError(err) }()
		if root, err = layer.Scan(ctx, r); err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		return err
	})
	buffered := bufio.NewWriterSize(w, holeSize)
	if err = write(buffered); err == nil {
		err = buffered.Flush()
	}
	w.CloseWithError(err)
	// Each side stops with the other's error.
	return root, cmp.Or(err, group.Wait())
}

// adopt makes what a work found what the index says.
func (t *tree) adopt(c *change, root *unix.Stat_t, found []candidate, modified []bool) {
	t.apply(c)
	t.stale = nil
	t.walk(func(_ string, e *entry) { e.dirty = false })
	t.root.dirty = false
	t.saw(t.root, root)
	type inode struct{ dev, ino uint64 }
	twins := map[inode][]string{}
	for i, f := range found {
		e := t.root.lookup(f.name)
		if e == nil {
			continue
		}
		t.saw(e, &f.is)
		if modified[i] {
			e.xattrs = e.node.Xattrs
		}
		if e.children == nil && f.is.Nlink > 1 {
			id := inode{f.is.Dev, f.is.Ino}
			twins[id] = append(twins[id], f.name)
		}
	}
	t.twins = nil
	for _, g := range twins {
		if len(g) > 1 {
			slices.Sort(g)
			t.twins = append(t.twins, g)
		}
	}
}

// Discard implements rootfs.Work; it does nothing after Commit.
func (w *work) Discard() error {
	if w.ended {
		return nil
	}
	release, err := w.store.state.Hold()
	if err != nil {
		// Close has removed the tree.
		return nil
	}
	defer release()
	w.ended = true
	return w.store.drop(w.tree)
}
