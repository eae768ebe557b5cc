package fileop

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/graph"
)

var unpack = func(c *graph.Copy) { c.Unpack = true }

// header is one entry of an archive; data is the content or a link's target.
func header(kind byte, name, data string) *tar.Header {
	h := &tar.Header{Typeflag: kind, Name: name, Mode: 0o640, Uid: os.Geteuid(), Gid: os.Getegid(), ModTime: longAgo, Format: tar.FormatPAX}
	switch kind {
	case tar.TypeReg:
		h.Size = int64(len(data))
		h.PAXRecords = map[string]string{"test.data": data}
	case tar.TypeDir:
		h.Mode = 0o750
	default:
		h.Linkname = data
	}
	return h
}

func archive(t *testing.T, entries ...*tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range entries {
		data := h.PAXRecords["test.data"]
		delete(h.PAXRecords, "test.data")
		assert.NilError(t, w.WriteHeader(h))
		_, err := io.WriteString(w, data)
		assert.NilError(t, err)
	}
	assert.NilError(t, w.Close())
	return buf.Bytes()
}

func compress[W io.WriteCloser](t *testing.T, data []byte, open func(io.Writer) (W, error)) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := open(&buf)
	assert.NilError(t, err)
	_, err = w.Write(data)
	assert.NilError(t, err)
	assert.NilError(t, w.Close())
	return buf.Bytes()
}

func gzipped(t *testing.T, data []byte) []byte {
	return compress(t, data, func(w io.Writer) (*gzip.Writer, error) { return gzip.NewWriter(w), nil })
}

func xzed(t *testing.T, data []byte) []byte {
	return compress(t, data, func(w io.Writer) (*xz.Writer, error) { return xz.NewWriter(w) })
}

// bzip2Archive is the file "f" with the content "data"; the standard library
// cannot compress with bzip2.
const bzip2Archive = "QlpoOTFBWSZTWZpU/n8AAHF7hMmAAEFAAEeAAADlAJ4AAACACCAAVCUoep6mmjTT0RtBJCmjTTIaNBj7qkQhBeQCRxaY1JyLMkgcGHw7wkrwhq1HFm7bHheL0Px+PoUWIZEQMi7kinChITSp/P4="

// add does ADD name /d/ with data in that file, and says what is there then.
func add(t *testing.T, name string, data []byte) string {
	t.Helper()
	src, dst := tree(t), t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(src, name), data, 0o644))
	assert.NilError(t, Copy(t.Context(), dst, src, dockerfile(name, "/d/", unpack), nil, nil))
	return show(t, dst)
}

func TestUnpackCompressions(t *testing.T) {
	needRoot(t)
	t.Parallel()
	plain := archive(t, header(tar.TypeReg, "f", "data"))
	bz, err := base64.StdEncoding.DecodeString(bzip2Archive)
	assert.NilError(t, err)
	zst := compress(t, plain, func(w io.Writer) (*zstd.Encoder, error) { return zstd.NewWriter(w) })
	for name, data := range map[string][]byte{
		"tar":            plain,
		"gzip":           gzipped(t, plain),
		"gzip_members":   append(gzipped(t, plain[:700]), gzipped(t, plain[700:])...),
		"bzip2":          bz,
		"xz":             xzed(t, plain),
		"zstd":           zst,
		"zstd_skippable": append([]byte{0x5a, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 'h', 'i'}, zst...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// The name says nothing.
			assert.Equal(t, add(t, "archive.txt", data), "d/ d/f=data")
		})
	}
}

func TestUnpackLeavesOtherFilesAlone(t *testing.T) {
	t.Parallel()
	text := []byte("no archive at all")
	for name, data := range map[string][]byte{
		"text":                  text,
		"empty":                 {},
		"gzip_of_text":          gzipped(t, text),
		"gzip_broken":           append([]byte{0x1f, 0x8b, 0x08}, "xxxxxxxxxxxxxx"...),
		"gzip_magic_only":       {0x1f, 0x8b},
		"xz_of_text":            xzed(t, text),
		"bzip2_broken":          []byte("BZh91AY&SYxxxxxxxx"),
		"archive_with_no_entry": archive(t),
		"zstd_broken":           append([]byte{0x28, 0xb5, 0x2f, 0xfd}, "xxxxxxxxxxxxxx"...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, add(t, "f.tar.gz", data), "d/ d/f.tar.gz="+string(data))
		})
	}
	t.Run("not_asked_for", func(t *testing.T) {
		t.Parallel()
		data := archive(t, header(tar.TypeReg, "f", ""))
		src, dst := t.TempDir(), t.TempDir()
		assert.NilError(t, os.WriteFile(filepath.Join(src, "a.tar"), data, 0o644))
		assert.NilError(t, Copy(t.Context(), dst, src, dockerfile("a.tar", "/d/"), nil, nil))
		assert.Equal(t, show(t, dst), "d/ d/a.tar="+string(data))
	})
}

// A stream that xz(1) could read and we cannot must not end up as a file.
func TestUnpackRefusesUnknownXZ(t *testing.T) {
	t.Parallel()
	src, dst := t.TempDir(), t.TempDir()
	data := xzed(t, archive(t, header(tar.TypeReg, "f", "")))
	data[13] ^= 1 // in the header of the first block
	assert.NilError(t, os.WriteFile(filepath.Join(src, "a.tar.xz"), data, 0o644))
	err := Copy(t.Context(), dst, src, dockerfile("a.tar.xz", "/d/", unpack), nil, nil)
	assert.ErrorContains(t, err, "copying a.tar.xz to /d/: decompressing xz: ")
	assert.ErrorContains(t, err, "use COPY or ADD --unpack=false")
	assert.Equal(t, show(t, dst), "")
}

func TestUnpackTruncated(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 100_000)
	for i := range noise {
		noise[i] = byte(rand.IntN(256))
	}
	plain := archive(t, header(tar.TypeReg, "f", string(noise)))
	for name, data := range map[string][]byte{"tar": plain, "gzip": gzipped(t, plain), "xz": xzed(t, plain)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src := t.TempDir()
			assert.NilError(t, os.WriteFile(filepath.Join(src, "a"), data[:len(data)/2], 0o644))
			err := Copy(t.Context(), t.TempDir(), src, dockerfile("a", "/d/", unpack), nil, nil)
			assert.ErrorContains(t, err, "copying a to /d/: ")
		})
	}
}

func TestUnpackOverATree(t *testing.T) {
	needRoot(t)
	t.Parallel()
	for name, tc := range map[string]struct {
		dst     []string
		to      string
		entries []*tar.Header
		want    string
		err     string
	}{
		"merges_directories": {
			dst: []string{"d/x/kept=", "d/f=old"},
			entries: []*tar.Header{
				header(tar.TypeDir, "x/", ""), header(tar.TypeReg, "x/new", "n"), header(tar.TypeReg, "f", "new"),
			},
			want: "d/ d/f=new d/x/ d/x/kept= d/x/new=n",
		},
		"file_over_directory": {
			dst:     []string{"d/x/y="},
			entries: []*tar.Header{header(tar.TypeReg, "x", "file")},
			want:    "d/ d/x=file",
		},
		"directory_over_file": {
			dst:     []string{"d/x=file"},
			entries: []*tar.Header{header(tar.TypeDir, "x", ""), header(tar.TypeReg, "x/y", "")},
			want:    "d/ d/x/ d/x/y=",
		},
		"directory_over_link": {
			dst:     []string{"d/x>../kept", "kept/"},
			entries: []*tar.Header{header(tar.TypeDir, "x", ""), header(tar.TypeReg, "x/y", "")},
			want:    "d/ d/x/ d/x/y= kept/",
		},
		"file_over_link": {
			dst:     []string{"d/x>../kept", "kept=old"},
			entries: []*tar.Header{header(tar.TypeReg, "x", "new")},
			want:    "d/ d/x=new kept=old",
		},
		"dest_is_a_link": {
			dst:     []string{"d>/real", "real/"},
			entries: []*tar.Header{header(tar.TypeReg, "x", "")},
			want:    "d>/real real/ real/x=",
		},
		"dest_is_a_climbing_link": {
			dst:     []string{"d>../../.."},
			entries: []*tar.Header{header(tar.TypeReg, "x", "")},
			want:    "d>../../.. x=",
		},
		"dest_is_a_file": {
			dst:     []string{"d=file"},
			entries: []*tar.Header{header(tar.TypeReg, "x", "")},
			want:    "d=file", err: "not a directory",
		},
		"names_that_escape": {
			entries: []*tar.Header{
				header(tar.TypeReg, "../../../up", "1"), header(tar.TypeReg, "/abs", "2"), header(tar.TypeReg, "a/../../b", "3"),
			},
			want: "d/ d/abs=2 d/b=3 d/up=1",
		},
		"links_that_escape": {
			dst: []string{"secret=s"},
			entries: []*tar.Header{
				header(tar.TypeSymlink, "out", "../../.."), header(tar.TypeReg, "out/f", "1"),
				header(tar.TypeSymlink, "abs", "/"), header(tar.TypeReg, "abs/g", "2"),
			},
			want: "d/ d/abs>/ d/f=1 d/g=2 d/out>../../.. secret=s",
		},
		"hard_link_that_escapes": {
			dst:     []string{"secret=s"},
			entries: []*tar.Header{header(tar.TypeLink, "l", "../secret")},
			want:    "d/ secret=s", err: "secret",
		},
		"hard_link": {
			entries: []*tar.Header{header(tar.TypeReg, "f", "x"), header(tar.TypeLink, "l", "f")},
			want:    "d/ d/f=x d/l=x",
		},
		"whiteouts_are_files": {
			dst:     []string{"d/gone=kept"},
			entries: []*tar.Header{header(tar.TypeReg, ".wh.gone", ""), header(tar.TypeReg, ".wh..wh..opq", "")},
			want:    "d/ d/.wh..wh..opq= d/.wh.gone= d/gone=kept",
		},
		"implied_directories": {
			entries: []*tar.Header{header(tar.TypeReg, "a/b/c", "")},
			want:    "d/ d/a/ d/a/b/ d/a/b/c=",
		},
		"later_entries_win": {
			entries: []*tar.Header{header(tar.TypeReg, "f", "1"), header(tar.TypeReg, "./f", "2")},
			want:    "d/ d/f=2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, dst := t.TempDir(), tree(t, tc.dst...)
			assert.NilError(t, os.WriteFile(filepath.Join(src, "a.tar"), archive(t, tc.entries...), 0o644))
			err := Copy(t.Context(), dst, src, dockerfile("a.tar", "/d", unpack), nil, nil)
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
			} else {
				assert.NilError(t, err)
			}
			assert.Equal(t, show(t, dst), tc.want)
		})
	}
}

func TestUnpackMetadata(t *testing.T) {
	needRoot(t)
	t.Parallel()
	file, dir, null := header(tar.TypeReg, "dir/f", "x"), header(tar.TypeDir, "dir", ""), header(tar.TypeChar, "null", "")
	file.Uid, file.Gid, file.Mode = 7, 8, 0o4755
	file.PAXRecords["SCHILY.xattr.user.note"] = "hi"
	dir.Uid, dir.Gid = 9, 10
	null.Devmajor, null.Devminor = 1, 3
	// The owner of the root entry is nobody's business.
	root := header(tar.TypeDir, "./", "")
	root.Uid, root.Mode = 99, 0o700
	data := archive(t, root, dir, file, null)

	for name, tc := range map[string]struct {
		owner           *ID
		made, dir, file string
	}{
		"archive": {nil, "0:0", "9:10", "7:8"},
		"given":   {&ID{70, 80}, "70:80", "70:80", "70:80"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, dst := t.TempDir(), t.TempDir()
			assert.NilError(t, os.WriteFile(filepath.Join(src, "a.tar"), data, 0o644))
			mode := uint32(0o700) // counts for copies only
			c := dockerfile("a.tar", "/p/d", unpack, func(c *graph.Copy) { c.Time, c.Mode = &epoch, &mode })
			assert.NilError(t, Copy(t.Context(), dst, src, c, tc.owner, nil))

			assert.Equal(t, owns(t, dst, "p"), tc.made)
			assert.Equal(t, owns(t, dst, "p/d"), tc.made)
			assert.Equal(t, owns(t, dst, "p/d/dir"), tc.dir)
			assert.Equal(t, owns(t, dst, "p/d/dir/f"), tc.file)
			fi, _ := lstat(t, dst, "p/d")
			assert.Equal(t, fi.Mode(), 0o755|fs.ModeDir)
			for name, mode := range map[string]fs.FileMode{"dir": 0o750 | fs.ModeDir, "dir/f": 0o755 | fs.ModeSetuid, "null": 0o640 | fs.ModeDevice | fs.ModeCharDevice} {
				fi, _ := lstat(t, dst, "p/d", name)
				assert.Equal(t, fi.Mode(), mode, name)
				assert.Assert(t, fi.ModTime().Equal(longAgo), "%s: %s", name, fi.ModTime())
			}
			_, st := lstat(t, dst, "p/d/null")
			assert.Equal(t, fmt.Sprint(st.Rdev), fmt.Sprint(unix.Mkdev(1, 3)))
			buf := make([]byte, 8)
			n, err := unix.Getxattr(filepath.Join(dst, "p/d/dir/f"), "user.note", buf)
			assert.NilError(t, err)
			assert.Equal(t, string(buf[:n]), "hi")
		})
	}
}

func TestUnpackManyAndMixed(t *testing.T) {
	t.Parallel()
	src, dst := tree(t, "c.tar=plain text", "link.tar>a.tar"), t.TempDir()
	for _, f := range []string{"a", "b"} {
		assert.NilError(t, os.WriteFile(filepath.Join(src, f+".tar"), archive(t, header(tar.TypeReg, f, f)), 0o644))
	}
	assert.NilError(t, Copy(t.Context(), dst, src, dockerfile("?.tar", "/d/", unpack), nil, nil))
	assert.Equal(t, show(t, dst), "d/ d/a=a d/b=b d/c.tar=plain text")

	dst = t.TempDir()
	assert.NilError(t, Copy(t.Context(), dst, src, dockerfile("link.tar", "/d/", unpack), nil, nil))
	assert.Equal(t, show(t, dst), "d/ d/a=a")
}
