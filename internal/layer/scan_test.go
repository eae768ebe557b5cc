package layer

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// build makes the tree that a scan found.
func build(t *testing.T, n *Node, from io.ReaderAt, dir string) {
	t.Helper()
	m := NewMaker()
	made := map[*Node]string{}
	var fill func(n *Node, dir string)
	fill = func(n *Node, dir string) {
		f, err := os.Open(dir)
		assert.NilError(t, err)
		defer f.Close()
		for base, child := range n.Children {
			full := filepath.Join(dir, base)
			if first, ok := made[child]; ok {
				assert.NilError(t, os.Link(first, full))
				continue
			}
			made[child] = full
			assert.NilError(t, m.Make(t.Context(), child, from, int(f.Fd()), base))
			if child.IsDir() {
				fill(child, full)
			}
		}
		assert.NilError(t, n.Finish(int(f.Fd())))
	}
	fill(n, dir)
	count := map[*Node]int{}
	var check func(n *Node)
	check = func(n *Node) {
		for _, child := range n.Children {
			count[child]++
			check(child)
		}
	}
	check(n)
	for child, links := range count {
		assert.Equal(t, child.Links, links)
	}
}

// TestScan compares what a scan finds, of a stream and of a file, with what
// Unpack makes.
func TestScan(t *testing.T) {
	t.Parallel()
	needRoot(t)
	root := everything(t)
	for _, tc := range []struct {
		name string
		data []byte
	}{
		{"everything", write(t, root, all(t, root), WriteOptions{})},
		{"implicit_parents", archive(t, []item{{"a/b/c", file, "1"}, {"a/d", file, "2"}})},
		{"later_entry_wins", archive(t, []item{{"f", file, "1"}, {"f", dir, ""}, {"f", file, "3"}})},
		{"directory_twice", archive(t, []item{{"d", dir, ""}, {"d/a", file, "1"}, {"d", dir, ""}, {"d/b", file, "2"}})},
		{"directory_then_file_then_directory", archive(t, []item{{"d", dir, ""}, {"d/a", file, "1"}, {"d", file, "2"}, {"d", dir, ""}, {"d/b", file, "3"}})},
		{"through_links", archive(t, []item{{"usr/lib", dir, ""}, {"lib", sym, "usr/lib"}, {"lib/f", file, "1"}, {"x", sym, "/lib/../lib/new"}, {"x/g", file, "2"}})},
		{"dangling_link", archive(t, []item{{"lib", sym, "../../usr/lib"}, {"lib/f", file, "1"}})},
		{"links", archive(t, []item{{"f", file, "1"}, {"g", hard, "f"}, {"f", file, "2"}, {"h", hard, "./g"}, {"g", hard, "g"}, {"s", sym, "x"}, {"s2", hard, "s"}})},
		{"link_over_its_name", archive(t, []item{{"f", file, "1"}, {"g", hard, "f"}, {"g", hard, "f"}, {"d/x", file, "1"}, {"y", hard, "d/x"}, {"d", file, "2"}})},
		{"replaced_parent", archive(t, []item{{"d", dir, ""}, {"d/l", sym, "."}, {"d/l/m", file, "1"}, {"d/l", dir, ""}, {"d/l/x", file, "1"}})},
		{"global_header", archive(t, []item{{"", tar.TypeXGlobalHeader, "commit"}, {"f", file, "1"}})},
		{"root", archive(t, []item{{"./", dir, ""}, {"/", dir, ""}, {"..", dir, ""}, {"x", file, "1"}})},
		{"fifo", archive(t, []item{{"p", tar.TypeFifo, ""}})},
		{"empty", archive(t, nil)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			want := t.TempDir()
			assert.NilError(t, Unpack(t.Context(), bytes.NewReader(tc.data), want, UnpackOptions{Whiteout: func(Whiteout) error { return nil }}))
			for _, r := range []io.Reader{bytes.NewReader(tc.data), io.MultiReader(bytes.NewReader(tc.data))} {
				n, err := Scan(t.Context(), r)
				assert.NilError(t, err)
				got := t.TempDir()
				build(t, n, bytes.NewReader(tc.data), got)
				assert.DeepEqual(t, show(t, got), show(t, want))
				assert.Assert(t, bytes.Equal(write(t, got, all(t, got), WriteOptions{}), write(t, want, all(t, want), WriteOptions{})))
			}
		})
	}
}

func TestScanRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		items []item
		err   string
	}{
		{"parent_is_file", []item{{"f", file, "1"}, {"f/x", file, "1"}}, "not a directory"},
		{"link_loop", []item{{"a", sym, "b"}, {"b", sym, "a"}, {"a/x", file, "1"}}, "too many levels"},
		{"link_to_nothing", []item{{"h", hard, "../out/secret"}}, "finding what it is a link to"},
		{"link_to_directory", []item{{"d", dir, ""}, {"h", hard, "d"}}, "hard link to a directory"},
		{"whiteout_of_nothing", []item{{"d/.wh.", file, ""}}, "hides no name"},
		{"whiteout_in_file", []item{{"f", file, "1"}, {"f/.wh.x", file, ""}}, "not a directory"},
		{"unknown_type", []item{{"f", 'Z', ""}}, "unknown"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := Scan(t.Context(), bytes.NewReader(archive(t, tc.items)))
			assert.ErrorContains(t, err, tc.err)
		})
	}
}

func TestScanWhiteouts(t *testing.T) {
	t.Parallel()
	n, err := Scan(t.Context(), bytes.NewReader(archive(t, []item{
		{".wh.a", file, ""}, {"d/.wh..wh..opq", file, ""}, {"d/f", file, "1"}, {"e/.wh.x", file, ""}, {".wh..wh.plnk/1", file, ""}, {".wh..wh.aufs", file, ""},
	})))
	assert.NilError(t, err)
	assert.DeepEqual(t, n.Whiteouts, []string{"a"})
	assert.Assert(t, n.Children["d"].Opaque && !n.Opaque && !n.Children["e"].Opaque)
	assert.DeepEqual(t, n.Children["e"].Whiteouts, []string{"x"})
	assert.Equal(t, len(n.Children), 2)
}

// TestScanSparse reads archives whose entries are not stored as one piece.
func TestScanSparse(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("needs GNU tar: makes sparse archives")
	}
	root := t.TempDir()
	for name, last := range map[string]int64{"a": 1 << 20, "b": 3 << 20} {
		f, err := os.Create(filepath.Join(root, name))
		assert.NilError(t, err)
		for _, off := range []int64{5000, last} {
			_, err = f.WriteAt([]byte(name+" has this"), off)
			assert.NilError(t, err)
		}
		assert.NilError(t, f.Truncate(8<<20))
		assert.NilError(t, f.Close())
	}
	assert.NilError(t, os.WriteFile(filepath.Join(root, "c"), []byte("plain"), 0o644))
	for _, format := range []string{"--format=gnu", "--format=posix --sparse-version=1.0", "--format=posix --sparse-version=0.1"} {
		data, err := exec.Command("tar", slices.Concat([]string{"-C", root, "--sparse", "-c"}, strings.Fields(format), []string{"a", "b", "c"})...).Output()
		assert.NilError(t, err)
		assert.Assert(t, len(data) < 1<<20, "%s made no sparse archive", format)
		for _, r := range []io.Reader{bytes.NewReader(data), io.MultiReader(bytes.NewReader(data))} {
			n, err := Scan(t.Context(), r)
			assert.NilError(t, err)
			for _, name := range []string{"a", "b", "c"} {
				want, err := os.ReadFile(filepath.Join(root, name))
				assert.NilError(t, err)
				content, err := n.Children[name].Open(bytes.NewReader(data))
				assert.NilError(t, err)
				got, err := io.ReadAll(content)
				assert.NilError(t, err)
				assert.Assert(t, bytes.Equal(got, want), "%s of %s", name, format)
			}
		}
	}
}

func TestReplay(t *testing.T) {
	t.Parallel()
	needRoot(t)
	root := everything(t)
	for _, limit := range []int64{0, 1000, 1 << 40} {
		want := write(t, root, all(t, root), WriteOptions{MaxTime: &limit})
		var got bytes.Buffer
		assert.NilError(t, Replay(t.Context(), &got, bytes.NewReader(write(t, root, all(t, root), WriteOptions{})), limit))
		assert.DeepEqual(t, headers(t, got.Bytes()), headers(t, want))
		assert.Assert(t, bytes.Equal(got.Bytes(), want))
	}
}
