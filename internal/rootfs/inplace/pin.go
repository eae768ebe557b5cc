package inplace

import (
	"context"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// pin is a layer whose files are in the tree where they were made, and nowhere
// else: nobody was going to change that tree. The tree's index is that of before.
type pin struct {
	tree    *tree
	changes []layer.Change
	// candidates and gone, which is sorted, are what the commit found. modified
	// tells which candidates have really changed.
	candidates []candidate
	modified   []bool
	gone       []string
	root       unix.Stat_t
	// newest is no older than any ctime of what was found.
	newest unix.Timespec
}

// pin finds what changed in a tree.
func (t *tree) pin(ctx context.Context) (*pin, error) {
	found, err := t.compare(ctx)
	if err != nil {
		return nil, err
	}
	slices.Sort(found.gone)
	p := &pin{
		tree: t, candidates: found.candidates, gone: found.gone,
		modified: make([]bool, len(found.candidates)),
		newest:   t.newest,
	}
	for _, name := range p.gone {
		p.changes = append(p.changes, layer.Change{Path: name, Kind: layer.Delete})
	}
	for i := range p.candidates {
		c := &p.candidates[i]
		if c.old != nil && !c.old.exists() {
			return nil, &rootfs.PartError{Name: "/" + c.name}
		}
		same, err := c.same(ctx, t.path(c.name))
		if err != nil {
			return nil, fmt.Errorf("comparing %q: %w", c.name, err)
		}
		if p.modified[i] = !same; !same {
			p.changes = append(p.changes, layer.Change{Path: c.name, Kind: layer.Modify})
		}
		p.saw(&c.is)
	}
	if err := lstat(t.dir, &p.root); err != nil {
		return nil, err
	}
	p.saw(&p.root)
	return p, nil
}

func (p *pin) saw(st *unix.Stat_t) {
	if later(st.Ctim, p.newest) {
		p.newest = st.Ctim
	}
}

// hold keeps the tree of a layer that is pinned as it is, until letGo; nil is
// one that is not.
func (c *change) hold() *pin {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if c.pin != nil {
		c.pin.tree.holders++
	}
	return c.pin
}

func (s *Store) letGo(p *pin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.tree.holders--
}

// writePinned is WriteTar while p is held, and lets it go.
func (c *change) writePinned(ctx context.Context, p *pin, w io.Writer, opts rootfs.TarOptions) error {
	s := c.store
	defer s.letGo(p)
	err := layer.Write(ctx, w, p.tree.dir, p.changes, layer.WriteOptions{MaxTime: opts.MaxTime})
	s.settled.RLock()
	defer s.settled.RUnlock()
	// The index stays as it is.
	c.capturing.Lock()
	defer c.capturing.Unlock()
	// It may be why the writing has failed.
	if damaged := s.undamaged(ctx, p.tree); damaged != nil {
		return damaged
	}
	return err
}

// viewPinned returns the tree of a layer that is pinned, when it shows nothing
// else; nil is for all others. A file of a layer below would not be linked to its
// other names there.
func (s *Store) viewPinned(layers []*change) (*tree, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(layers) != 1 || layers[0].pin == nil {
		return nil, nil
	}
	t := layers[0].pin.tree
	if !slices.Equal(t.layers, layers) {
		return nil, nil
	}
	if t.disturbed {
		return nil, errLost()
	}
	t.use = reading
	t.readers++
	return t, nil
}

func errLost() error {
	return &rootfs.LostError{Err: &DamagedError{What: "files of a build context or of a stage, which are nowhere else", Other: true}}
}

// captured gives all layers tars of their own. Store.settled is read-locked.
func captured(ctx context.Context, layers []*change) error {
	for _, c := range layers {
		if err := c.captured(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *change) captured(ctx context.Context) error {
	c.capturing.Lock()
	defer c.capturing.Unlock()
	p := c.hold()
	if p == nil {
		return nil
	}
	defer c.store.letGo(p)
	files, err := p.capture(ctx, c.store)
	// It may be why that has failed.
	if damaged := c.store.undamaged(ctx, p.tree); damaged != nil {
		err = damaged
	}
	if err != nil {
		return err
	}
	return c.unpin(files)
}

// unpin makes files, which p.capture wrote, what there is of the layer. The tree
// is one like others then.
func (c *change) unpin(files *capture) error {
	p := c.pin
	c.tar, c.root, c.sockets = files.tar, files.root, map[string]*layer.Node{}
	for i, f := range p.candidates {
		if p.modified[i] && f.is.Mode&unix.S_IFMT == unix.S_IFSOCK {
			c.sockets[f.name] = socket(&f.is)
		}
	}
	root := &p.root
	c.root.Mode, c.root.UID, c.root.GID, c.root.Mtime = root.Mode, int(root.Uid), int(root.Gid), root.Mtim
	p.tree.adopt(c, root, p.candidates, p.modified)
	c.store.mu.Lock()
	c.pin = nil
	c.store.mu.Unlock()
	if c.tar == nil {
		return nil
	}
	return c.store.watchTar(c.tar)
}

// undamaged is for a tree that is, or was, the only place of a layer which was
// just read. Store.settled is read-locked, and nobody changes the index.
func (s *Store) undamaged(ctx context.Context, t *tree) error {
	s.mu.Lock()
	w := s.watch
	s.mu.Unlock()
	same := !t.disturbed
	if same && w != nil && (w.disturbed() || s.blind()) {
		var err error
		if same, err = s.unchanged(ctx, t); err != nil {
			return err
		}
	}
	if !same {
		return errLost()
	}
	return nil
}

// unchanged tells whether a tree is as its index, or its pin, says.
func (s *Store) unchanged(ctx context.Context, t *tree) (bool, error) {
	s.mu.Lock()
	var p *pin
	if c := t.pinned(); c != nil {
		p = c.pin
	}
	s.mu.Unlock()
	if p != nil {
		return p.unchanged(ctx)
	}
	return t.unchanged(ctx)
}

// unchanged tells whether the files are as the commit found them. Of what it
// found changed there is nothing to compare with: one call of chmod is enough to
// make that count as changed.
func (p *pin) unchanged(ctx context.Context) (bool, error) {
	found, err := p.tree.compare(ctx)
	if cause := context.Cause(ctx); cause != nil {
		return false, cause
	}
	// What cannot be read was removed.
	if err != nil {
		return false, nil
	}
	slices.Sort(found.gone)
	if !slices.Equal(found.gone, p.gone) {
		return false, nil
	}
	before := make(map[string]int, len(p.candidates))
	for i, c := range p.candidates {
		before[c.name] = i
	}
	left := len(before)
	for _, c := range found.candidates {
		i, known := before[c.name]
		if known {
			left--
			if !touched(&p.candidates[i].is, &c.is) {
				continue
			}
		}
		if known && p.modified[i] {
			return false, nil
		}
		same, err := c.same(ctx, p.tree.path(c.name))
		if err != nil {
			return false, fmt.Errorf("comparing %q: %w", c.name, err)
		}
		if !same {
			return false, nil
		}
	}
	var root unix.Stat_t
	if err := lstat(p.tree.dir, &root); err != nil || left > 0 {
		return false, nil
	}
	is := &p.root
	return root.Mode == is.Mode && root.Uid == is.Uid && root.Gid == is.Gid && root.Mtim == is.Mtim, nil
}
