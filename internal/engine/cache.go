package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/org/kaniko-multiarch/internal/cache"
	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/progress"
)

// find looks for the layer that a vertex would make of the inputs that it has
// now. Nothing is run, fetched or unpacked when there is one.
func (b *build) find(ctx context.Context, t *task) ([]tree, bool, error) {
	if b.Cache == nil || t.key == "" {
		return nil, false, nil
	}
	input, ok := layered(t.vertex)
	if !ok {
		return nil, false, nil
	}
	below := b.input(t.vertex, input)
	wholeFresh, pickedFresh := b.freshInputs(t)
	if !t.vertex.NoCache && !wholeFresh && !pickedFresh {
		e, err := b.getResult(ctx, t, false)
		if err != nil {
			return nil, false, err
		}
		if e != nil {
			return []tree{cachedOn(below, e)}, true, nil
		}
	}
	if err := b.pickStages(ctx, t); err != nil {
		return nil, false, err
	}
	if t.vertex.NoCache || wholeFresh {
		return nil, false, nil
	}
	e, err := b.getResult(ctx, t, true)
	if e == nil || err != nil {
		return nil, false, err
	}
	return []tree{cachedOn(below, e)}, true, nil
}

// freshInputs reports whether a vertex stands on a layer that a step made just
// now, or uses files of one. Such a layer, with its times, is in no cache: there
// is nothing to look for.
func (b *build) freshInputs(t *task) (whole, picked bool) {
	for i := range t.vertex.Inputs {
		fresh := b.input(t.vertex, i).fresh()
		whole = whole || fresh && t.uses[i].whole
		picked = picked || fresh && !t.uses[i].whole
	}
	return whole, picked
}

// pickStages hashes the files that a vertex uses of others; those of sources are
// known.
func (b *build) pickStages(ctx context.Context, t *task) (err error) {
	for i, in := range t.vertex.Inputs {
		if t.uses[i].whole || isSource(in.Vertex) {
			continue
		}
		if t.picked[i], err = b.pick(ctx, t, i); err != nil {
			return err
		}
	}
	return nil
}

// getResult asks for the layer of a vertex by what its inputs are, or by the
// files of them.
func (b *build) getResult(ctx context.Context, t *task, files bool) (*cache.Entry, error) {
	key, err := b.result(ctx, t, files)
	if key == "" || err != nil {
		return nil, err
	}
	e, err := b.get(ctx, t, key)
	if e != nil {
		b.carry(ctx, t, key, e)
	}
	return e, err
}

func appendKey(keys []digest.Digest, key digest.Digest) []digest.Digest {
	if key == "" || slices.Contains(keys, key) {
		return keys
	}
	return append(keys, key)
}

// get asks the cache for a key; nil is a miss. A build goes on without what it
// cannot use, and says so.
func (b *build) get(ctx context.Context, t *task, key digest.Digest) (*cache.Entry, error) {
	e, err := b.Cache.Get(ctx, key)
	switch {
	case context.Cause(ctx) != nil:
		return nil, context.Cause(ctx)
	case err != nil && err != cache.ErrMiss:
		b.warn(fmt.Sprintf("%s: %v", t.vertex.Name, err))
	}
	if err != nil || b.broken[e.Layer.Digest] {
		return nil, nil
	}
	return e, nil
}

// warn says a thing once.
func (b *build) warn(text string) {
	b.mu.Lock()
	said := b.warned[text]
	b.warned[text] = true
	b.mu.Unlock()
	if !said {
		b.Progress.Warn(progress.Warning{Text: text})
	}
}

// cachedOn puts the layer of an entry on a tree, which belongs to others, too.
func cachedOn(below tree, e *cache.Entry) tree {
	return append(slices.Clone(below), &treeLayer{
		base:    &baseLayer{ref: e.Ref, descriptor: e.Layer, diffID: e.DiffID, cached: true},
		created: e.Created,
	})
}

// brokenError is a layer that the cache promised and does not have.
type brokenError struct {
	layer digest.Digest
	err   error
}

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// ofCache marks an error that a layer of the cache is the reason for.
func (l *baseLayer) ofCache(err error) error {
	if err == nil || !l.cached {
		return err
	}
	return &brokenError{l.descriptor.Digest, err}
}

// brokenLayer reports whether err is a broken layer of the cache that the build can
// do without.
func brokenLayer(ctx context.Context, err error, broken map[digest.Digest]bool) (digest.Digest, bool) {
	e, ok := errors.AsType[*brokenError](err)
	if !ok || ctx.Err() != nil || broken[e.layer] {
		return "", false
	}
	return e.layer, true
}

// layered returns the input that a vertex puts exactly one layer on.
func layered(v *graph.Vertex) (input int, ok bool) {
	switch op := v.Op.(type) {
	case *graph.Exec:
		input, outputs := graph.None, 0
		for _, m := range op.Mounts {
			if m.Output != graph.None {
				outputs++
				input = m.Input
			}
		}
		return input, outputs == 1
	case *graph.File:
		input, outputs := graph.None, 0
		for _, a := range op.Actions {
			if a.Output != graph.None {
				outputs++
			}
			if a.Input < len(v.Inputs) {
				input = a.Input
			}
		}
		return input, outputs == 1
	}
	return 0, false
}

// keep stores what a vertex made, in the background. A cache that cannot be
// written costs time, not the build.
func (b *build) keep(ctx context.Context, t *task) {
	if b.Cache == nil || b.CacheReadOnly || t.key == "" {
		return
	}
	if _, ok := layered(t.vertex); !ok {
		return
	}
	made := t.outputs[0][len(t.outputs[0])-1]
	b.background.Go(func() error {
		blob, err := b.compressed(ctx, made)
		if err != nil {
			return b.fail(err)
		}
		e := cache.Entry{Layer: blob.Descriptor, DiffID: blob.DiffID, Created: made.created}
		keys, err := b.describeInputs(ctx, t, &e)
		if err != nil {
			return b.fail(err)
		}
		if err := b.sent(ctx, t, made); err != nil {
			return nil // whoever sends it says so
		}
		if b.changed.Load() {
			return nil
		}
		if err := b.Cache.Put(ctx, keys, e, io.ReaderAt(blob)); err != nil && ctx.Err() == nil {
			b.warn(fmt.Sprintf("keeping %s in the cache: %v", t.vertex.Name, err))
		}
		return nil
	})
}

// carry takes a hit along to caches that are written and lack it.
func (b *build) carry(ctx context.Context, t *task, key digest.Digest, e *cache.Entry) {
	if b.CacheReadOnly {
		return
	}
	b.background.Go(func() error {
		content := func() (io.ReaderAt, error) { return b.readEntry(ctx, e) }
		if err := b.Cache.Carry(ctx, key, *e, content); err != nil && ctx.Err() == nil {
			b.warn(fmt.Sprintf("taking %s along to another cache: %v", t.vertex.Name, err))
		}
		return nil
	})
}

// readEntry reads the layer of an entry into a file that goes with the build.
func (b *build) readEntry(ctx context.Context, e *cache.Entry) (_ io.ReaderAt, err error) {
	from, err := b.Images.OpenLayer(ctx, e.Ref, e.Layer)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	f, err := os.CreateTemp(b.SpoolDir, "carried-")
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.spool = append(b.spool, func() error { return errors.Join(f.Close(), os.Remove(f.Name())) })
	b.mu.Unlock()
	_, err = io.Copy(f, from)
	return f, err
}

// sent waits until a layer of an image is where the image goes: the cache may get
// it from there.
func (b *build) sent(ctx context.Context, t *task, l *treeLayer) error {
	if b.Publisher == nil || !b.exported[t.vertex] {
		return nil
	}
	select {
	case <-l.sent:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// describeInputs writes into an entry what it was made of, and returns all keys
// that it is to be found under.
func (b *build) describeInputs(ctx context.Context, t *task, e *cache.Entry) ([]digest.Digest, error) {
	e.Inputs = make([]digest.Digest, len(t.vertex.Inputs))
	for i, in := range t.vertex.Inputs {
		if isSource(in.Vertex) && !t.uses[i].whole {
			continue // in all keys
		}
		var err error
		if e.Inputs[i], err = b.treeID(ctx, b.input(t.vertex, i)); err != nil {
			return nil, err
		}
	}
	keys := []digest.Digest{t.key}
	for _, files := range []bool{false, true} {
		key, err := b.result(ctx, t, files)
		if err != nil {
			return nil, err
		}
		keys = appendKey(keys, key)
	}
	return keys, nil
}
