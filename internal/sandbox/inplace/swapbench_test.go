package inplace

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// BenchmarkSwap is the way in and the way out, without any process. Their parts
// are metrics of their own.
func BenchmarkSwap(b *testing.B) {
	for _, n := range []int{60, 200} {
		b.Run(fmt.Sprintf("etc_%d", n), func(b *testing.B) {
			root := crashRoot(b)
			stateDir := filepath.Join(root, "kaniko/state")
			for i := range n {
				write(b, stateDir, fmt.Sprintf("tree/etc/entry%d", i), "x")
			}
			for _, name := range []string{"bin", "boot", "home", "lib", "media", "mnt", "opt", "root", "run", "sbin", "srv", "tmp", "usr", "var"} {
				assert.NilError(b, os.MkdirAll(filepath.Join(stateDir, "tree", name), 0o755))
			}
			begin := state{Root: root, Tree: filepath.Join(stateDir, "tree"), Stash: filepath.Join(stateDir, stashName)}
			var in, out time.Duration
			for b.Loop() {
				started := time.Now()
				j, file, err := newJournal(filepath.Join(stateDir, journalName), begin)
				assert.NilError(b, err)
				s := &swap{journal: j, own: []string{"kaniko", "kaniko/state"}, points: map[string]bool{}}
				assert.NilError(b, s.prepare(context.Background(), nil, mounts{}, nil, "/", sandbox.Process{}))
				assert.NilError(b, s.enter())
				in += time.Since(started)
				started = time.Now()
				assert.NilError(b, j.leave())
				assert.NilError(b, j.close())
				assert.NilError(b, removeRest(stateDir))
				out += time.Since(started)
				_ = file
			}
			b.ReportMetric(float64(in.Microseconds())/float64(b.N)/1000, "ms-in/op")
			b.ReportMetric(float64(out.Microseconds())/float64(b.N)/1000, "ms-out/op")
		})
	}
}
