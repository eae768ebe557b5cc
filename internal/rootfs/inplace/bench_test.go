package inplace

import (
	"archive/tar"
	"fmt"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// BenchmarkCompare is the search for changes in a tree of 30,000 files in 2,000
// directories, as a Debian base image with some packages has.
func BenchmarkCompare(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: makes files of other owners")
	}
	s, err := New(b.TempDir())
	assert.NilError(b, err)
	defer s.Close()
	var items []item
	for i := range 30000 {
		items = append(items, item{fmt.Sprintf("usr/share/%d/dir%d/file-%d", i%40, i%2000, i), tar.TypeReg, ""})
	}
	data := makeTar(b, items)
	l, err := s.Base(b.Context(), digest.FromBytes(data), opener(data))
	assert.NilError(b, err)
	w, err := s.Work(b.Context(), []rootfs.Layer{l})
	assert.NilError(b, err)
	t := w.(*work).tree
	for b.Loop() {
		found, err := t.compare(b.Context())
		assert.NilError(b, err)
		assert.Equal(b, len(found.candidates)+len(found.gone), 0)
	}
}
