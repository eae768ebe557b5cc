package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/org/kaniko-multiarch/internal/cache"
	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/progress"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// cacheVersion is part of every key: raise it when the same vertex makes
// another layer than before.
const cacheVersion = 1

// find looks for the layer that a vertex would make. What it finds goes on top
// of the vertex's own input: nothing is run, fetched or unpacked.
func (b *build) find(ctx context.Context, t *task) ([]tree, bool, error) {
	if b.Cache == nil {
		return nil, false, nil
	}
	input, ok := layered(t.vertex)
	if !ok {
		return nil, false, nil
	}
	key, err := b.key(t.vertex)
	if err != nil || key == "" {
		return nil, false, err
	}
	t.key = key
	if t.vertex.NoCache {
		return nil, false, nil
	}
	e, err := b.Cache.Get(ctx, key)
	if err != nil {
		if !errors.Is(err, cache.ErrMiss) {
			return nil, false, err
		}
		if err != cache.ErrMiss {
			b.Progress.Warn(progress.Warning{Text: fmt.Sprintf("%s: %v", t.vertex.Name, err)})
		}
		return nil, false, nil
	}
	below := b.input(t.vertex, input)
	out := append(make(tree, 0, len(below)+1), below...)
	return []tree{append(out, &treeLayer{
		base:    &baseLayer{ref: b.Cache.Name(), descriptor: e.Layer, diffID: e.DiffID},
		created: e.Created,
	})}, true, nil
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

// identify gives the vertices without a layer of their own a key: sources by
// their content.
func (b *build) identify(ctx context.Context, t *task, outputs []tree) error {
	if b.Cache == nil || t.key != "" {
		return nil
	}
	var err error
	switch t.vertex.Op.(type) {
	case *graph.LocalSource, *graph.HTTPSource, *graph.GitSource:
		t.key, err = b.contentKey(ctx, outputs[0])
	case *graph.ImageSource, *graph.Merge:
		t.key, err = b.key(t.vertex)
	}
	return err
}

// key is the definition key: what the vertex does, to what. It is empty when an
// input has none.
func (b *build) key(v *graph.Vertex) (digest.Digest, error) {
	type input struct {
		Key    digest.Digest
		Output int
	}
	k := struct {
		Version      int
		Kind         string
		Platform     any
		Op           graph.Op
		Inputs       []input
		Epoch        *int64
		RewriteTimes bool
	}{Version: cacheVersion, Kind: fmt.Sprintf("%T", v.Op), Platform: v.Platform, Op: v.Op}
	if b.RewriteTimes {
		k.Epoch, k.RewriteTimes = b.Epoch, true
	}
	for _, e := range v.Inputs {
		in := b.tasks[e.Vertex].key
		if in == "" {
			return "", nil
		}
		k.Inputs = append(k.Inputs, input{in, e.Output})
	}
	data, err := json.Marshal(k)
	if err != nil {
		return "", fmt.Errorf("computing the cache key of %s: %w", v.Name, err)
	}
	return digest.FromBytes(data), nil
}

// contentKey identifies a source by its files. Times do not count: a checkout
// gives every file a new one.
func (b *build) contentKey(ctx context.Context, t tree) (digest.Digest, error) {
	sum := digest.SHA256.Digester()
	for _, l := range t {
		if err := l.made.WriteTar(ctx, sum.Hash(), rootfs.TarOptions{MaxTime: new(int64)}); err != nil {
			return "", fmt.Errorf("hashing a source: %w", err)
		}
	}
	return sum.Digest(), nil
}

// keep stores what a vertex made, in the background. A cache that cannot be
// written costs time, not the build.
func (b *build) keep(ctx context.Context, t *task) {
	if b.Cache == nil || t.key == "" {
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
		if err := b.Cache.Put(ctx, t.key, e, io.ReaderAt(blob)); err != nil && ctx.Err() == nil {
			b.Progress.Warn(progress.Warning{Text: fmt.Sprintf("keeping %s in the cache: %v", t.vertex.Name, err)})
		}
		return nil
	})
}
