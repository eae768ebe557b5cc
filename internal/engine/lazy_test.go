package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// watched is a context whose copies are counted.
type watched struct {
	*buildcontext.Context
	copies atomic.Int32
	// before is called before a copy.
	before func()
}

func (w *watched) Materialize(ctx context.Context, dst string, files buildcontext.Selection) error {
	w.copies.Add(1)
	if w.before != nil {
		w.before()
	}
	return w.Context.Materialize(ctx, dst, files)
}

// watch returns a new machine with one file a, and its context.
func (b *bench) watch(text string) (*fixture, *watched, string) {
	b.t.Helper()
	f := b.fresh(nil)
	file := filepath.Join(b.t.TempDir(), "a")
	assert.NilError(b.t, os.WriteFile(file, []byte(text), 0o644))
	from, err := buildcontext.Open(filepath.Dir(file))
	assert.NilError(b.t, err)
	b.t.Cleanup(func() { _ = from.Close() })
	w := &watched{Context: from}
	f.Contexts["context"] = w
	return f, w, file
}

// A context of which all that is made is known is read where it is.
func TestCache_copies_a_context_when_needed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.step("use", "used", each())
	const dockerfile = "FROM debian\nCOPY a /a\nRUN use\nRUN --mount=target=/m use\n"
	for i, want := range []int32{1, 0, 0} {
		f, w, _ := b.watch("1")
		_, _, err := b.try(f, dockerfile)
		assert.NilError(t, err)
		assert.Check(t, is.Equal(w.copies.Load(), want), "build %d", i)
	}
	f, w, _ := b.watch("2")
	_, _, err := b.try(f, dockerfile)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(w.copies.Load(), int32(1)))
}

// Files that change between the look at them and the copy are in no entry: its
// key is that of other files.
func TestCache_context_that_changes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f, w, file := b.watch("1")
	w.before = func() { assert.Check(t, os.WriteFile(file, []byte("2"), 0o644)) }
	changed, _, err := b.try(f, "FROM debian\nCOPY a /a\n")
	assert.NilError(t, err)
	assert.Check(t, is.Len(b.cache.entries, 0))

	f, _, _ = b.watch("1")
	img, _, err := b.try(f, "FROM debian\nCOPY a /a\n")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(img.Cached, 0))
	assert.Check(t, img.Descriptor.Digest != changed.Descriptor.Digest)
}

// opened tells of each layer of the cache that is read.
type opened struct {
	*memoryCache
	t     *testing.T
	mu    sync.Mutex
	names map[string]bool
	on    chan string
}

func (o *opened) OpenLayer(ctx context.Context, ref string, l ocispecs.Descriptor) (io.ReadCloser, error) {
	r, err := o.memoryCache.OpenLayer(ctx, ref, l)
	if ref != cacheRef || err != nil {
		return r, err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	plain, err := layer.Decompress(io.NopCloser(bytes.NewReader(data)))
	if err != nil {
		return nil, err
	}
	for name := range files(o.t, plain) {
		o.mu.Lock()
		o.names[name] = true
		o.mu.Unlock()
		select {
		case o.on <- name:
		default:
		}
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// One file changed: what is not below it is not read, and what is, is fetched
// while the step that is to be repeated still runs.
func TestCache_layers_ahead(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.step("deps", "deps", always("d"))
	b.step("docs", "docs", always("d"))
	b.step("last", "last", each())
	var on chan string
	b.steps["compile"] = func(ctx context.Context, p sandbox.Process) error {
		for on != nil {
			select {
			case name := <-on:
				if name == "deps" {
					return write("out", "2")(ctx, p)
				}
			case <-time.After(20 * time.Second):
				return errors.New("nothing was fetched while the step ran")
			}
		}
		return write("out", "1")(ctx, p)
	}
	const dockerfile = "FROM debian AS b\nCOPY a /a\nRUN compile\nFROM scratch AS d\nRUN docs\nFROM debian\nRUN deps\nCOPY --from=b /out /out\nRUN last\n" +
		"FROM scratch\nCOPY --link --from=d /docs /docs\nCOPY --link --from=2 /last /last\n"
	b.build(dockerfile, map[string]string{"a": "1"})

	f := b.fresh(map[string]string{"a": "2"})
	on = make(chan string, 100)
	images := &opened{memoryCache: b.cache, t: t, names: map[string]bool{}, on: on}
	f.Images = images
	_, ran, err := b.try(f, dockerfile)
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(ran, map[string]int{"last": 1}))
	assert.Check(t, images.names["deps"])
	assert.Check(t, !images.names["docs"], "a layer was read that no step needs")
}
