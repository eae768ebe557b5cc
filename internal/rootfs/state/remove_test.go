package state

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

func TestRemoveAll(t *testing.T) {
	t.Parallel()
	for _, shape := range []struct {
		name         string
		width, depth int
	}{
		{name: "nothing"},
		{name: "flat", width: 2 * enough},
		{name: "narrow_and_deep", width: 1, depth: 2 * enough},
		{name: "wide", width: 12, depth: 2},
	} {
		t.Run(shape.name, func(t *testing.T) {
			t.Parallel()
			outside := filepath.Join(t.TempDir(), "outside")
			assert.NilError(t, os.MkdirAll(filepath.Join(outside, "kept"), 0o755))
			dir := filepath.Join(t.TempDir(), "tree")
			grow(t, dir, outside, shape.width, shape.depth)
			assert.NilError(t, RemoveAll(dir))
			_, err := os.Lstat(dir)
			assert.ErrorIs(t, err, os.ErrNotExist)
			_, err = os.Stat(filepath.Join(outside, "kept"))
			assert.NilError(t, err)
		})
	}
}

// grow makes width files, links and directories in dir, and the same in those.
func grow(t *testing.T, dir, outside string, width, depth int) {
	t.Helper()
	assert.NilError(t, os.MkdirAll(dir, 0o700))
	for i := range width {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", i)), nil, 0o400))
		assert.NilError(t, os.Symlink(outside, filepath.Join(dir, fmt.Sprintf("l%d", i))))
		if depth > 0 {
			grow(t, filepath.Join(dir, fmt.Sprintf("d%d", i)), outside, width, depth-1)
		}
	}
}

func TestDiscard(t *testing.T) {
	t.Parallel()
	s, err := Open(t.TempDir(), "things", os.RemoveAll)
	assert.NilError(t, err)
	path := s.Path("tree")
	grow(t, path, t.TempDir(), 3, 3)
	kept := s.Path("kept")
	assert.NilError(t, os.WriteFile(kept, nil, 0o600))
	s.Discard(path)
	// It has to wait for the removal to end before it looks.
	s.removing.Lock()
	_, err = os.Lstat(path)
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = os.Lstat(kept)
	assert.NilError(t, err)
	s.removing.Unlock()
	assert.NilError(t, s.Close())
	s.Discard(path)
}
