package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// item is an entry of a tar; for files, data is the content, for links the
// target.
type item struct {
	name string
	kind byte
	data string
}

func archive(t *testing.T, items []item) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, i := range items {
		hdr := &tar.Header{Name: i.name, Typeflag: i.kind, Mode: 0o644, ModTime: time.Unix(1000, 0), Format: tar.FormatPAX}
		switch i.kind {
		case tar.TypeReg:
			hdr.Size = int64(len(i.data))
		case tar.TypeXGlobalHeader:
			hdr = &tar.Header{Typeflag: i.kind, PAXRecords: map[string]string{"comment": i.data}, Format: tar.FormatPAX}
		default:
			hdr.Linkname = i.data
		}
		assert.NilError(t, w.WriteHeader(hdr))
		if i.kind == tar.TypeReg {
			_, err := w.Write([]byte(i.data))
			assert.NilError(t, err)
		}
	}
	assert.NilError(t, w.Close())
	return buf.Bytes()
}

const (
	file = byte(tar.TypeReg)
	dir  = byte(tar.TypeDir)
	sym  = byte(tar.TypeSymlink)
	hard = byte(tar.TypeLink)
)

// show lists a tree: name, type and what is in it.
func show(t *testing.T, root string) []string {
	t.Helper()
	out := []string{}
	for _, c := range all(t, root) {
		full := filepath.Join(root, c.Path)
		fi, err := os.Lstat(full)
		assert.NilError(t, err)
		switch {
		case fi.IsDir():
			out = append(out, c.Path+"/")
		case fi.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(full)
			assert.NilError(t, err)
			out = append(out, c.Path+"->"+target)
		case fi.Mode().IsRegular():
			data, err := os.ReadFile(full)
			assert.NilError(t, err)
			out = append(out, c.Path+"="+string(data))
		default:
			out = append(out, c.Path+"?")
		}
	}
	return out
}

func TestUnpackRoundTrip(t *testing.T) {
	t.Parallel()
	root := everything(t)
	want := write(t, root, all(t, root), WriteOptions{})
	to := t.TempDir()
	assert.NilError(t, Unpack(t.Context(), bytes.NewReader(want), to, UnpackOptions{}))
	got := write(t, to, all(t, to), WriteOptions{})
	assert.DeepEqual(t, headers(t, got), headers(t, want))
	assert.Assert(t, bytes.Equal(got, want))
}

// TestUnpackStaysInside tries to get from root/ to out/ beside it. OUT in links
// is the path of out, at is where below the root the file x must be then.
func TestUnpackStaysInside(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, tc := range []struct {
		name  string
		items []item
		at    string
		err   string
	}{
		{name: "dotdot", items: []item{{"../../a/../out/x", file, "1"}}, at: "out/x"},
		{name: "absolute", items: []item{{"OUT/x", file, "1"}}, at: "OUT/x"},
		{name: "absolute_parent_link", items: []item{{"l", sym, "OUT"}, {"l/x", file, "1"}}, at: "OUT/x"},
		{name: "relative_parent_link", items: []item{{"l", sym, "../out"}, {"l/x", file, "1"}}, at: "out/x"},
		{name: "chained_links", items: []item{{"d", dir, ""}, {"d/up", sym, ".."}, {"d/l", sym, "up/d/up/../out"}, {"d/l/x", file, "1"}}, at: "out/x"},
		{name: "link_to_absolute_link", items: []item{{"a", sym, "OUT"}, {"b", sym, "/a/../out"}, {"b/x", file, "1"}}, at: "OUT/../out/x"},
		{name: "link_loop", items: []item{{"a", sym, "b"}, {"b", sym, "a"}, {"a/x", file, "1"}}, err: "too many levels"},
		{name: "write_through_link", items: []item{{"x", sym, "OUT/secret"}, {"x", file, "1"}}, at: "x"},
		{name: "directory_over_link", items: []item{{"l", sym, "OUT"}, {"l", dir, ""}, {"l/x", file, "1"}}, at: "l/x"},
		{name: "hard_link_outside", items: []item{{"h", hard, "../out/secret"}}, err: "finding what it is a link to"},
		{name: "hard_link_absolute", items: []item{{"h", hard, "OUT/secret"}}, err: "finding what it is a link to"},
		{name: "hard_link_behind_link", items: []item{{"l", sym, "OUT"}, {"h", hard, "l/secret"}}, err: "finding what it is a link to"},
		{name: "hard_link_to_link", items: []item{{"l", sym, "OUT/secret"}, {"x", hard, "l"}, {"x", file, "1"}}, at: "x"},
		{name: "hard_link_to_directory", items: []item{{"d", dir, ""}, {"h", hard, "d"}}, err: "hard link to a directory"},
		{name: "hard_link_within", items: []item{{"d/f", file, "1"}, {"x", hard, "/d/f"}}, at: "x"},
		{name: "hard_link_to_itself", items: []item{{"x", file, "1"}, {"x", hard, "./x"}}, at: "x"},
		{name: "root", items: []item{{"./", dir, ""}, {"/", dir, ""}, {"..", dir, ""}, {"a/..", file, "2"}, {"x", file, "1"}}, at: "x"},
		{name: "parent_is_file", items: []item{{"f", file, "1"}, {"f/x", file, "1"}}, err: "not a directory"},
		{name: "cached_parent_is_replaced", items: []item{{"d", dir, ""}, {"d/l", sym, "."}, {"d/l/l", sym, "OUT"}, {"d/l/x", file, "1"}}, at: "OUT/x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			top := t.TempDir()
			root, out := filepath.Join(top, "root"), filepath.Join(top, "out")
			assert.NilError(t, os.Mkdir(root, 0o755))
			assert.NilError(t, os.Mkdir(out, 0o755))
			assert.NilError(t, os.WriteFile(filepath.Join(out, "secret"), []byte("secret"), 0o600))
			items := slices.Clone(tc.items)
			for i, it := range items {
				items[i].name = strings.ReplaceAll(it.name, "OUT", out)
				items[i].data = strings.ReplaceAll(it.data, "OUT", out)
			}
			err := Unpack(t.Context(), bytes.NewReader(archive(t, items)), root, UnpackOptions{})
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
			} else {
				assert.NilError(t, err)
				at := filepath.Join(root, strings.ReplaceAll(tc.at, "OUT", out))
				fi, err := os.Lstat(at)
				assert.NilError(t, err)
				assert.Assert(t, fi.Mode().IsRegular())
				data, err := os.ReadFile(at)
				assert.NilError(t, err)
				assert.Equal(t, string(data), "1")
			}
			assert.DeepEqual(t, show(t, out), []string{"secret=secret"})
			beside, err := os.ReadDir(top)
			assert.NilError(t, err)
			assert.Equal(t, len(beside), 2)
		})
	}
}

func TestUnpackReplaces(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, tc := range []struct {
		name          string
		before, items []item
		want          []string
	}{
		{"file_over_file", []item{{"f", file, "old"}, {"g", hard, "f"}}, []item{{"f", file, "new"}}, []string{"f=new", "g=old"}},
		{"file_over_directory", []item{{"d/e/f", file, "1"}}, []item{{"d", file, "2"}}, []string{"d=2"}},
		{"directory_over_file", []item{{"f", file, "1"}}, []item{{"f", dir, ""}, {"f/g", file, "2"}}, []string{"f/", "f/g=2"}},
		{"directory_over_directory", []item{{"d/f", file, "1"}}, []item{{"d", dir, ""}, {"d/g", file, "2"}}, []string{"d/", "d/f=1", "d/g=2"}},
		{"link_over_file", []item{{"f", file, "1"}}, []item{{"f", sym, "x"}}, []string{"f->x"}},
		{"hard_link_over_directory", []item{{"d/f", file, "1"}}, []item{{"x", file, "2"}, {"d", hard, "x"}}, []string{"d=2", "x=2"}},
		{"fifo_over_file", []item{{"f", file, "1"}}, []item{{"f", tar.TypeFifo, ""}}, []string{"f?"}},
		{"later_entry_wins", nil, []item{{"f", file, "1"}, {"f", dir, ""}, {"f", file, "3"}}, []string{"f=3"}},
		{"directory_then_file_then_directory", nil, []item{{"d", dir, ""}, {"d/a", file, "1"}, {"d", file, "2"}, {"d", dir, ""}, {"d/b", file, "3"}}, []string{"d/", "d/b=3"}},
		{"through_existing_link", []item{{"usr/lib", dir, ""}, {"lib", sym, "usr/lib"}}, []item{{"lib/f", file, "1"}}, []string{"lib->usr/lib", "usr/", "usr/lib/", "usr/lib/f=1"}},
		{"behind_dangling_link", []item{{"lib", sym, "usr/lib"}}, []item{{"lib/f", file, "1"}}, []string{"lib->usr/lib", "usr/", "usr/lib/", "usr/lib/f=1"}},
		{"global_header", nil, []item{{"", tar.TypeXGlobalHeader, "commit"}, {"f", file, "1"}}, []string{"f=1"}},
		{"whiteout_names_are_names", []item{{"f", file, "1"}}, []item{{".wh.f", file, ""}, {".wh..wh..opq", file, ""}}, []string{".wh..wh..opq=", ".wh.f=", "f=1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for _, items := range [][]item{tc.before, tc.items} {
				assert.NilError(t, Unpack(t.Context(), bytes.NewReader(archive(t, items)), root, UnpackOptions{}))
			}
			assert.DeepEqual(t, show(t, root), tc.want)
		})
	}
}

func TestUnpackAttributes(t *testing.T) {
	t.Parallel()
	needRoot(t)
	stat := func(root, name string) (st unix.Stat_t) {
		assert.NilError(t, unix.Lstat(filepath.Join(root, name), &st))
		return st
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, hdr := range []*tar.Header{
		{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o2751, Uid: 3, Gid: 4, ModTime: time.Unix(50, 7),
			PAXRecords: map[string]string{"SCHILY.xattr.user.a": "1", "SCHILY.xattr.security.selinux": "label", "SCHILY.xattr.system.posix_acl_default": defaultACL}},
		{Name: "d/f", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 5, Gid: 6, ModTime: time.Unix(60, 0)},
		{Name: "implied/f", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 7, Gid: 8, ModTime: time.Unix(70, 0)},
	} {
		hdr.Format = tar.FormatPAX
		assert.NilError(t, w.WriteHeader(hdr))
	}
	assert.NilError(t, w.Close())

	root := t.TempDir()
	assert.NilError(t, Unpack(t.Context(), bytes.NewReader(buf.Bytes()), root, UnpackOptions{}))
	d, f := stat(root, "d"), stat(root, "d/f")
	assert.Equal(t, d.Mode&0o7777, uint32(0o2751))
	assert.DeepEqual(t, []uint32{d.Uid, d.Gid, f.Uid, f.Gid}, []uint32{3, 4, 5, 6})
	assert.DeepEqual(t, d.Mtim, unix.Timespec{Sec: 50, Nsec: 7})
	attrs, err := Xattrs(filepath.Join(root, "d"), nil)
	assert.NilError(t, err)
	assert.DeepEqual(t, attrs, map[string]string{"user.a": "1", "system.posix_acl_default": defaultACL})
	attrs, err = Xattrs(filepath.Join(root, "d/f"), nil)
	assert.NilError(t, err)
	assert.Equal(t, len(attrs), 0, "a default ACL is for later files")
	implied := stat(root, "implied")
	assert.Equal(t, implied.Mode&0o7777, uint32(0o755))
	assert.DeepEqual(t, []int64{int64(implied.Uid), int64(implied.Gid), implied.Mtim.Sec}, []int64{0, 0, 70})

	root = t.TempDir()
	assert.NilError(t, Unpack(t.Context(), bytes.NewReader(buf.Bytes()), root, UnpackOptions{Chown: &Owner{UID: 11, GID: 12}}))
	for _, name := range []string{"d", "d/f", "implied", "implied/f"} {
		st := stat(root, name)
		assert.DeepEqual(t, []uint32{st.Uid, st.Gid}, []uint32{11, 12})
	}
	suid := stat(root, "implied/f")
	assert.Equal(t, suid.Mode&0o7777, uint32(0o4755))
}

func TestUnpackForgetsReplacedDirectories(t *testing.T) {
	t.Parallel()
	needRoot(t)
	root := t.TempDir()
	// The attributes of a/b, mode 0644, are not for what a leads to later.
	for _, items := range [][]item{{{"c/b/f", file, "1"}}, {{"a/b", dir, ""}, {"a", sym, "c"}}} {
		assert.NilError(t, Unpack(t.Context(), bytes.NewReader(archive(t, items)), root, UnpackOptions{}))
	}
	fi, err := os.Stat(filepath.Join(root, "a/b"))
	assert.NilError(t, err)
	assert.Equal(t, fi.Mode().Perm(), os.FileMode(0o755))
}

// defaultACL is user::rwx,group::---,other::--- as in posix_acl_xattr.h.
const defaultACL = "\x02\x00\x00\x00" +
	"\x01\x00\x07\x00\xff\xff\xff\xff" +
	"\x04\x00\x00\x00\xff\xff\xff\xff" +
	"\x20\x00\x00\x00\xff\xff\xff\xff"

func TestUnpackXattrOptions(t *testing.T) {
	t.Parallel()
	needRoot(t)
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	assert.NilError(t, w.WriteHeader(&tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "x", Format: tar.FormatPAX,
		PAXRecords: map[string]string{"SCHILY.xattr.user.a": "links have none", "SCHILY.xattr.trusted.b": "2"}}))
	assert.NilError(t, w.Close())
	unpack := func(opts UnpackOptions) (map[string]string, error) {
		root := t.TempDir()
		if err := Unpack(t.Context(), bytes.NewReader(buf.Bytes()), root, opts); err != nil {
			return nil, err
		}
		return Xattrs(filepath.Join(root, "link"), nil)
	}
	_, err := unpack(UnpackOptions{})
	assert.ErrorContains(t, err, "setting the extended attribute user.a")
	got, err := unpack(UnpackOptions{BestEffortXattrs: true})
	assert.NilError(t, err)
	assert.DeepEqual(t, got, map[string]string{"trusted.b": "2"})
	got, err = unpack(UnpackOptions{Xattr: func(name string) (string, bool) { return name + ".c", name == "trusted.b" }})
	assert.NilError(t, err)
	assert.DeepEqual(t, got, map[string]string{"trusted.b.c": "2"})
}

func TestUnpackWhiteouts(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, tc := range []struct {
		name  string
		items []item
		want  []string
		tree  []string
		err   string
	}{
		{"plain", []item{{"d/.wh.f", file, ""}, {"g", file, "1"}}, []string{"d:f"}, []string{"d/", "g=1"}, ""},
		{"opaque", []item{{"d/.wh..wh..opq", file, ""}, {"d/f", file, "1"}}, []string{"d:"}, []string{"d/", "d/f=1"}, ""},
		{"at_the_root", []item{{".wh..wh..opq", file, ""}, {".wh.f", file, ""}}, []string{".:", ".:f"}, []string{}, ""},
		{"directory_entry", []item{{".wh.f", dir, ""}}, []string{".:f"}, []string{}, ""},
		{"aufs", []item{{".wh..wh.aufs", file, ""}, {".wh..wh.plnk", dir, ""}, {".wh..wh.plnk/1.2", file, "1"}, {"f", file, "1"}}, nil, []string{"f=1"}, ""},
		{"no_name", []item{{"d/.wh.", file, ""}}, nil, nil, "hides no name"},
		{"dot", []item{{"d/.wh..", file, ""}}, nil, nil, "hides no name"},
		{"dotdot", []item{{"d/.wh...", file, ""}}, nil, nil, "hides no name"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			var got []string
			err := Unpack(t.Context(), bytes.NewReader(archive(t, tc.items)), root, UnpackOptions{Whiteout: func(w Whiteout) error {
				got = append(got, w.Dir.Name()+":"+w.Name)
				return nil
			}})
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
				return
			}
			assert.NilError(t, err)
			assert.DeepEqual(t, got, tc.want)
			assert.DeepEqual(t, show(t, root), tc.tree)
		})
	}
}

func TestUnpackFails(t *testing.T) {
	t.Parallel()
	needRoot(t)
	whole := archive(t, []item{{"f", file, strings.Repeat("x", 2000)}})
	negative := archive(t, []item{{"f", file, ""}})
	copy(negative[108:], "\xff\xff\xff\xff\xff\xff\xff\xff")
	copy(negative[148:], fmt.Sprintf("%06o\x00 ", checksum(negative[:512])))
	for _, tc := range []struct {
		name string
		data []byte
		want string
	}{
		{"truncated_content", whole[:1500], "unexpected EOF"},
		{"truncated_header", whole[:300], "unexpected EOF"},
		{"no_tar", bytes.Repeat([]byte("no"), 600), "invalid tar header"},
		{"unknown_type", archive(t, []item{{"f", 'Z', ""}}), "unknown"},
		{"negative_owner", negative, "is not possible"},
		{"name_too_long", archive(t, []item{{strings.Repeat("x", 256), file, ""}}), "file name too long"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			assert.ErrorContains(t, Unpack(t.Context(), bytes.NewReader(tc.data), t.TempDir(), UnpackOptions{}), tc.want)
		})
	}
}

func checksum(header []byte) (sum int) {
	for i, b := range header {
		if i >= 148 && i < 156 {
			b = ' '
		}
		sum += int(b)
	}
	return sum
}

func TestUnpackKeepsHoles(t *testing.T) {
	t.Parallel()
	needRoot(t)
	from, to := t.TempDir(), t.TempDir()
	f, err := os.Create(filepath.Join(from, "f"))
	assert.NilError(t, err)
	_, err = f.WriteAt([]byte("data"), 10<<20)
	assert.NilError(t, err)
	assert.NilError(t, f.Truncate(64<<20))
	assert.NilError(t, f.Close())
	data := write(t, from, all(t, from), WriteOptions{})
	assert.NilError(t, Unpack(t.Context(), bytes.NewReader(data), to, UnpackOptions{}))
	var st unix.Stat_t
	assert.NilError(t, unix.Lstat(filepath.Join(to, "f"), &st))
	assert.Equal(t, st.Size, int64(64<<20))
	assert.Assert(t, st.Blocks*512 < 1<<20)
	assert.Assert(t, bytes.Equal(write(t, to, all(t, to), WriteOptions{}), data))
}

func FuzzUnpack(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root: changes owners")
	}
	for _, items := range [][]string{{"a", "/x", "a/b"}, {"a", "..", "a/b"}, {"d/l", ".", "d/l/l"}} {
		f.Add(items[0], items[1], items[2], byte(tar.TypeSymlink), byte(tar.TypeReg), true)
		f.Add(items[0], items[1], items[2], byte(tar.TypeDir), byte(tar.TypeLink), false)
	}
	f.Fuzz(func(t *testing.T, name, target, other string, kind, otherKind byte, whiteouts bool) {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, hdr := range []*tar.Header{
			{Name: name, Linkname: target, Typeflag: kind},
			{Name: other, Linkname: name, Typeflag: otherKind},
			{Name: name + "/" + other, Linkname: other, Typeflag: kind},
			{Name: other + "/" + name, Linkname: "../" + target, Typeflag: otherKind},
		} {
			hdr.ModTime = time.Unix(1, 0)
			if w.WriteHeader(hdr) != nil {
				return
			}
		}
		if w.Close() != nil {
			return
		}
		outside := t.TempDir()
		root := filepath.Join(outside, "root")
		assert.NilError(t, os.Mkdir(root, 0o755))
		assert.NilError(t, os.WriteFile(filepath.Join(outside, "x"), []byte("x"), 0o600))
		opts := UnpackOptions{}
		if whiteouts {
			opts.Whiteout = func(w Whiteout) error { return unix.Mknodat(int(w.Dir.Fd()), w.Name, unix.S_IFCHR, 0) }
		}
		_ = Unpack(t.Context(), &buf, root, opts)
		left, err := os.ReadDir(outside)
		assert.NilError(t, err)
		assert.Equal(t, len(left), 2)
		data, err := os.ReadFile(filepath.Join(outside, "x"))
		assert.NilError(t, err)
		assert.Equal(t, string(data), "x")
	})
}

// With Dangling a link to nowhere is that; links to directories go on to work.
func TestUnpackDangling(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		items []item
		want  []string
	}{
		"dangling":        {[]item{{"l", tar.TypeSymlink, "/nowhere"}, {"l/f", tar.TypeReg, "1"}}, nil},
		"dangling_below":  {[]item{{"l", tar.TypeSymlink, "a/b"}, {"l/c/f", tar.TypeReg, "1"}}, nil},
		"to_a_directory":  {[]item{{"a", tar.TypeDir, ""}, {"l", tar.TypeSymlink, "a"}, {"l/f", tar.TypeReg, "1"}}, []string{"a/", "a/f=1", "l->a"}},
		"below_directory": {[]item{{"a", tar.TypeDir, ""}, {"l", tar.TypeSymlink, "/a"}, {"l/b/f", tar.TypeReg, "1"}}, []string{"a/", "a/b/", "a/b/f=1", "l->/a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			err := Unpack(t.Context(), bytes.NewReader(archive(t, tc.items)), root, UnpackOptions{Dangling: true})
			if tc.want == nil {
				assert.ErrorContains(t, err, "no such file or directory")
				return
			}
			assert.NilError(t, err)
			assert.DeepEqual(t, show(t, root), tc.want)
		})
	}
}
