package imagediff

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// tree is an image's file tree with all layers applied: absolute path to file.
// Hard links of one file share the pointer.
type tree map[string]*file

type file struct {
	kind         byte // tar's type flag
	mode         int64
	uid, gid     int
	size         int64
	sum          string // sha256 of the content
	target       string // of a symbolic link
	major, minor int64
	xattrs       map[string]string
	modified     time.Time
}

// OCI image specification, "Image Layer Filesystem Changeset".
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// flatten applies the image's layers, lowest first.
func flatten(img v1.Image) (tree, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	t := tree{"/": {kind: tar.TypeDir, mode: 0o755}}
	for i, layer := range layers {
		if err := t.apply(layer); err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	return t, nil
}

// named is a file and the name that its layer gives it.
type named struct {
	name, link string // link is the other name of a hard link
	*file
}

// apply removes what the layer removes from the layers below, and then adds its files.
func (t tree) apply(layer v1.Layer) error {
	r, err := layer.Uncompressed()
	if err != nil {
		return err
	}
	defer r.Close()

	var added []named
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean("/" + h.Name)
		dir, base := path.Split(name)
		switch {
		case base == opaque:
			t.empty(t.resolve(dir))
		case strings.HasPrefix(base, whiteout):
			t.remove(path.Join(t.resolve(dir), strings.TrimPrefix(base, whiteout)))
		case h.Typeflag == tar.TypeLink:
			added = append(added, named{name: name, link: path.Clean("/" + h.Linkname)})
		default:
			f, err := read(h, archive)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			added = append(added, named{name: name, file: f})
		}
	}
	for _, f := range added {
		if err := t.add(f); err != nil {
			return err
		}
	}
	return nil
}

func (t tree) add(f named) error {
	dir, base := path.Split(f.name)
	name := path.Join(t.resolve(dir), base)
	if f.link != "" {
		dir, base := path.Split(f.link)
		linked, ok := t[path.Join(t.resolve(dir), base)]
		if !ok {
			return fmt.Errorf("%s is a hard link to %s, which does not exist", f.name, f.link)
		}
		f.file = linked
	}
	for parent := path.Dir(name); t[parent] == nil; parent = path.Dir(parent) {
		t[parent] = &file{kind: tar.TypeDir, mode: 0o755}
	}
	if f.kind != tar.TypeDir {
		t.remove(name)
	}
	t[name] = f.file
	return nil
}

// remove takes name and all below it away.
func (t tree) remove(name string) {
	if f := t[name]; f != nil && f.kind == tar.TypeDir {
		t.empty(name)
	}
	delete(t, name)
}

func (t tree) empty(dir string) {
	prefix := strings.TrimSuffix(dir, "/") + "/"
	for name := range t {
		if strings.HasPrefix(name, prefix) && name != "/" {
			delete(t, name)
		}
	}
}

// maxLinks is Linux's limit of links followed for one path.
const maxLinks = 40

// resolve follows the symbolic links in the path of a directory.
func (t tree) resolve(dir string) string {
	resolved, rest := "/", strings.Split(path.Clean("/"+dir), "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		next := path.Join(resolved, part)
		f := t[next]
		if f == nil || f.kind != tar.TypeSymlink || links == maxLinks {
			resolved = next
			continue
		}
		links++
		if path.IsAbs(f.target) {
			resolved = "/"
		}
		rest = append(strings.Split(f.target, "/"), rest...)
	}
	return resolved
}

func read(h *tar.Header, content io.Reader) (*file, error) {
	f := &file{
		kind: h.Typeflag, mode: h.Mode, uid: h.Uid, gid: h.Gid, size: h.Size, target: h.Linkname,
		major: h.Devmajor, minor: h.Devminor, xattrs: map[string]string{}, modified: h.ModTime,
	}
	const xattr = "SCHILY.xattr."
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, xattr); ok {
			f.xattrs[name] = value
		}
	}
	if h.Typeflag != tar.TypeReg {
		return f, nil
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, content); err != nil {
		return nil, err
	}
	f.sum = fmt.Sprintf("%x", sum.Sum(nil))
	return f, nil
}
