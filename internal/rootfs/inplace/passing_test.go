package inplace

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// TestPassing shows that steps go on after a layer whose content was not kept, that
// readers see it, and that nobody gets anything else of it.
func TestPassing(t *testing.T) {
	t.Parallel()
	for _, tc := range changeCases() {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			needToolsOf(t, tc.script)
			s, other := newStore(t, t.TempDir()), newStore(t, t.TempDir())
			pass := func(s *Store, hints ...rootfs.Hint) []rootfs.Layer {
				layers := fixture(t, s)
				for _, script := range []string{tc.script, "mkdir own; echo 1 >own/f", "echo 2 >>own/f; chmod 700 own", "ln own/f own/a; ln own/a own/h; [ ! -f h2 ] || ln h2 own/h2", "echo 3 >>own/a"} {
					layers = append(layers, step(t, s, layers, script, hints...))
				}
				return layers
			}
			layers := pass(s, rootfs.Passing)
			assert.DeepEqual(t, describe(t, s, layers...), describe(t, other, pass(other)...))
			checkIndexes(t, s)

			lost := func(err error) {
				t.Helper()
				_, ok := errors.AsType[*rootfs.LostError](err)
				assert.Assert(t, ok, "%v", err)
			}
			lost(layers[3].WriteTar(t.Context(), io.Discard, rootfs.TarOptions{}))
			_, err := s.Work(t.Context(), layers[:4])
			assert.Assert(t, count(t, s.state.Path("l")) < len(layers)-2)
			lost(err)
			w, err := s.Work(t.Context(), layers)
			assert.NilError(t, err)
			assert.NilError(t, os.WriteFile(filepath.Join(w.Path(), "last"), nil, 0o600))
			assert.NilError(t, w.Discard())
			_, err = s.View(t.Context(), layers)
			lost(err)
			tree, err := s.List(t.Context(), layers)
			assert.NilError(t, err)
			_, err = tree.Open("/own/f")
			lost(err)
		})
	}
}
