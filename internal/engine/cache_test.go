package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/cache"
	"github.com/org/kaniko-multiarch/internal/layer"
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

const cacheRef = "cache.test/x"

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
	e.Ref = cacheRef
	return &e, nil
}

func (m *memoryCache) Put(_ context.Context, keys []digest.Digest, e cache.Entry, content io.ReaderAt) error {
	data, err := io.ReadAll(io.NewSectionReader(content, 0, e.Layer.Size))
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		m.entries[key] = e
	}
	m.blobs[e.Layer.Digest] = data
	if m.broken {
		return errors.New("full")
	}
	return err
}

func (m *memoryCache) Carry(context.Context, digest.Digest, cache.Entry, func() (io.ReaderAt, error)) error {
	return nil
}

func (m *memoryCache) OpenLayer(ctx context.Context, ref string, layer ocispecs.Descriptor) (io.ReadCloser, error) {
	if ref != cacheRef {
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

// bench is several builds that share a cache, each on a fresh machine.
type bench struct {
	t     *testing.T
	cache *memoryCache
	mu    sync.Mutex
	ran   map[string]int
	steps script
}

func newBench(t *testing.T) *bench {
	return &bench{
		t: t, ran: map[string]int{}, steps: script{},
		cache: &memoryCache{base: newBase(), entries: map[digest.Digest]cache.Entry{}, blobs: map[digest.Digest][]byte{}},
	}
}

// step is one that writes text() to a file, and is counted.
func (b *bench) step(name, file string, text func() string) {
	b.steps[name] = func(ctx context.Context, p sandbox.Process) error {
		b.mu.Lock()
		b.ran[name]++
		b.mu.Unlock()
		return write(file, text())(ctx, p)
	}
}

func always(text string) func() string { return func() string { return text } }

// each returns something else each time.
func each() func() string {
	n := 0
	return func() string {
		n++
		return fmt.Sprint("run ", n)
	}
}

// fresh is a new machine whose context has files.
func (b *bench) fresh(files map[string]string) *fixture {
	f := newFixture(b.t, b.steps)
	f.Cache, f.Images = b.cache, b.cache
	dir := b.t.TempDir()
	for name, text := range files {
		assert.NilError(b.t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	from, err := buildcontext.Open(dir)
	assert.NilError(b.t, err)
	b.t.Cleanup(func() { _ = from.Close() })
	f.Contexts["context"] = from
	return f
}

// build returns the image and the steps that ran for it.
func (b *bench) build(dockerfile string, files map[string]string) (*Image, map[string]int) {
	b.t.Helper()
	img, ran, err := b.try(b.fresh(files), dockerfile)
	assert.NilError(b.t, err)
	return img, ran
}

func (b *bench) try(f *fixture, dockerfile string) (*Image, map[string]int, error) {
	b.t.Helper()
	b.ran = map[string]int{}
	img, err := f.build(dockerfile)
	return img, b.ran, err
}

func TestCache_other_files_of_the_context_do_not_matter(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.step("deps", "deps", always("d"))
	b.step("compile", "out", each())
	const dockerfile = "FROM debian\nCOPY a /a\nRUN deps\nCOPY b /b\nRUN compile\n"
	_, ran := b.build(dockerfile, map[string]string{"a": "1", "b": "1"})
	assert.Check(t, is.DeepEqual(ran, map[string]int{"deps": 1, "compile": 1}))
	img, ran := b.build(dockerfile, map[string]string{"a": "1", "b": "2"})
	assert.Check(t, is.DeepEqual(ran, map[string]int{"compile": 1}))
	assert.Check(t, is.Equal(img.Cached, 2))
	_, ran = b.build(dockerfile, map[string]string{"a": "2", "b": "2"})
	assert.Check(t, is.DeepEqual(ran, map[string]int{"deps": 1, "compile": 1}))
}

// A stage that comes out as before does not make those after it run.
func TestCache_stage_with_the_same_output(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.step("generate", "out", always("generated"))
	b.step("use", "used", each())
	b.step("mount", "mounted", each())
	const dockerfile = "FROM debian AS gen\nCOPY a /a\nRUN generate\nFROM debian\nCOPY --from=gen /out /out\nRUN use\nRUN --mount=from=gen,source=/out,target=/m mount\n"
	_, ran := b.build(dockerfile, map[string]string{"a": "1"})
	assert.Check(t, is.DeepEqual(ran, map[string]int{"generate": 1, "use": 1, "mount": 1}))
	img, ran := b.build(dockerfile, map[string]string{"a": "2"})
	assert.Check(t, is.DeepEqual(ran, map[string]int{"generate": 1}))
	assert.Check(t, is.Equal(img.Cached, 3))
}

func TestCache_stage_behind_a_cached_copy_is_not_built(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.step("compile", "out", each())
	const dockerfile = "FROM debian AS b\nRUN compile\nFROM debian\nCOPY --from=b /out /out\nCOPY --from=b /base /again\n"
	first, _ := b.build(dockerfile, nil)
	// The stage's own layer is gone: it expired, for instance.
	b.forget("out")
	f := b.fresh(nil)
	second, ran, err := b.try(f, dockerfile)
	assert.NilError(t, err)
	assert.Check(t, is.Len(ran, 0))
	assert.Check(t, is.Equal(f.store.bases, 0), "something was unpacked")
	assert.Check(t, is.Equal(second.Descriptor.Digest, first.Descriptor.Digest))
}

// forget removes the entries whose layer has just that file besides the base's.
func (b *bench) forget(file string) {
	for key, e := range b.cache.entries {
		r, err := layer.Decompress(io.NopCloser(bytes.NewReader(b.cache.blobs[e.Layer.Digest])))
		assert.NilError(b.t, err)
		have := files(b.t, r)
		delete(have, "base")
		if _, ok := have[file]; ok && len(have) == 1 && len(e.Inputs) == 1 {
			delete(b.cache.entries, key)
		}
	}
}

// runs is what each layer of an image says of the run that it is of: here a layer
// has all files of the layers below it, too.
func (b *bench) runs(img *Image) map[string]bool {
	b.t.Helper()
	found := map[string]bool{}
	var m ocispecs.Manifest
	assert.NilError(b.t, json.Unmarshal(img.Manifest, &m))
	for _, l := range m.Layers[1:] {
		r, err := layer.Decompress(io.NopCloser(bytes.NewReader(b.cache.blobs[l.Digest])))
		assert.NilError(b.t, err)
		for name, text := range files(b.t, r) {
			if name != "base" {
				found[text] = true
			}
		}
	}
	return found
}

// Two builders leave layers of two runs in one cache, in any mixture. No image
// has layers of both.
func TestCache_builders_that_race(t *testing.T) {
	t.Parallel()
	for name, dockerfile := range map[string]string{
		"steps":       "FROM debian\nRUN compile\nRUN link\n",
		"copies":      "FROM debian AS b\nRUN compile\nFROM debian\nCOPY --from=b /out /1\nCOPY --from=b /out /2\n",
		"independent": "FROM debian AS b\nRUN compile\nFROM scratch AS one\nCOPY --from=b /out /1\nFROM scratch\nCOPY --link --from=one /1 /1\nCOPY --link --from=b /out /2\n",
		"deep":        "FROM debian AS b\nRUN compile\nFROM debian AS one\nCOPY --from=b /out /1\nFROM debian\nCOPY --link --from=one /1 /1\nCOPY --link --from=b /out /2\n",
		"apart":       "FROM debian AS b\nRUN compile\nFROM debian\nCOPY --link --from=b /out /1\nCOPY --link --from=b /out /2\n",
		"mounts":      "FROM debian AS b\nRUN compile\nFROM debian\nCOPY --link --from=b /out /1\nRUN --mount=from=b,target=/m read\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			run := 0
			here := func() string { return fmt.Sprint("run ", run) }
			b.step("compile", "out", here)
			b.steps["link"] = func(_ context.Context, p sandbox.Process) error {
				return copyFile(filepath.Join(p.Root, "out"), filepath.Join(p.Root, "linked"))
			}
			b.steps["read"] = func(_ context.Context, p sandbox.Process) error {
				return copyFile(filepath.Join(p.Mounts[0].Source, "out"), filepath.Join(p.Root, "read"))
			}
			var of [2]map[digest.Digest]cache.Entry
			for i := range of {
				run++
				b.cache.entries = map[digest.Digest]cache.Entry{}
				img, _ := b.build(dockerfile, nil)
				assert.Check(t, is.Len(b.runs(img), 1))
				of[i] = b.cache.entries
			}
			var both []digest.Digest
			for key := range of[0] {
				if _, ok := of[1][key]; ok {
					both = append(both, key)
				}
			}
			assert.Assert(t, len(both) > 1 && len(both) < 8, "%d keys", len(both))
			// Each key has what one or the other wrote, or nothing any more.
			all := pow(3, len(both))
			for mix := 0; mix < all; mix += 1 + all/25 {
				run++
				b.cache.entries = map[digest.Digest]cache.Entry{}
				for i, key := range both {
					if who := mix / pow(3, i) % 3; who < 2 {
						b.cache.entries[key] = of[who][key]
					}
				}
				img, _ := b.build(dockerfile, nil)
				assert.Check(t, is.Len(b.runs(img), 1), "mixture %d: %v", mix, b.runs(img))
			}
		})
	}
}

func pow(base, n int) int {
	out := 1
	for range n {
		out *= base
	}
	return out
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}

func TestCache_platforms(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.step("arch", "arch", each())
	for i, p := range []string{"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/arm/v6", "linux/amd64"} {
		b.ran = map[string]int{}
		f := b.fresh(nil)
		_, err := f.Build(t.Context(), f.load("FROM scratch\nRUN arch\n", p))
		assert.NilError(t, err)
		assert.Check(t, is.Equal(b.ran["arch"], map[bool]int{true: 1, false: 0}[i < 4]), p)
	}
}

// Each pair had one key in some builder.
func TestCache_wrong_hits(t *testing.T) {
	t.Parallel()
	for name, pair := range map[string][2]string{
		"joined_arguments":   {`RUN ["a", "b", "x"]`, `RUN ["a b", "x"]`},
		"argument_or_quotes": {`RUN ["a", "\"b\"", "x"]`, `RUN ["a", "b", "x"]`},
		"env_or_command":     {"ENV A=1\nRUN [\"x\"]", "ENV A=2\nRUN [\"x\"]"},
		"env_beats_arg":      {"ARG A=1\nENV A=2\nRUN [\"x\"]", "ENV A=2\nARG A=1\nENV A=3\nRUN [\"x\"]"},
		"arg_value":          {"ARG A=1\nRUN [\"x\"]", "ARG A=2\nRUN [\"x\"]"},
		"user":               {"USER 1\nRUN [\"x\"]", "USER 2\nRUN [\"x\"]"},
		"directory":          {"WORKDIR /a\nRUN [\"x\"]", "WORKDIR /b\nRUN [\"x\"]"},
		"copied_before":      {"COPY a /1\nRUN [\"x\"]", "COPY a /2\nRUN [\"x\"]"},
		"content_before":     {"COPY a /1\nRUN [\"x\"]", "COPY b /1\nRUN [\"x\"]"},
		"owner_before":       {"COPY --chown=1 a /1\nRUN [\"x\"]", "COPY --chown=2 a /1\nRUN [\"x\"]"},
		"mode_before":        {"COPY --chmod=600 a /1\nRUN [\"x\"]", "COPY --chmod=644 a /1\nRUN [\"x\"]"},
		"heredoc_bodies":     {"COPY <<E /1\none\nE\nRUN [\"x\"]", "COPY <<E /1\ntwo\nE\nRUN [\"x\"]"},
		"mounted_content":    {"RUN --mount=source=a,target=/m [\"x\"]", "RUN --mount=source=b,target=/m [\"x\"]"},
		"mounted_place":      {"RUN --mount=source=a,target=/m [\"x\"]", "RUN --mount=source=a,target=/n [\"x\"]"},
		"network":            {"RUN --network=none [\"x\"]", "RUN [\"x\"]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.step("x", "x", each())
			context := map[string]string{"a": "1", "b": "2"}
			for i, steps := range []string{pair[0], pair[1], pair[0], pair[1]} {
				_, ran := b.build("FROM debian\n"+steps+"\n", context)
				assert.Check(t, is.Equal(ran["x"], map[bool]int{true: 1, false: 0}[i < 2]), "build %d", i)
			}
		})
	}
}

func TestCache_heredoc_of_run(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.steps["one\n"] = write("x", "1")
	b.steps["two\n"] = write("x", "2")
	one, _ := b.build("FROM debian\nRUN <<E\none\nE\n", nil)
	two, _ := b.build("FROM debian\nRUN <<E\ntwo\nE\n", nil)
	assert.Check(t, one.Descriptor.Digest != two.Descriptor.Digest)
	assert.Check(t, is.Equal(two.Cached, 0))
}

// The filter makes its stage again; what depends on it follows its files.
func TestCache_no_cache_filter(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.step("compile", "out", each())
	b.step("other", "other", always("o"))
	b.step("last", "last", each())
	const dockerfile = "FROM debian AS filtered\nRUN compile\nFROM debian AS same\nRUN other\nFROM debian\nCOPY --from=same /other /other\nRUN last\nCOPY --from=filtered /out /out\n"
	build := func(filter ...string) map[string]int {
		f := b.fresh(nil)
		g := f.load(dockerfile, "linux/amd64")
		for _, v := range g.Vertices {
			where, _, _ := strings.Cut(v.Name, "]")
			for _, stage := range filter {
				v.NoCache = v.NoCache || strings.Contains(where, stage+" ")
			}
		}
		b.ran = map[string]int{}
		_, err := f.Build(t.Context(), g)
		assert.NilError(t, err)
		return b.ran
	}
	build()
	assert.Check(t, is.DeepEqual(build("filtered"), map[string]int{"compile": 1}))
	assert.Check(t, is.DeepEqual(build("same"), map[string]int{"other": 1}), "its output is the same")
	assert.Check(t, is.Len(build(), 0))
}

// A layer that the cache promises and does not have costs time, not the build.
func TestCache_broken_layers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.step("compile", "out", always("o"))
	b.step("more", "more", always("m"))
	first, _ := b.build("FROM debian\nRUN compile\n", nil)
	for d := range b.cache.blobs {
		b.cache.blobs[d] = b.cache.blobs[d][:5]
	}
	img, ran := b.build("FROM debian\nRUN compile\nRUN more\n", nil)
	assert.Check(t, is.DeepEqual(ran, map[string]int{"compile": 1, "more": 1}))
	assert.Check(t, is.Equal(img.Cached, 0))
	assert.Check(t, is.Equal(first.Built, 1))
}

func TestCache_layer_that_cannot_be_published(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.step("compile", "out", always("o"))
	b.build("FROM debian\nRUN compile\n", nil)
	f := b.fresh(nil)
	f.Publisher = &unreadable{f.sent}
	img, ran, err := b.try(f, "FROM debian\nRUN compile\n")
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(ran, map[string]int{"compile": 1}))
	assert.Check(t, is.Equal(img.Cached, 0))

	// A registry that does not take the layer is no fault of the cache.
	f = b.fresh(nil)
	f.sent.fail = errors.New("refused")
	_, ran, err = b.try(f, "FROM debian\nRUN compile\n")
	assert.Check(t, is.ErrorContains(err, "refused"))
	assert.Check(t, is.Len(ran, 0))
}

// unreadable cannot read layers of the cache.
type unreadable struct{ *memory }

func (u *unreadable) BaseLayer(ctx context.Context, ref string, l ocispecs.Descriptor) error {
	if ref == cacheRef {
		return &UnreadableError{errors.New("gone")}
	}
	return u.memory.BaseLayer(ctx, ref, l)
}

func TestCache_failed_step_writes_nothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.steps["bad"] = func(ctx context.Context, p sandbox.Process) error {
		return errors.Join(write("half", "h")(ctx, p), &sandbox.ExitError{Code: 1})
	}
	_, _, err := b.try(b.fresh(nil), "FROM debian\nRUN bad\n")
	assert.Check(t, err != nil)
	assert.Check(t, is.Len(b.cache.entries, 0))
}

// The value of a secret is in no key and no entry.
func TestCache_secrets(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.step("login", "x", each())
	const dockerfile = "FROM debian\nRUN --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=token login\n"
	ran := 0
	for _, value := range []string{"hunter2", "swordfish"} {
		f := b.fresh(nil)
		f.Secrets = map[string][]byte{"token": []byte(value)}
		_, steps, err := b.try(f, dockerfile)
		assert.NilError(t, err)
		ran += steps["login"]
		all, err := json.Marshal(b.cache.entries)
		assert.NilError(t, err)
		assert.Check(t, !strings.Contains(string(all), value))
		for _, data := range b.cache.blobs {
			assert.Check(t, !bytes.Contains(data, []byte(value)))
		}
	}
	assert.Check(t, is.Equal(ran, 1), "another value, and so another key")
}
