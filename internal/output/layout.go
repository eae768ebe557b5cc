// Package output puts images on the disk: as an OCI image layout, and as a tar
// of one that `docker load` reads, too.
//
// It must not know how an image is built. A registry is to it a place that
// layers of base images can be read from.
package output

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/newfile"
	"github.com/org/kaniko-multiarch/internal/platform"
)

// Layers reads layers of base images.
type Layers interface {
	OpenLayer(ctx context.Context, ref string, layer ocispecs.Descriptor) (io.ReadCloser, error)
}

// Layout writes images into an OCI image layout (image-spec, image-layout.md).
// It is an engine.Publisher. WriteTo and the methods for tars show what it
// has.
type Layout struct {
	dir    string
	layers Layers

	mu     sync.Mutex
	images []*engine.Image
}

var _ engine.Publisher = (*Layout)(nil)

// NewLayout returns a Layout in dir, which is made when missing. Blobs that are
// there already are kept.
func NewLayout(dir string, layers Layers) (*Layout, error) {
	if err := os.MkdirAll(filepath.Join(dir, ocispecs.ImageBlobsDir, "sha256"), 0o755); err != nil {
		return nil, fmt.Errorf("making the OCI layout: %w", err)
	}
	return &Layout{dir: dir, layers: layers}, nil
}

func (l *Layout) blob(d digest.Digest) string {
	return filepath.Join(l.dir, ocispecs.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// write stores a blob under its digest, which is checked.
func (l *Layout) write(d digest.Digest, r io.Reader) error {
	if _, err := os.Stat(l.blob(d)); err == nil {
		return nil
	}
	f, err := os.CreateTemp(l.dir, ".blob-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	verifier := d.Verifier()
	_, err = io.Copy(io.MultiWriter(f, verifier), r)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", d, err)
	}
	if !verifier.Verified() {
		return fmt.Errorf("the content of %s has another digest", d)
	}
	return os.Rename(f.Name(), l.blob(d))
}

// BaseLayer implements engine.Publisher.
func (l *Layout) BaseLayer(ctx context.Context, ref string, layer ocispecs.Descriptor) error {
	if _, err := os.Stat(l.blob(layer.Digest)); err == nil {
		return nil
	}
	r, err := l.layers.OpenLayer(ctx, ref, layer)
	if err != nil {
		return err
	}
	return errors.Join(l.write(layer.Digest, r), r.Close())
}

// Layer implements engine.Publisher.
func (l *Layout) Layer(_ context.Context, layer ocispecs.Descriptor, content io.ReaderAt, _ func(int64)) error {
	return l.write(layer.Digest, io.NewSectionReader(content, 0, layer.Size))
}

// Image implements engine.Publisher.
func (l *Layout) Image(_ context.Context, img *engine.Image) error {
	for d, data := range map[digest.Digest][]byte{img.ConfigDescriptor.Digest: img.Config, img.Descriptor.Digest: img.Manifest} {
		if err := os.WriteFile(l.blob(d), data, 0o644); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.images = append(l.images, img)
	return nil
}

// Final is what is known of an image once it is finished.
type Final struct {
	// Names are full references with a tag. A reader finds the image by the name
	// or by the tag.
	Names []string
	// Index is the index of the images, of type IndexType. Without one each
	// image stands for itself.
	Index     []byte
	IndexType string
}

// WriteTo makes dir, which is made when missing, an OCI image layout whose index
// leads to f.Index, or to the image. The index comes last; blobs that are there
// already are kept.
func (l *Layout) WriteTo(dir string, f Final) error {
	to := &Layout{dir: dir}
	from := filepath.Dir(l.blob(digest.FromString("")))
	list, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, ocispecs.ImageBlobsDir, "sha256"), 0o755); err != nil {
		return err
	}
	for _, e := range list {
		if err := place(filepath.Join(from, e.Name()), to.blob(digest.NewDigestFromEncoded(digest.SHA256, e.Name()))); err != nil {
			return err
		}
	}
	if f.Index != nil {
		if err := to.write(digest.FromBytes(f.Index), bytes.NewReader(f.Index)); err != nil {
			return err
		}
	}
	files, err := l.index(f)
	if err != nil {
		return err
	}
	for _, name := range []string{ocispecs.ImageLayoutFile, ocispecs.ImageIndexFile} {
		if err := newfile.Put(filepath.Join(dir, name), files[name]); err != nil {
			return err
		}
	}
	return nil
}

// place makes a link to a file, or a copy on another file system.
func place(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, os.ErrExist) {
		return nil
	}
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.CreateTemp(filepath.Dir(to), ".blob-")
	if err != nil {
		return err
	}
	defer os.Remove(w.Name())
	_, err = io.Copy(w, r)
	if err := errors.Join(err, w.Chmod(0o644), w.Close()); err != nil {
		return err
	}
	return os.Rename(w.Name(), to)
}

// containerdName is the annotation that containerd and Docker take an image's
// name from.
const containerdName = "io.containerd.image.name"

// index returns the files that make a directory of blobs a layout.
func (l *Layout) index(f Final) (map[string][]byte, error) {
	var roots []ocispecs.Descriptor
	for _, img := range l.sorted() {
		roots = append(roots, img.Descriptor)
	}
	if f.Index != nil {
		roots = []ocispecs.Descriptor{{MediaType: f.IndexType, Digest: digest.FromBytes(f.Index), Size: int64(len(f.Index))}}
	}
	index := ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex}
	for _, root := range roots {
		for _, name := range f.Names {
			d := root
			tag := name[strings.LastIndexByte(name, ':')+1:]
			d.Annotations = map[string]string{ocispecs.AnnotationRefName: tag, containerdName: name}
			index.Manifests = append(index.Manifests, d)
		}
		if len(f.Names) == 0 {
			index.Manifests = append(index.Manifests, root)
		}
	}
	out := map[string][]byte{}
	for name, v := range map[string]any{
		ocispecs.ImageIndexFile:  index,
		ocispecs.ImageLayoutFile: ocispecs.ImageLayout{Version: ocispecs.ImageLayoutVersion},
	} {
		data, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		out[name] = data
	}
	return out, nil
}

func (l *Layout) sorted() []*engine.Image {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := slices.Clone(l.images)
	slices.SortFunc(list, func(a, b *engine.Image) int { return platform.Compare(a.Platform, b.Platform) })
	return list
}
