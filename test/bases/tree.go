package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// epoch is the time of all that is not from a package: Debian 12's release.
var epoch = time.Date(2023, 6, 10, 0, 0, 0, 0, time.UTC)

// tree is a file tree in memory: clean relative path to entry.
type tree map[string]entry

type entry struct {
	header tar.Header
	data   []byte
}

// merged are the directories that Debian 12 has as links into /usr, while its
// packages still name files by the old paths.
var merged = []string{"bin", "sbin", "lib", "lib64"}

// place gives a package's path its place in the tree.
func place(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	top, _, _ := strings.Cut(name, "/")
	if slices.Contains(merged, top) {
		return "usr/" + name
	}
	return name
}

// addTar adds a package's files.
func (t tree) addTar(r *tar.Reader, skip func(path string) bool) error {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := place(h.Name)
		if name == "" || skip(name) {
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeLink {
			h.Linkname = place(h.Linkname)
		}
		t.set(name, entry{header: *h, data: data})
	}
}

func (t tree) set(name string, e entry) {
	h := e.header
	t[name] = entry{
		header: tar.Header{
			Typeflag: h.Typeflag, Name: name, Linkname: h.Linkname, Size: int64(len(e.data)),
			Mode: h.Mode, Uid: h.Uid, Gid: h.Gid, ModTime: h.ModTime, Format: tar.FormatPAX,
		},
		data: e.data,
	}
}

func (t tree) file(name string, mode int64, data []byte) {
	t.set(name, entry{tar.Header{Typeflag: tar.TypeReg, Mode: mode, ModTime: epoch}, data})
}

func (t tree) dir(name string, mode int64) {
	t.set(name, entry{tar.Header{Typeflag: tar.TypeDir, Mode: mode, ModTime: epoch}, nil})
}

func (t tree) link(name, target string) {
	t.set(name, entry{tar.Header{Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777, ModTime: epoch}, nil})
}

// copyFile gives the file at from a second place.
func (t tree) copyFile(from, to string) error {
	e, ok := t[from]
	if !ok {
		return fmt.Errorf("no %s in the packages", from)
	}
	t.set(to, e)
	return nil
}

// layer is the tree as one gzipped layer, entries sorted, hard links last so
// that they follow what they link to.
func (t tree) layer() (v1.Layer, error) {
	rank := func(name string) int {
		if t[name].header.Typeflag == tar.TypeLink {
			return 1
		}
		return 0
	}
	names := slices.SortedFunc(maps.Keys(t), func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range names {
		e := t[name]
		if e.header.Typeflag == tar.TypeDir {
			e.header.Name += "/"
		}
		if err := w.WriteHeader(&e.header); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithCompressionLevel(gzip.BestSpeed),
		tarball.WithCompressedCaching, tarball.WithMediaType(types.OCILayer))
}
