package inplace_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

// BenchmarkRun is the whole of a step that does nothing, in turn on two trees of
// 30,000 files with so many entries in /etc, which cannot be moved as a whole.
// Two processes are part of it: compare with BenchmarkSwap.
func BenchmarkRun(b *testing.B) {
	for _, n := range []int{60, 200} {
		b.Run(fmt.Sprintf("etc_%d", n), func(b *testing.B) {
			w := newWorld(b)
			trees := []string{w.newTree(b), w.newTree(b)}
			for _, tree := range trees {
				fill(b, tree, n)
			}
			i := 0
			for b.Loop() {
				w.run(b, shell(trees[i%2], ":"))
				i++
			}
		})
	}
}

func fill(tb testing.TB, tree string, etc int) {
	tb.Helper()
	for i := range etc {
		write(tb, tree, fmt.Sprintf("etc/entry%d", i), "x", 0o644)
	}
	for d := range 300 {
		dir := filepath.Join(tree, fmt.Sprintf("usr/dir%d", d))
		assert.NilError(tb, os.MkdirAll(dir, 0o755))
		for f := range 100 {
			assert.NilError(tb, os.WriteFile(filepath.Join(dir, fmt.Sprint(f)), nil, 0o644))
		}
	}
}
