package layer

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes devices and changes owners")
	}
}

// everything makes a tree with all that a layer can hold.
func everything(t *testing.T) string {
	t.Helper()
	needRoot(t)
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	ok := func(err error) {
		t.Helper()
		assert.NilError(t, err)
	}
	for _, dir := range []string{"dir", "dir/sub", "sticky", strings.Repeat("d", 200), strings.Repeat("d", 200) + "/" + strings.Repeat("e", 200)} {
		ok(os.Mkdir(at(dir), 0o755))
	}
	ok(os.Chmod(at("sticky"), 0o1777|os.ModeSticky))
	for name, content := range map[string]string{
		"dir/file":               "content",
		"dir/empty":              "",
		"dir-after":              "sorted after what is in dir",
		"setuid":                 "#!/bin/sh",
		"big_ids":                "x",
		"caps":                   "x",
		"xattrs":                 "x",
		"\xff\xfe":               "a name that is not UTF-8",
		"ünï":                    "a name that is",
		strings.Repeat("n", 255): "a long name",
		"dir/sub/linked":         "several names",
		"new\nline":              "x",
		".who":                   "no whiteout",
		strings.Repeat("d", 200) + "/" + strings.Repeat("e", 200) + "/f": "a long path",
	} {
		ok(os.WriteFile(at(name), []byte(content), 0o640))
	}
	ok(unix.Chmod(at("setuid"), 0o6755))
	ok(os.Lchown(at("setuid"), 12, 34))
	ok(unix.Chmod(at("setuid"), 0o6755))
	ok(os.Lchown(at("big_ids"), 1<<22+5, 1<<31+7))
	ok(unix.Lsetxattr(at("caps"), capability, capsV3(0x400, 1000), 0))
	ok(unix.Lsetxattr(at("xattrs"), "user.text", []byte("value"), 0))
	ok(unix.Lsetxattr(at("xattrs"), "user.binary", []byte("a\x00=\nb"), 0))
	ok(unix.Lsetxattr(at("xattrs"), "user.empty", nil, 0))
	ok(unix.Lsetxattr(at("xattrs"), "user.long", bytes.Repeat([]byte{7}, 2000), 0))
	ok(unix.Lsetxattr(at("dir"), "trusted.dir", []byte("x"), 0))
	ok(os.Symlink("/nowhere/"+strings.Repeat("l", 150), at("symlink")))
	ok(os.Lchown(at("symlink"), 5, 6))
	ok(os.Link(at("dir/sub/linked"), at("a_link")))
	ok(os.Link(at("symlink"), at("symlink_link")))
	ok(unix.Mkfifo(at("fifo"), 0o600))
	ok(unix.Mknod(at("char"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	ok(unix.Mknod(at("block"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70000))))
	ok(unix.Mknod(at("socket"), unix.S_IFSOCK|0o600, 0))

	stamp := time.Unix(1700000000, 0)
	for i, c := range all(t, root) {
		when := stamp.Add(time.Duration(i) * time.Hour)
		switch c.Path {
		case "dir/file", "dir":
			when = time.Unix(1600000000, 123456789)
		case "fifo":
			when = time.Unix(-5, 0)
		}
		ts := unix.Timespec{Sec: when.Unix(), Nsec: int64(when.Nanosecond())}
		ok(unix.UtimesNanoAt(unix.AT_FDCWD, at(c.Path), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
	return root
}

// capsV3 is a struct vfs_ns_cap_data, with the effective flag.
func capsV3(permitted, rootID uint32) []byte {
	var v []byte
	for _, n := range []uint32{0x03000001, permitted, 0, 0, 0, rootID} {
		v = binary.LittleEndian.AppendUint32(v, n)
	}
	return v
}

// all lists everything below root as changed.
func all(t *testing.T, root string) []Change {
	t.Helper()
	var changes []Change
	assert.NilError(t, filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if p != root && err == nil {
			rel, _ := filepath.Rel(root, p)
			changes = append(changes, Change{Path: rel})
		}
		return err
	}))
	return changes
}

func write(t *testing.T, root string, changes []Change, opts WriteOptions) []byte {
	t.Helper()
	var buf bytes.Buffer
	assert.NilError(t, Write(t.Context(), &buf, root, changes, opts))
	return buf.Bytes()
}

// headers reads a tar; the content of regular files is in Uname, which layers
// do not use.
func headers(t *testing.T, data []byte) []*tar.Header {
	t.Helper()
	var out []*tar.Header
	r := tar.NewReader(bytes.NewReader(data))
	for {
		hdr, err := r.Next()
		if err == io.EOF {
			return out
		}
		assert.NilError(t, err)
		assert.Equal(t, hdr.Uname+hdr.Gname, "")
		content, err := io.ReadAll(r)
		assert.NilError(t, err)
		hdr.Uname = string(content)
		out = append(out, hdr)
	}
}

func names(hdrs []*tar.Header) []string {
	out := []string{}
	for _, h := range hdrs {
		out = append(out, h.Name)
	}
	return out
}

func find(t *testing.T, hdrs []*tar.Header, name string) *tar.Header {
	t.Helper()
	for _, h := range hdrs {
		if h.Name == name {
			return h
		}
	}
	t.Fatalf("no entry %q in %q", name, names(hdrs))
	return nil
}
