package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/cache"
	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// memoryCache is a Cache and, for its layers, an Images.
type memoryCache struct {
	base
	mu      sync.Mutex
	entries map[digest.Digest]cache.Entry
	blobs   map[digest.Digest][]byte
	broken  bool
}

func (m *memoryCache) Name() string { return "cache.test/x" }

func (m *memoryCache) Get(_ context.Context, key digest.Digest) (*cache.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken {
		return nil, fmt.Errorf("%w: it is broken", cache.ErrMiss)
	}
	e, ok := m.entries[key]
	if !ok {
		return nil, cache.ErrMiss
	}
	return &e, nil
}

func (m *memoryCache) Put(_ context.Context, key digest.Digest, e cache.Entry, content io.ReaderAt) error {
	data, err := io.ReadAll(io.NewSectionReader(content, 0, e.Layer.Size))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries[key], m.blobs[e.Layer.Digest] = e, data
	if m.broken {
		return errors.New("full")
	}
	return err
}

func (m *memoryCache) OpenLayer(ctx context.Context, ref string, layer ocispecs.Descriptor) (io.ReadCloser, error) {
	if ref != m.Name() {
		return m.base.OpenLayer(ctx, ref, layer)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return io.NopCloser(bytes.NewReader(m.blobs[layer.Digest])), nil
}

const cached = "FROM debian AS b\nRUN compile\nFROM debian\nCOPY a /copied\nCOPY --from=b /out /out\nRUN last\n"

func TestBuild_cache(t *testing.T) {
	t.Parallel()
	store := &memoryCache{base: newBase(), entries: map[digest.Digest]cache.Entry{}, blobs: map[digest.Digest][]byte{}}
	var mu sync.Mutex
	ran := map[string]int{}
	count := func(name string) func(context.Context, sandbox.Process) error {
		return func(ctx context.Context, p sandbox.Process) error {
			mu.Lock()
			defer mu.Unlock()
			ran[name]++
			return write("out", name)(ctx, p)
		}
	}
	build := func(text string) (*fixture, *Image) {
		f := newFixture(t, script{"compile": count("compile"), "last": count("last")})
		f.Cache, f.Images = store, store
		dir := t.TempDir()
		assert.NilError(t, os.WriteFile(filepath.Join(dir, "a"), []byte(text), 0o644))
		from, err := buildcontext.Open(dir)
		assert.NilError(t, err)
		t.Cleanup(func() { _ = from.Close() })
		f.Contexts["context"] = from
		img, err := f.build(cached)
		assert.NilError(t, err)
		return f, img
	}
	_, first := build("one")
	assert.Check(t, is.DeepEqual(ran, map[string]int{"compile": 1, "last": 1}))
	assert.Check(t, is.Equal(first.Built, 3))

	f, second := build("one")
	assert.Check(t, is.DeepEqual(ran, map[string]int{"compile": 1, "last": 1}), "a step ran again")
	assert.Check(t, is.Equal(f.store.bases, 0), "something was unpacked")
	assert.Check(t, is.Equal(second.Cached, 3))
	assert.Check(t, is.Equal(second.Built, 0))
	assert.Check(t, is.Equal(second.Descriptor.Digest, first.Descriptor.Digest))

	_, third := build("changed")
	assert.Check(t, is.DeepEqual(ran, map[string]int{"compile": 1, "last": 2}))
	assert.Check(t, third.Descriptor.Digest != first.Descriptor.Digest)

	store.broken = true
	_, fourth := build("changed")
	assert.Check(t, is.DeepEqual(ran, map[string]int{"compile": 2, "last": 3}))
	assert.Check(t, is.Equal(fourth.Built, 3))
}
