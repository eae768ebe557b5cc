package state

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// filled is a state directory with things of a MiB each, the first of which was
// used last.
func filled(t *testing.T, names ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	s, err := Open(dir, "layers", os.RemoveAll)
	assert.NilError(t, err)
	for i, name := range names {
		assert.NilError(t, s.Make(t.Context(), name, func(part string) error {
			return errors.Join(os.Mkdir(part, 0o755), os.WriteFile(filepath.Join(part, "f"), make([]byte, 1<<20), 0o644))
		}))
		when := time.Now().Add(-time.Duration(i+1) * time.Hour)
		assert.NilError(t, os.Chtimes(s.LockName(name), when, when))
	}
	assert.NilError(t, s.Close())
	return dir
}

func left(t *testing.T, dir, kind string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, kind))
	assert.NilError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestPrune_what_a_build_left(t *testing.T) {
	t.Parallel()
	dir := filled(t, "a")
	s, err := Open(dir, "layers", os.RemoveAll)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(s.Path("tree"), nil, 0o600))
	assert.NilError(t, s.Leave())
	_, err = s.Hold()
	assert.ErrorContains(t, err, "closed")
	assert.Check(t, is.Len(left(t, dir, "builds"), 1))
	_, err = Prune(t.Context(), dir, 10<<20)
	assert.NilError(t, err)
	assert.Check(t, is.Len(left(t, dir, "builds"), 0))
	assert.Check(t, is.DeepEqual(left(t, dir, "locks"), []string{"a"}))
	assert.Check(t, is.DeepEqual(left(t, dir, "layers"), []string{"a"}))
}

func TestPrune(t *testing.T) {
	t.Parallel()
	dir := filled(t, "a", "b", "c")
	p, err := Prune(t.Context(), dir, 3<<20+64<<10)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(p.Removed, 0))
	p, err = Prune(t.Context(), dir, 2<<20+64<<10)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(p.Removed, 1))
	assert.Check(t, p.Freed >= 1<<20 && p.Left >= 2<<20, "%+v", p)
	assert.Check(t, is.DeepEqual(left(t, dir, "layers"), []string{"a", "b"}), "the longest unused goes first")

	// Using a thing keeps it.
	s, err := Open(dir, "layers", os.RemoveAll)
	assert.NilError(t, err)
	assert.NilError(t, s.Make(t.Context(), "b", func(string) error { return errors.New("it is there") }))
	assert.NilError(t, s.Close())
	_, err = Prune(t.Context(), dir, 1<<20+64<<10)
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(left(t, dir, "layers"), []string{"b"}))
	p, err = Prune(t.Context(), dir, 0)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(p.Left, int64(0)))
	assert.Check(t, is.Len(left(t, dir, "layers"), 0))
	assert.Check(t, is.Len(left(t, dir, "locks"), 0))
}

func TestPrune_cache_directories(t *testing.T) {
	t.Parallel()
	dir := filled(t, "a")
	s, err := Open(dir, "layers", os.RemoveAll)
	assert.NilError(t, err)
	cache, err := s.CacheDir("key")
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(filepath.Join(cache, "f"), make([]byte, 1<<20), 0o644))
	assert.NilError(t, s.Close())
	_, err = Prune(t.Context(), dir, 1<<20+64<<10)
	assert.NilError(t, err)
	assert.Check(t, is.Len(left(t, dir, "layers"), 0), "it was used before the cache directory")
	assert.Check(t, is.Len(left(t, dir, "cache"), 1))
}

func TestPrune_while_a_build_runs(t *testing.T) {
	t.Parallel()
	dir := filled(t, "a")
	one, err := Open(dir, "layers", os.RemoveAll)
	assert.NilError(t, err)
	two, err := Open(dir, "layers", os.RemoveAll)
	assert.NilError(t, err)
	for _, s := range []*State{one, two} {
		_, err = Prune(t.Context(), dir, 0)
		assert.Check(t, is.ErrorIs(err, ErrInUse))
		assert.NilError(t, s.Close())
	}
	assert.Check(t, is.Len(left(t, dir, "layers"), 1))
	_, err = Prune(t.Context(), dir, 0)
	assert.NilError(t, err)
	assert.Check(t, is.Len(left(t, dir, "layers"), 0))
}

func TestPrune_nothing_there(t *testing.T) {
	t.Parallel()
	p, err := Prune(context.Background(), filepath.Join(t.TempDir(), "none"), 0)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(p, Pruned{}))
}
