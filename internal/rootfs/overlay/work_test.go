package overlay

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/rootfs"
)

func TestManyLayers(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	var layers []rootfs.Layer
	for i := range 150 {
		name := fmt.Sprintf("f%03d", i)
		layers = append(layers, base(t, s, makeTar(t, []item{{name, tar.TypeReg, name}, {"top", tar.TypeReg, name}})))
	}
	assert.Equal(t, len(listing(t, s, layers...)), 151)
	l := step(t, s, layers, "[ $(cat top) = f149 ]; rm f000 f149")
	assert.DeepEqual(t, entries(t, l), []string{".wh.f000", ".wh.f149"})
	assert.Equal(t, len(listing(t, s, append(layers, l)...)), 149)
}

func TestWhiteoutsOfBases(t *testing.T) {
	t.Parallel()
	bottom := []item{{"d/", tar.TypeDir, ""}, {"d/a", tar.TypeReg, "1"}, {"d/b", tar.TypeReg, "2"}, {"f", tar.TypeReg, "3"}}
	for _, tc := range []struct {
		name string
		top  []item
		want []string
	}{
		{"file", []item{{".wh.f", tar.TypeReg, ""}}, []string{"d/", "d/a=1", "d/b=2"}},
		{"directory", []item{{".wh.d", tar.TypeReg, ""}}, []string{"f=3"}},
		{"missing", []item{{".wh.x", tar.TypeReg, ""}}, []string{"d/", "d/a=1", "d/b=2", "f=3"}},
		{"opaque", []item{{"d/", tar.TypeDir, ""}, {"d/.wh..wh..opq", tar.TypeReg, ""}, {"d/c", tar.TypeReg, "4"}}, []string{"d/", "d/c=4", "f=3"}},
		{"opaque_root", []item{{".wh..wh..opq", tar.TypeReg, ""}, {"g", tar.TypeReg, "4"}}, []string{"g=4"}},
		{"file_then_whiteout", []item{{"f", tar.TypeReg, "4"}, {".wh.f", tar.TypeReg, ""}}, []string{"d/", "d/a=1", "d/b=2", "f=4"}},
		{"whiteout_then_directory", []item{{".wh.d", tar.TypeReg, ""}, {"d/", tar.TypeDir, ""}, {"d/c", tar.TypeReg, "4"}}, []string{"d/", "d/c=4", "f=3"}},
		{"directory_then_whiteout", []item{{"d/", tar.TypeDir, ""}, {"d/c", tar.TypeReg, "4"}, {".wh.d", tar.TypeReg, ""}}, []string{"d/", "d/c=4", "f=3"}},
		{"whiteout_twice", []item{{".wh.f", tar.TypeReg, ""}, {".wh.f", tar.TypeReg, ""}}, []string{"d/", "d/a=1", "d/b=2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			state := t.TempDir()
			// The second store finds what the first one unpacked.
			for range 2 {
				s := newStore(t, state)
				layers := []rootfs.Layer{base(t, s, makeTar(t, bottom)), base(t, s, makeTar(t, tc.top))}
				assert.DeepEqual(t, listing(t, s, layers...), tc.want)
				assert.DeepEqual(t, entries(t, step(t, s, layers, "true")), []string{})
			}
		})
	}
}

func TestStacks(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	a := base(t, s, makeTar(t, []item{{"a", tar.TypeReg, "1"}}))
	b := base(t, s, makeTar(t, []item{{".wh.a", tar.TypeReg, ""}, {"b", tar.TypeReg, "2"}}))
	for _, tc := range []struct {
		name   string
		layers []rootfs.Layer
		want   []string
	}{
		{"none", nil, []string{}},
		{"one", []rootfs.Layer{a}, []string{"a=1"}},
		{"one_with_whiteouts", []rootfs.Layer{b}, []string{"b=2"}},
		{"two", []rootfs.Layer{a, b}, []string{"b=2"}},
		{"same_twice", []rootfs.Layer{a, b, a}, []string{"a=1", "b=2"}},
		{"same_only", []rootfs.Layer{a, a, a}, []string{"a=1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			assert.DeepEqual(t, listing(t, s, tc.layers...), tc.want)
			assert.DeepEqual(t, entries(t, step(t, s, tc.layers, "echo >x")), []string{"x"})
		})
	}
}

func TestViewIsReadOnly(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	v, err := s.View(t.Context(), fixture(t, s))
	assert.NilError(t, err)
	assert.ErrorIs(t, os.WriteFile(filepath.Join(v.Path(), "x"), nil, 0o644), unix.EROFS)
	assert.NilError(t, v.Release())
	assert.NilError(t, v.Release())
}

func TestRootAttributes(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	stat := func(parents ...rootfs.Layer) (st unix.Stat_t) {
		w, err := s.Work(t.Context(), parents)
		assert.NilError(t, err)
		assert.NilError(t, unix.Lstat(w.Path(), &st))
		assert.NilError(t, w.Discard())
		return st
	}
	scratch := stat()
	assert.DeepEqual(t, []uint32{scratch.Mode & 0o7777, scratch.Uid, scratch.Gid}, []uint32{0o755, 0, 0})
	b := base(t, s, makeTar(t, []item{{"./", tar.TypeDir, ""}, {"f", tar.TypeReg, "1"}}))
	root := stat(b)
	assert.DeepEqual(t, []uint32{root.Mode & 0o7777, root.Uid}, []uint32{0o755, 0})
	changed := step(t, s, []rootfs.Layer{b}, "chmod 1711 .; chown 3:4 .; touch -d @55.5 .")
	root = stat(b, changed)
	assert.DeepEqual(t, []uint32{root.Mode & 0o7777, root.Uid, root.Gid}, []uint32{0o1711, 3, 4})
	assert.DeepEqual(t, root.Mtim, unix.Timespec{Sec: 55, Nsec: 5e8})
}

func TestWorksAreIndependent(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	parents := fixture(t, s)
	first := step(t, s, parents, "echo 1 >shared")
	parents = append(parents, first)
	for i := range 8 {
		t.Run(fmt.Sprintf("step_%d", i), func(t *testing.T) {
			t.Parallel()
			l := step(t, s, parents, fmt.Sprintf("echo %d >own; cat shared; rm f", i))
			assert.DeepEqual(t, entries(t, l), []string{".wh.f", "own"})
			assert.DeepEqual(t, entries(t, first), []string{"shared"})
		})
	}
}

func TestWorkEndsOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	w, err := s.Work(t.Context(), fixture(t, s))
	assert.NilError(t, err)
	l, err := w.Commit(t.Context())
	assert.NilError(t, err)
	assert.NilError(t, w.Discard())
	assert.DeepEqual(t, entries(t, l), []string{})
	_, err = w.Commit(t.Context())
	assert.ErrorContains(t, err, "before")

	w, err = s.Work(t.Context(), fixture(t, s))
	assert.NilError(t, err)
	dir := filepath.Dir(w.Path())
	assert.NilError(t, w.Discard())
	_, err = os.Stat(dir)
	assert.ErrorIs(t, err, os.ErrNotExist)

	// A process that was left behind does not keep a tree from being committed.
	w, err = s.Work(t.Context(), fixture(t, s))
	assert.NilError(t, err)
	f, err := os.Create(filepath.Join(w.Path(), "open"))
	assert.NilError(t, err)
	defer f.Close()
	l, err = w.Commit(t.Context())
	assert.NilError(t, err)
	assert.DeepEqual(t, entries(t, l), []string{"open"})
}
