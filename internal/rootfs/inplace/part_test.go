package inplace

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/filetree"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// below lists what a listing has in a directory, the directory included.
func below(t *testing.T, tree filetree.Tree, dir string) (list []string) {
	t.Helper()
	st, err := tree.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	assert.NilError(t, err)
	list = append(list, dir)
	if !st.IsDir() {
		return list
	}
	names, err := tree.ReadDir(dir)
	assert.NilError(t, err)
	for _, base := range names {
		list = append(list, below(t, tree, path.Join(dir, base))...)
	}
	return list
}

// TestPart makes the same random changes below one directory of a whole tree
// and of one that has that directory only.
func TestPart(t *testing.T) {
	t.Parallel()
	changed, small := 0, 0
	for seed := range uint64(40) {
		whole, part := newStore(t, t.TempDir()), newStore(t, t.TempDir())
		var stacks [2][]rootfs.Layer
		var tars [2][]byte
		for i, s := range []*Store{whole, part} {
			r := rand.New(rand.NewPCG(seed, 1))
			for range 2 + r.IntN(4) {
				stacks[i] = append(stacks[i], base(t, s, makeTar(t, randomLayer(r))))
			}
			for range 3 {
				tree, err := s.List(t.Context(), stacks[i])
				assert.NilError(t, err)
				dir := "/" + string("abcd"[r.IntN(4)])
				names, all := below(t, tree, dir), below(t, tree, "/")
				var w rootfs.Work
				if s == part {
					w, err = s.WorkPart(t.Context(), stacks[i], names)
				} else {
					w, err = s.Work(t.Context(), stacks[i])
				}
				assert.NilError(t, err)
				if s == part && len(below(t, filetree.Dir(w.Path()), "/")) < len(all) {
					small++
				}
				for range r.IntN(20) {
					randomChange(t, r, filepath.Join(w.Path(), dir))
				}
				l, err := w.Commit(t.Context())
				assert.NilError(t, err)
				limit := limit
				stacks[i] = append(stacks[i], l)
				data := layerTar(t, l, &limit)
				tars[i] = append(tars[i], data...)
				changed += len(data)
			}
		}
		assert.Assert(t, bytes.Equal(tars[0], tars[1]), "seed %d", seed)
		assert.DeepEqual(t, describe(t, part, stacks[1]...), describe(t, whole, stacks[0]...))
		// What was a part is whole for who wants all.
		l := step(t, part, stacks[1], "touch new")
		assert.DeepEqual(t, entries(t, l), []string{"new"})
	}
	assert.Assert(t, changed > 0 && small > 40, "%d, %d", changed, small)
}

func TestPart_writes_elsewhere(t *testing.T) {
	t.Parallel()
	for _, change := range []func(dir string) error{
		func(dir string) error { return os.MkdirAll(filepath.Join(dir, "d/sub/new"), 0o755) },
		func(dir string) error { return os.WriteFile(filepath.Join(dir, "f"), nil, 0o644) },
		func(dir string) error { return os.Symlink("x", filepath.Join(dir, "empty")) },
	} {
		s := newStore(t, t.TempDir())
		layers := fixture(t, s)
		w, err := s.WorkPart(t.Context(), layers, []string{"/link"})
		assert.NilError(t, err)
		assert.DeepEqual(t, below(t, filetree.Dir(w.Path()), "/"), []string{"/", "/link"})
		assert.NilError(t, change(w.Path()))
		_, err = w.Commit(t.Context())
		_, ok := errors.AsType[*rootfs.PartError](err)
		assert.Assert(t, ok, "%v", err)
		assert.Equal(t, len(s.trees), 0)
	}
}

func TestPart_view(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	layers := fixture(t, s)
	look := func(names ...string) (rootfs.View, []string) {
		v, err := s.ViewPart(t.Context(), layers, names)
		assert.NilError(t, err)
		return v, below(t, filetree.Dir(v.Path()), "/")
	}
	one, got := look("/h1", "/d/a", "/none", "/f/below")
	assert.DeepEqual(t, got, []string{"/", "/d", "/d/a", "/f", "/h1"})
	// Two at once do not get in each other's way, and one after the other adds.
	two, got := look("/h2", "/h1")
	assert.DeepEqual(t, got, []string{"/", "/h1", "/h2"})
	a, err := os.Stat(filepath.Join(two.Path(), "h1"))
	assert.NilError(t, err)
	b, err := os.Stat(filepath.Join(two.Path(), "h2"))
	assert.NilError(t, err)
	assert.Assert(t, os.SameFile(a, b))
	assert.NilError(t, one.Release())
	three, got := look("/h2")
	assert.DeepEqual(t, got, []string{"/", "/d", "/d/a", "/f", "/h1", "/h2"})
	assert.Equal(t, three.Path(), one.Path())
	assert.NilError(t, two.Release())
	assert.NilError(t, three.Release())
	other := newStore(t, t.TempDir())
	assert.DeepEqual(t, describe(t, s, layers...), describe(t, other, fixture(t, other)...))
}

// TestList shows that a listing says what a tree of the same layers has.
func TestList(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	layers := fixture(t, s)
	layers = append(layers, step(t, s, layers, "echo 1 >x; ln x y; rm d/a; mkfifo p; ln -s /d abs; chown 7:8 f"))
	v, err := s.View(t.Context(), layers)
	assert.NilError(t, err)
	defer func() { assert.NilError(t, v.Release()) }()
	listed, err := s.List(t.Context(), layers)
	assert.NilError(t, err)
	made := filetree.Dir(v.Path())
	names := below(t, listed, "/")
	assert.DeepEqual(t, names, below(t, made, "/"))
	links := map[any]any{}
	for _, name := range slices.Concat(names, []string{"/none", "/f/below", "/link/a"}) {
		got, err := listed.Lstat(name)
		want, wantErr := made.Lstat(name)
		assert.Check(t, is.Equal(isMissing(err), isMissing(wantErr)), name)
		if err != nil || wantErr != nil {
			continue
		}
		if known, ok := links[got.Links]; ok {
			assert.Check(t, is.Equal(known, want.Links), name)
		}
		links[got.Links] = want.Links
		got.Links, want.Links = nil, nil
		assert.Check(t, is.DeepEqual(got, want), name)
		xattrs, err := listed.Xattrs(name)
		assert.NilError(t, err)
		wantXattrs, err := made.Xattrs(name)
		assert.NilError(t, err)
		assert.Check(t, is.Equal(fmt.Sprint(xattrs), fmt.Sprint(wantXattrs)), name)
		if got.IsRegular() {
			assert.Check(t, is.Equal(content(t, listed, name), content(t, made, name)), name)
		}
	}
	assert.Assert(t, len(links) > 2)
	for _, name := range []string{"/none", "/d"} {
		_, err = listed.Open(name)
		assert.Assert(t, isMissing(err))
	}
	_, err = listed.ReadDir("/f")
	assert.Assert(t, isMissing(err))
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }

func content(t *testing.T, tree filetree.Tree, name string) string {
	t.Helper()
	f, err := tree.Open(name)
	assert.NilError(t, err)
	defer f.Close()
	var text strings.Builder
	_, err = io.Copy(&text, f)
	assert.NilError(t, err)
	return text.String()
}
