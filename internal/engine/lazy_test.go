package engine

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/buildcontext"
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
