package inplace

import (
	"context"
	"slices"

	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// View implements rootfs.Store. Views of the same layers share a tree; it is up
// to the caller not to write there.
func (s *Store) View(ctx context.Context, layers []rootfs.Layer) (rootfs.View, error) {
	return s.view(ctx, layers, nil)
}

// ViewPart implements rootfs.Parter.
func (s *Store) ViewPart(ctx context.Context, layers []rootfs.Layer, names []string) (rootfs.View, error) {
	return s.view(ctx, layers, &part{names})
}

func (s *Store) view(ctx context.Context, layers []rootfs.Layer, only *part) (rootfs.View, error) {
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
		t, joined, err := s.openView(ctx, changes, only)
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

// Take implements rootfs.Taker.
func (s *Store) Take(_ context.Context, l rootfs.Layer) (rootfs.View, error) {
	layers, err := s.changes([]rootfs.Layer{l})
	if err != nil {
		return nil, err
	}
	release, err := s.state.Hold()
	if err != nil {
		return nil, err
	}
	defer release()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.trees {
		if t.use == idle && !t.disturbed && t.holders == 0 && slices.Equal(t.layers, layers) {
			t.use = writing
			return &taken{s, t}, nil
		}
	}
	return nil, nil
}

// taken is a tree that was given away.
type taken struct {
	store *Store
	tree  *tree
}

func (k *taken) Path() string { return k.tree.dir }

// StandIn implements rootfs.View.
func (*taken) StandIn() string { return "" }

// Release implements rootfs.View.
func (k *taken) Release() error {
	release, err := k.store.state.Hold()
	if err != nil {
		return nil // Close has removed the tree
	}
	defer release()
	return k.store.drop(k.tree)
}

// openView makes a tree, or joins those who have one or are making one.
func (s *Store) openView(ctx context.Context, changes []*change, only *part) (t *tree, joined bool, err error) {
	s.settled.RLock()
	defer s.settled.RUnlock()
	if t, err := s.viewPinned(changes); t != nil || err != nil {
		return t, true, err
	}
	if err := captured(ctx, changes); err != nil {
		return nil, false, err
	}
	t, lacks, joined := s.joinView(changes, only)
	if joined {
		return t, true, nil
	}
	return t, false, s.prepare(ctx, t, lacks)
}

// joinView returns a tree that others have a view of, or are making, or else
// one that is to be made.
func (s *Store) joinView(layers []*change, only *part) (t *tree, lacks missing, joined bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.trees {
		if t.use == reading && !t.part && slices.Equal(t.layers, layers) {
			t.readers++
			return t, missing{}, true
		}
	}
	t, lacks = s.take(layers, reading, only)
	t.readers = 1
	return t, lacks, false
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
