package engine

import (
	"context"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/org/kaniko-multiarch/internal/cache"
	"github.com/org/kaniko-multiarch/internal/graph"
)

// maxLookups limits the requests to the cache at once.
const maxLookups = 16

// lookUp asks the cache for all vertices at once and settles those of which the
// layer is known. It returns what is left to run; everything else is needed by
// nobody.
func (b *build) lookUp(ctx context.Context) ([]*task, error) {
	if err := b.define(ctx); err != nil {
		return nil, err
	}
	entries, err := b.entries(ctx)
	if err != nil {
		return nil, err
	}
	needed, err := b.settle(entries)
	if err != nil {
		return nil, err
	}
	var left []*task
	for _, v := range b.graph.Vertices {
		t := b.tasks[v]
		if e, ok := entries[v]; ok {
			b.carry(ctx, t, t.key, e)
		}
		switch e, hit := entries[v]; {
		case t.outputs != nil: // a source
		case !needed[v]:
			b.skip(t)
		case b.stacked(t):
		case hit:
			b.hit(ctx, t, e)
		default:
			left = append(left, t)
		}
	}
	return left, nil
}

// entries are the vertices that the cache has by their definition. One that
// depends on a step which is to run anyway is looked for when its inputs are
// known.
func (b *build) entries(ctx context.Context) (map[*graph.Vertex]*cache.Entry, error) {
	found := make([]*cache.Entry, len(b.graph.Vertices))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxLookups)
	for i, v := range b.graph.Vertices {
		t := b.tasks[v]
		if _, ok := layered(v); !ok || t.key == "" || t.noCache {
			continue
		}
		group.Go(func() (err error) {
			found[i], err = b.get(ctx, t, t.key)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	entries := map[*graph.Vertex]*cache.Entry{}
	for i, v := range b.graph.Vertices {
		if found[i] != nil {
			entries[v] = found[i]
		}
	}
	return entries, nil
}

// settle drops the entries that do not go together, and returns the vertices
// whose trees are needed. Builders that race leave layers of several runs in a
// cache: an entry counts only if it was made of what its inputs are now. An input
// that nobody needs is not made to find that out; then all entries must agree
// what it was.
func (b *build) settle(entries map[*graph.Vertex]*cache.Entry) (map[*graph.Vertex]bool, error) {
	for {
		s := b.newSettling(entries)
		var dropped []*graph.Vertex
		for _, v := range b.graph.Vertices {
			e, ok := entries[v]
			if !ok {
				continue
			}
			fits, err := s.fits(v, e)
			if err != nil {
				return nil, err
			}
			if !fits {
				dropped = append(dropped, v)
			}
		}
		if len(dropped) == 0 {
			return s.needed, nil
		}
		for _, v := range dropped {
			delete(entries, v)
		}
	}
}

// needed finds the vertices whose trees are part of an image, or are used by
// what has to run.
func (b *build) needed(entries map[*graph.Vertex]*cache.Entry) map[*graph.Vertex]bool {
	needed := map[*graph.Vertex]bool{}
	var visit func(v *graph.Vertex)
	visit = func(v *graph.Vertex) {
		if needed[v] {
			return
		}
		needed[v] = true
		_, hit := entries[v]
		below, _ := layered(v)
		for i, in := range v.Inputs {
			if !hit || i == below {
				visit(in.Vertex)
			}
		}
	}
	for _, img := range b.graph.Images {
		if img.Root != nil {
			visit(img.Root.Vertex)
		}
	}
	return needed
}

// knownLayers has the layers of the trees that are known without running
// anything. Sources that are no images are known, but not by layers.
func (b *build) knownLayers(entries map[*graph.Vertex]*cache.Entry) map[*graph.Vertex][]digest.Digest {
	known := map[*graph.Vertex][]digest.Digest{}
	for _, v := range b.graph.Vertices {
		layers := []digest.Digest{}
		ok := true
		switch v.Op.(type) {
		case *graph.ImageSource:
			for _, l := range b.tasks[v].outputs[0] {
				layers = append(layers, l.base.diffID)
			}
		case *graph.Merge:
			for _, in := range v.Inputs {
				below, isKnown := known[in.Vertex]
				ok = ok && isKnown
				layers = append(layers, below...)
			}
		default:
			e, hit := entries[v]
			if ok = hit; !hit {
				break
			}
			if i, _ := layered(v); i != graph.None {
				layers, ok = known[v.Inputs[i].Vertex]
			}
			if ok {
				layers = append(layers[:len(layers):len(layers)], e.DiffID)
			}
		}
		if ok {
			known[v] = layers
		}
	}
	return known
}

// skip is for a vertex that nobody needs, since what it is for is in the cache.
func (b *build) skip(t *task) {
	b.Progress.Start(t.vertex.Digest)
	b.Progress.Done(t.vertex.Digest, true, nil)
	close(t.done)
}

// stacked makes the tree of a merge whose inputs are there.
func (b *build) stacked(t *task) bool {
	if _, ok := t.vertex.Op.(*graph.Merge); !ok {
		return false
	}
	for _, in := range t.vertex.Inputs {
		if b.tasks[in.Vertex].outputs == nil {
			return false
		}
	}
	b.Progress.Start(t.vertex.Digest)
	t.outputs, _ = b.merge(t.vertex)
	b.Progress.Done(t.vertex.Digest, true, nil)
	close(t.done)
	return true
}

// hit makes the entry the result of a vertex.
func (b *build) hit(ctx context.Context, t *task, e *cache.Entry) {
	input, _ := layered(t.vertex)
	b.Progress.Start(t.vertex.Digest)
	b.Progress.Done(t.vertex.Digest, true, nil)
	t.outputs = []tree{cachedOn(b.input(t.vertex, input), e)}
	if b.exported[t.vertex] {
		b.send(ctx, t.outputs[0])
	}
	close(t.done)
}
