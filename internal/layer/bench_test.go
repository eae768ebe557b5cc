package layer

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

// BenchmarkWrite is a layer of 20,000 files of 4 KiB in 200 directories.
func BenchmarkWrite(b *testing.B) {
	root := b.TempDir()
	var changes []Change
	for i := range 200 {
		dir := fmt.Sprintf("d%d", i)
		assert.NilError(b, os.Mkdir(filepath.Join(root, dir), 0o755))
		changes = append(changes, Change{Path: dir})
		for j := range 100 {
			name := fmt.Sprintf("%s/file-%d", dir, j)
			assert.NilError(b, os.WriteFile(filepath.Join(root, name), bytes.Repeat([]byte{byte(i), byte(j)}, 2<<10), 0o644))
			changes = append(changes, Change{Path: name})
		}
	}
	for b.Loop() {
		assert.NilError(b, Write(b.Context(), sha256.New(), root, changes, WriteOptions{}))
	}
}
