package inplace

import (
	"context"
	"slices"

	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// View implements rootfs.Store. Views of the same layers share a tree; it is up
// to the caller not to write there.
func (s *Store) View(ctx context.Context, layers []rootfs.Layer) (rootfs.View, error) {
	changes, err := s.changes(layers)
	if err != nil {
		return nil, err
	}
	release, err := s.state.Hold()
	if err != nil {
		return nil, err
	}
	defer release()
	for {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		t, joined, err := s.openView(ctx, changes)
		if err != nil {
			return nil, err
		}
		if !joined {
			return &view{store: s, tree: t}, nil
		}
		select {
		case <-ctx.Done():
			s.leaveView(t)
			return nil, context.Cause(ctx)
		case <-t.ready:
		}
		// The one who made it may have been cancelled.
		if t.failed == nil {
			return &view{store: s, tree: t}, nil
		}
	}
}

// openView makes a tree, or joins those who have one or are making one.
func (s *Store) openView(ctx context.Context, changes []*change) (t *tree, joined bool, err error) {
	s.settled.RLock()
	defer s.settled.RUnlock()
	t, upper, joined := s.joinView(changes)
	if joined {
		return t, true, nil
	}
	return t, false, s.prepare(ctx, t, upper)
}

// joinView returns a tree that others have a view of, or are making, or else
// one that is to be made.
func (s *Store) joinView(layers []*change) (t *tree, upper []*change, joined bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.trees {
		if t.use == reading && slices.Equal(t.layers, layers) {
			t.readers++
			return t, nil, true
		}
	}
	t, upper = s.take(layers, reading)
	t.readers = 1
	return t, upper, false
}

func (s *Store) leaveView(t *tree) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.readers--; t.readers == 0 {
		t.use = idle
	}
}

type view struct {
	store *Store
	tree  *tree
	ended bool
}

func (v *view) Path() string { return v.tree.dir }

// StandIn implements rootfs.View.
func (*view) StandIn() string { return "" }

// Release implements rootfs.View; it does nothing the second time.
func (v *view) Release() error {
	if !v.ended {
		v.ended = true
		v.store.leaveView(v.tree)
	}
	return nil
}
