package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

func TestWriteHoldsEverything(t *testing.T) {
	t.Parallel()
	root := everything(t)
	hdrs := headers(t, write(t, root, all(t, root), WriteOptions{}))

	assert.Assert(t, !slices.Contains(names(hdrs), "socket"))
	assert.Equal(t, find(t, hdrs, "dir/file").Uname, "content")
	assert.Assert(t, find(t, hdrs, "dir/file").ModTime.Equal(time.Unix(1600000000, 123456789)))
	assert.Assert(t, find(t, hdrs, "fifo").ModTime.Equal(time.Unix(-5, 0)))
	assert.Equal(t, find(t, hdrs, "setuid").Mode, int64(0o6755))
	assert.Equal(t, find(t, hdrs, "setuid").Uid, 12)
	assert.Equal(t, find(t, hdrs, "sticky/").Mode, int64(0o1777))
	assert.Equal(t, find(t, hdrs, "big_ids").Uid, 1<<22+5)
	assert.Equal(t, find(t, hdrs, "big_ids").Gid, 1<<31+7)
	caps := find(t, hdrs, "caps").PAXRecords["SCHILY.xattr.security.capability"]
	assert.DeepEqual(t, []byte(caps), append([]byte{1, 0, 0, 2}, capsV3(0x400, 0)[4:20]...))
	assert.Equal(t, find(t, hdrs, "xattrs").PAXRecords["SCHILY.xattr.user.binary"], "a\x00=\nb")
	assert.Equal(t, find(t, hdrs, "dir/").PAXRecords["SCHILY.xattr.trusted.dir"], "x")
	assert.Equal(t, find(t, hdrs, "\xff\xfe").Uname, "a name that is not UTF-8")
	assert.Equal(t, find(t, hdrs, "block").Typeflag, byte(tar.TypeBlock))
	assert.Equal(t, find(t, hdrs, "block").Devminor, int64(70000))
	assert.Equal(t, find(t, hdrs, "char").Devmajor, int64(1))
	assert.Equal(t, find(t, hdrs, "fifo").Typeflag, byte(tar.TypeFifo))

	first, second := find(t, hdrs, "a_link"), find(t, hdrs, "dir/sub/linked")
	assert.Equal(t, first.Typeflag, byte(tar.TypeReg))
	assert.Equal(t, second.Typeflag, byte(tar.TypeLink))
	assert.Equal(t, second.Linkname, "a_link")
	assert.Equal(t, find(t, hdrs, "symlink").Typeflag, byte(tar.TypeSymlink))
	assert.Equal(t, find(t, hdrs, "symlink_link").Typeflag, byte(tar.TypeLink))

	got := names(hdrs)
	assert.Assert(t, slices.Index(got, "dir/sub/linked") < slices.Index(got, "dir-after"))
}

func TestWriteOnlyUsesPAXWhenNeeded(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(root, "f"), []byte("x"), 0o644))
	assert.NilError(t, os.Chtimes(filepath.Join(root, "f"), time.Time{}, time.Unix(1700000000, 0)))
	plain := write(t, root, all(t, root), WriteOptions{})
	assert.Equal(t, len(plain), 4*512)
	assert.NilError(t, os.Chtimes(filepath.Join(root, "f"), time.Time{}, time.Unix(1700000000, 1)))
	assert.Equal(t, len(write(t, root, all(t, root), WriteOptions{})), 6*512)
}

func TestWriteOrderAndParents(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, dir := range []string{"a/b", "c"} {
		assert.NilError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	for _, f := range []string{"a/b/f", "a/b/g", "a.txt", "c/h"} {
		assert.NilError(t, os.WriteFile(filepath.Join(root, f), nil, 0o644))
	}
	for _, tc := range []struct {
		name    string
		changes []Change
		want    []string
	}{
		{"nothing", nil, []string{}},
		{"parents_are_added_once", []Change{{Path: "a/b/g"}, {Path: "a/b/f"}}, []string{"a/", "a/b/", "a/b/f", "a/b/g"}},
		{"changed_parent_is_not_repeated", []Change{{Path: "a/b/g"}, {Path: "a/b"}}, []string{"a/", "a/b/", "a/b/g"}},
		{"directory_before_sibling", []Change{{Path: "a.txt"}, {Path: "a/b/f"}}, []string{"a/", "a/b/", "a/b/f", "a.txt"}},
		{"whiteout", []Change{{"c/gone", Delete}, {"gone", Delete}, {Path: "c/h"}}, []string{"c/", "c/.wh.gone", "c/h", ".wh.gone"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			hdrs := headers(t, write(t, root, tc.changes, WriteOptions{}))
			assert.DeepEqual(t, names(hdrs), tc.want)
			for _, h := range hdrs {
				if strings.Contains(h.Name, ".wh.") {
					assert.Equal(t, h.Mode+h.Size+h.ModTime.Unix(), int64(0))
				}
			}
		})
	}
}

func TestWriteOptions(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for name, when := range map[string]int64{"old": 500, "new": 2000} {
		assert.NilError(t, os.WriteFile(filepath.Join(root, name), nil, 0o644))
		assert.NilError(t, os.Chtimes(filepath.Join(root, name), time.Time{}, time.Unix(when, 5)))
	}
	assert.NilError(t, unix.Lsetxattr(filepath.Join(root, "old"), "user.keep", []byte("1"), 0))
	assert.NilError(t, unix.Lsetxattr(filepath.Join(root, "old"), "user.drop", []byte("2"), 0))
	limit := int64(1000)
	hdrs := headers(t, write(t, root, all(t, root), WriteOptions{
		MaxTime: &limit,
		Xattr:   func(name string) (string, bool) { return strings.Replace(name, "keep", "kept", 1), name != "user.drop" },
	}))
	assert.Assert(t, find(t, hdrs, "new").ModTime.Equal(time.Unix(1000, 0)))
	old := find(t, hdrs, "old")
	assert.Assert(t, old.ModTime.Equal(time.Unix(500, 5)))
	assert.DeepEqual(t, old.PAXRecords, map[string]string{"mtime": "500.000000005", "SCHILY.xattr.user.kept": "1"})
}

func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, f := range []string{"f", ".wh.f", "attr"} {
		assert.NilError(t, os.WriteFile(filepath.Join(root, f), nil, 0o644))
	}
	assert.NilError(t, unix.Lsetxattr(filepath.Join(root, "attr"), "user.a=b", []byte("1"), 0))
	for _, tc := range []struct {
		name    string
		changes []Change
		want    string
	}{
		{"root", []Change{{Path: "."}}, "not a clean path"},
		{"absolute", []Change{{Path: "/f"}}, "not a clean path"},
		{"outside", []Change{{Path: "../f"}}, "not a clean path"},
		{"unclean", []Change{{Path: "a//f"}}, "not a clean path"},
		{"twice", []Change{{Path: "f"}, {"f", Delete}}, "changed twice"},
		{"missing", []Change{{Path: "g"}}, `adding "g" to the layer: no such file`},
		{"below_file", []Change{{"f/g", Delete}}, `"f" is not a directory`},
		{"whiteout_name", []Change{{Path: ".wh.f"}}, "rename or exclude it"},
		{"xattr_name", []Change{{Path: "attr"}}, "'='"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			assert.ErrorContains(t, Write(t.Context(), io.Discard, root, tc.changes, WriteOptions{}), tc.want)
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		why := errors.New("why")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(why)
		assert.ErrorIs(t, Write(ctx, io.Discard, root, []Change{{Path: "f"}}, WriteOptions{}), why)
	})
}

func TestWriteIsDeterministic(t *testing.T) {
	t.Parallel()
	root := everything(t)
	changes := all(t, root)
	want := write(t, root, changes, WriteOptions{})
	slices.Reverse(changes)
	assert.Assert(t, bytes.Equal(write(t, root, changes, WriteOptions{}), want))
}
