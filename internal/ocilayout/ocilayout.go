// Package ocilayout reads images from an OCI image layout on the disk
// (image-spec, image-layout.md).
//
// It must not know what the images are for. Writing layouts is output's.
package ocilayout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxDocument limits what is read into memory, in bytes.
const maxDocument = 16 << 20

// ErrNotFound is an image or a blob that the layout does not have.
var ErrNotFound = errors.New("not in the OCI layout")

// Layout is a directory with images. It is safe for concurrent use.
type Layout struct {
	dir  string
	root *os.Root
}

// Open opens the layout in dir. It stays open when dir is moved.
func Open(dir string) (*Layout, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the OCI layout: %w", err)
	}
	if _, err := root.Stat(ocispecs.ImageIndexFile); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is no OCI layout: it has no %s: want the directory, not an archive", dir, ocispecs.ImageIndexFile), root.Close())
	}
	return &Layout{dir: dir, root: root}, nil
}

// Close makes the layout unusable.
func (l *Layout) Close() error { return l.root.Close() }

// Resolve returns what a tag or a digest names. Without either it is the tag
// latest, or else the only image that there is.
func (l *Layout) Resolve(tag string, d digest.Digest) (ocispecs.Descriptor, error) {
	var index ocispecs.Index
	if err := l.json(ocispecs.ImageIndexFile, &index); err != nil {
		return ocispecs.Descriptor{}, err
	}
	name := tag
	if name == "" {
		name = "latest"
	}
	for _, m := range index.Manifests {
		if d != "" && m.Digest == d || d == "" && m.Annotations[ocispecs.AnnotationRefName] == name {
			return m, nil
		}
	}
	if d != "" {
		info, err := l.root.Stat(blob(d))
		if err != nil {
			return ocispecs.Descriptor{}, l.missing(d.String(), err)
		}
		return ocispecs.Descriptor{Digest: d, Size: info.Size()}, nil
	}
	if tag == "" && len(index.Manifests) == 1 {
		return index.Manifests[0], nil
	}
	return ocispecs.Descriptor{}, fmt.Errorf("%s: tag %q: %w, which has %d images: name one with :TAG or @DIGEST", l.dir, name, ErrNotFound, len(index.Manifests))
}

// Image returns manifest and config of what d names, for a platform: the best
// match as containerd finds it.
func (l *Layout) Image(d digest.Digest, p ocispecs.Platform) (ocispecs.Manifest, []byte, error) {
	var both struct {
		ocispecs.Manifest
		Manifests []ocispecs.Descriptor `json:"manifests"`
	}
	if err := l.json(blob(d), &both); err != nil {
		return ocispecs.Manifest{}, nil, err
	}
	if both.Config.Digest == "" {
		match, children := platforms.Only(p), both.Manifests
		children = slices.DeleteFunc(children, func(c ocispecs.Descriptor) bool { return c.Platform == nil || !match.Match(*c.Platform) })
		if len(children) == 0 {
			return ocispecs.Manifest{}, nil, fmt.Errorf("%s: %s has no image for %s: %w", l.dir, d, platforms.Format(p), ErrNotFound)
		}
		best := slices.MinFunc(children, func(a, b ocispecs.Descriptor) int {
			switch {
			case match.Less(*a.Platform, *b.Platform):
				return -1
			case match.Less(*b.Platform, *a.Platform):
				return 1
			}
			return 0
		})
		return l.Image(best.Digest, p)
	}
	config, err := l.document(blob(both.Config.Digest))
	return both.Manifest, config, err
}

// Blob opens a blob, which is verified while it is read.
func (l *Layout) Blob(d ocispecs.Descriptor) (io.ReadCloser, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, err
	}
	f, err := l.root.Open(blob(d.Digest))
	if err != nil {
		return nil, l.missing(d.Digest.String(), err)
	}
	return &verified{f: f, verifier: d.Digest.Verifier(), digest: d.Digest}, nil
}

type verified struct {
	f        *os.File
	verifier digest.Verifier
	digest   digest.Digest
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.f.Read(p)
	_, _ = v.verifier.Write(p[:n])
	if err == io.EOF && !v.verifier.Verified() {
		return n, fmt.Errorf("the content of %s has another digest", v.digest)
	}
	return n, err
}

func (v *verified) Close() error { return v.f.Close() }

func blob(d digest.Digest) string {
	algorithm, hex, _ := strings.Cut(d.String(), ":")
	return filepath.Join(ocispecs.ImageBlobsDir, algorithm, hex)
}

func (l *Layout) json(name string, v any) error {
	data, err := l.document(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: reading %s: %w", l.dir, name, err)
	}
	return nil
}

// missing is the error of opening something.
func (l *Layout) missing(name string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		err = ErrNotFound
	}
	return fmt.Errorf("%s: %s: %w", l.dir, name, err)
}

// document reads a small file; a blob is checked.
func (l *Layout) document(name string) ([]byte, error) {
	f, err := l.root.Open(name)
	if err != nil {
		return nil, l.missing(name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxDocument))
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(name, ocispecs.ImageBlobsDir) {
		algorithm, hex := filepath.Base(filepath.Dir(name)), filepath.Base(name)
		d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
		if err := d.Validate(); err != nil {
			return nil, err
		}
		if d.Algorithm().FromBytes(data) != d {
			return nil, fmt.Errorf("%s: the content of %s has another digest", l.dir, d)
		}
	}
	return data, nil
}
