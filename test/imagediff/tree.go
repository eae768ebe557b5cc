package imagediff

import (
	"archive/tar"
	"fmt"
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
func flatten(img v1.Image, known *Layers) (tree, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	t := tree{"/": {kind: tar.TypeDir, mode: 0o755}}
	for i, layer := range layers {
		entries, err := known.entries(layer)
		if err == nil {
			err = t.apply(entries)
		}
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	return t, nil
}

// apply removes what the layer removes from the layers below, and then adds its files.
func (t tree) apply(layer []entry) error {
	for _, e := range layer {
		dir, base := path.Split(e.name)
		switch {
		case base == opaque:
			t.empty(t.resolve(dir))
		case e.removes():
			t.remove(path.Join(t.resolve(dir), strings.TrimPrefix(base, whiteout)))
		}
	}
	for _, e := range layer {
		if e.removes() {
			continue
		}
		if err := t.add(e); err != nil {
			return err
		}
	}
	return nil
}

func (t tree) add(f entry) error {
	dir, base := path.Split(f.name)
	name := path.Join(t.resolve(dir), base)
	if f.link != "" {
		dir, base := path.Split(f.link)
		linked, ok := t[path.Join(t.resolve(dir), base)]
		if !ok {
			return fmt.Errorf("%s is a hard link to %s, which does not exist", f.name, f.link)
		}
		f.file = linked
	} else {
		f.file = new(*f.file) // layers can be remembered and a layer come twice
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
