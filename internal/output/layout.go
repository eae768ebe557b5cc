// Package output puts images on the disk: as an OCI image layout, and as a tar
// of one that `docker load` reads, too.
//
// It must not know how an image is built. A registry is to it a place that
// layers of base images can be read from.
package output

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/platform"
)

// Layers reads layers of base images.
type Layers interface {
	OpenLayer(ctx context.Context, ref string, layer ocispecs.Descriptor) (io.ReadCloser, error)
}

// Layout writes images into an OCI image layout (image-spec, image-layout.md).
// It is an engine.Publisher. Finish makes what it wrote visible.
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

// Finish writes the index of the layout, which has one entry for each image.
// name is a tag for readers that look for one; it may be empty.
func (l *Layout) Finish(name string) error {
	index := ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex}
	for _, img := range l.sorted() {
		d := img.Descriptor
		if name != "" {
			d.Annotations = map[string]string{ocispecs.AnnotationRefName: name}
		}
		index.Manifests = append(index.Manifests, d)
	}
	if err := l.json(ocispecs.ImageIndexFile, index); err != nil {
		return err
	}
	return l.json(ocispecs.ImageLayoutFile, ocispecs.ImageLayout{Version: ocispecs.ImageLayoutVersion})
}

// MoveTo moves what Finish made into another directory, which is made when
// missing. The index comes last; blobs that are there already are kept.
func (l *Layout) MoveTo(dir string) error {
	return errors.Join(
		moveAll(filepath.Join(l.dir, ocispecs.ImageBlobsDir, "sha256"), filepath.Join(dir, ocispecs.ImageBlobsDir, "sha256")),
		moveAll(l.dir, dir),
	)
}

// moveAll moves the regular files of a directory.
func moveAll(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	list, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range list {
		if !e.Type().IsRegular() {
			continue
		}
		if err := move(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// move renames, or copies to another file system.
func move(from, to string) error {
	err := os.Rename(from, to)
	if !errors.Is(err, syscall.EXDEV) {
		return err
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

func (l *Layout) sorted() []*engine.Image {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := slices.Clone(l.images)
	slices.SortFunc(list, func(a, b *engine.Image) int { return platform.Compare(a.Platform, b.Platform) })
	return list
}

func (l *Layout) json(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, name), data, 0o644)
}

// dockerManifest is an entry of manifest.json, which `docker load` reads.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Tar writes the layout as one tar, with what `docker load` needs beside it.
// That wants a single image. Finish must have been called.
func (l *Layout) Tar(w io.Writer, tags []string) error {
	images := l.sorted()
	if len(images) != 1 {
		return fmt.Errorf("a tar for docker holds one image, not %d: build one platform, or write an OCI layout", len(images))
	}
	img := images[0]
	var manifest ocispecs.Manifest
	if err := json.Unmarshal(img.Manifest, &manifest); err != nil {
		return err
	}
	name := func(d digest.Digest) string {
		return ocispecs.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
	}
	docker := dockerManifest{Config: name(manifest.Config.Digest), RepoTags: tags, Layers: []string{}}
	files := []string{ocispecs.ImageLayoutFile, ocispecs.ImageIndexFile, name(img.Descriptor.Digest), docker.Config}
	for _, layer := range manifest.Layers {
		docker.Layers = append(docker.Layers, name(layer.Digest))
	}
	files = append(files, docker.Layers...)
	slices.Sort(files)
	files = slices.Compact(files) // equal layers are one blob
	data, err := json.Marshal([]dockerManifest{docker})
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for _, f := range files {
		if err := addFile(tw, l.dir, f); err != nil {
			return err
		}
	}
	if err := tw.WriteHeader(&tar.Header{Name: "manifest.json", Mode: 0o644, Size: int64(len(data))}); err != nil {
		return err
	}
	if _, err := tw.Write(data); err != nil {
		return err
	}
	return tw.Close()
}

// addFile gives every file the same mode and time: the bytes depend on the
// image alone.
func addFile(tw *tar.Writer, dir, name string) error {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}
