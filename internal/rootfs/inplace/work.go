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
	return s.work(ctx, parents, nil)
}

// WorkPart implements rootfs.Parter.
func (s *Store) WorkPart(ctx context.Context, parents []rootfs.Layer, names []string) (rootfs.Work, error) {
	return s.work(ctx, parents, &part{names})
}

// part is which names of a tree are wanted; a nil one is all.
type part struct{ names []string }

func (s *Store) work(ctx context.Context, parents []rootfs.Layer, only *part) (rootfs.Work, error) {
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
	t, err := s.openWork(ctx, layers, only)
	if err != nil {
		return nil, err
	}
	if err := waitPast(ctx, t.newest); err != nil {
		return nil, errors.Join(err, s.drop(t))
	}
	return &work{store: s, tree: t}, nil
}

func (s *Store) openWork(ctx context.Context, layers []*change, only *part) (*tree, error) {
	s.settled.RLock()
	defer s.settled.RUnlock()
	if err := captured(ctx, layers); err != nil {
		return nil, err
	}
	s.mu.Lock()
	t, lacks := s.take(layers, writing, only)
	s.mu.Unlock()
	return t, s.prepare(ctx, t, lacks)
}

// take returns an idle tree that has the most of layers, or a new one, and
// what it lacks. The tree is in use then. s.mu is locked.
func (s *Store) take(layers []*change, how use, only *part) (_ *tree, lacks missing) {
	var best *tree
	for _, t := range s.trees {
		n := len(t.layers)
		if t.use != idle || t.holders > 0 || n == 0 || n > len(layers) || !slices.Equal(t.layers, layers[:n]) {
			continue
		}
		if best == nil || n > len(best.layers) {
			best = t
		}
	}
	if best == nil {
		best = s.newTree()
		best.part = only != nil
		s.trees = append(s.trees, best)
	}
	lacks.upper = layers[len(best.layers):]
	switch {
	case only == nil:
		lacks.rest, best.part = best.part, false
	case best.part:
		lacks.names = only.names
	}
	best.layers = slices.Clone(layers)
	best.use = how
	best.ready = make(chan struct{})
	best.failed = nil
	return best, lacks
}

// prepare makes a tree that was taken what it should be, or drops it.
func (s *Store) prepare(ctx context.Context, t *tree, lacks missing) error {
	err := t.show(ctx, lacks, t.use == reading)
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
func (w *work) Commit(ctx context.Context, hints ...rootfs.Hint) (_ rootfs.Layer, err error) {
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
	c, err := w.commit(ctx, hints)
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

func (w *work) commit(ctx context.Context, hints []rootfs.Hint) (*change, error) {
	p, err := w.tree.pin(ctx)
	if err != nil {
		return nil, fmt.Errorf("finding what changed: %w", err)
	}
	c := &change{store: w.store, made: true, pin: p}
	if slices.Contains(hints, rootfs.Top) {
		// What a step does there later is told by the times.
		return c, waitPast(ctx, p.newest)
	}
	capture := p.capture
	if slices.Contains(hints, rootfs.Passing) && !p.links() {
		capture = p.outline
	}
	captured, err := capture(ctx, w.store)
	if err != nil {
		return nil, err
	}
	return c, c.unpin(captured)
}

func socket(st *unix.Stat_t) *layer.Node {
	return &layer.Node{Mode: st.Mode, UID: int(st.Uid), GID: int(st.Gid), Mtime: st.Mtim, Links: 1}
}

// capture is the files of a layer, in no tree. Without a tar their content is lost
// when the tree changes.
type capture struct {
	tar  *os.File
	root *layer.Node
}

// links reports whether files have several names: the next work separates them,
// which takes their content.
func (p *pin) links() bool {
	for i, c := range p.candidates {
		if p.modified[i] && c.is.Mode&unix.S_IFMT != unix.S_IFDIR && c.is.Nlink > 1 {
			return true
		}
	}
	return false
}

// outline is capture without the content of files.
func (p *pin) outline(ctx context.Context, _ *Store) (*capture, error) {
	root, err := scanned(ctx, func(scan io.Writer) error {
		return layer.Write(ctx, scan, p.tree.dir, p.changes, layer.WriteOptions{NoContent: true})
	})
	return &capture{root: root}, err
}

func errPassed() error {
	return &rootfs.LostError{Err: errors.New("files of a stage that was not to be kept are gone")}
}

// capture writes the changes to a tar: the tree goes on changing.
func (p *pin) capture(ctx context.Context, s *Store) (*capture, error) {
	f, err := os.Create(s.state.Path(filepath.Join("l", s.state.NewName())))
	if err != nil {
		return nil, err
	}
	s.keep(f)
	root, err := scanned(ctx, func(scan io.Writer) error {
		out := newHoles(f)
		if err := layer.Write(ctx, io.MultiWriter(out, scan), p.tree.dir, p.changes, layer.WriteOptions{}); err != nil {
			return err
		}
		return out.Close()
	})
	if err != nil {
		return nil, err
	}
	return &capture{f, root}, nil
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
