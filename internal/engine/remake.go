package engine

import (
	"context"
	"errors"
	"sync"

	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// source is the files of a source, which are made when somebody needs them, and
// again when they are gone.
type source struct {
	make func() (rootfs.Layer, error)

	mu    sync.Mutex
	layer rootfs.Layer
	err   error
}

// load returns the layer with the files.
func (s *source) load() (rootfs.Layer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.layer == nil && s.err == nil {
		s.layer, s.err = s.make()
	}
	return s.layer, s.err
}

// forget has the files made again, if l is what load returned last.
func (s *source) forget(l rootfs.Layer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.layer == l {
		s.layer = nil
	}
}

// view opens t for reading. A source whose files a step has damaged is made once
// more.
func (b *build) view(ctx context.Context, store rootfs.Store, t tree) (rootfs.View, error) {
	layers, err := b.layers(ctx, store, t)
	if err != nil {
		return nil, err
	}
	v, err := store.View(ctx, layers)
	if _, lost := errors.AsType[*rootfs.LostError](err); !lost || !b.remake(t, layers) {
		return v, err
	}
	if layers, err = b.layers(ctx, store, t); err != nil {
		return nil, err
	}
	return store.View(ctx, layers)
}

// remake has the sources in t made again, and reports whether there are any.
func (b *build) remake(t tree, layers []rootfs.Layer) (any bool) {
	for i, l := range t {
		if l.source == nil {
			continue
		}
		any = true
		l.source.forget(layers[i])
		if l.listing == nil {
			// Nobody can tell whether they are what keys were made of.
			b.changed.Store(true)
		}
	}
	return any
}
