package merge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/newfile"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// layout is an OCI image layout in a directory (image-spec, image-layout.md).
// Blobs that are there already are kept, other images as well.
type layout struct{ dir string }

// imageName is where containerd and BuildKit keep the full name.
const imageName = "io.containerd.image.name"

// writeLayout writes the index with everything below it. The file that makes it
// visible comes last.
func (m *merger) writeLayout(ctx context.Context, reg Reader, out result) error {
	l := layout{m.opts.Layout}
	for _, c := range m.children {
		if err := l.manifest(ctx, reg, c.repo, c.desc.Digest, c.manifest); err != nil {
			return err
		}
	}
	for _, a := range m.attached {
		_, data, err := reg.Manifest(ctx, a.repo.WithDigest(a.desc.Digest))
		if err != nil {
			return err
		}
		if err := l.manifest(ctx, reg, a.repo, a.desc.Digest, data); err != nil {
			return err
		}
	}
	if err := l.put(out.digest, out.data); err != nil {
		return err
	}
	desc := ocispecs.Descriptor{MediaType: out.mediaType, Digest: out.digest, Size: int64(len(out.data))}
	return l.name(desc, m.annotations.indexDescriptor, m.tags)
}

// manifest writes a manifest and the blobs that it names.
func (l layout) manifest(ctx context.Context, reg Reader, repo registry.Ref, d digest.Digest, data []byte) error {
	var manifest ocispecs.Manifest
	if err := json.Unmarshal(data, &manifest); err != nil {
		return fmt.Errorf("reading the manifest %s: %w", d, err)
	}
	for _, blob := range append([]ocispecs.Descriptor{manifest.Config}, manifest.Layers...) {
		// Windows base layers have URLs: their licence keeps them there.
		if len(blob.URLs) > 0 {
			continue
		}
		if err := l.blob(ctx, reg, repo, blob); err != nil {
			return err
		}
	}
	return l.put(d, data)
}

func (l layout) blob(ctx context.Context, reg Reader, repo registry.Ref, desc ocispecs.Descriptor) error {
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", desc.Digest, err)
	}
	if _, err := os.Stat(l.path(desc.Digest)); err == nil {
		return nil
	}
	r, err := reg.Blob(ctx, repo, desc)
	if err != nil {
		return err
	}
	return errors.Join(l.write(desc.Digest, r), r.Close())
}

func (l layout) path(d digest.Digest) string {
	return filepath.Join(l.dir, ocispecs.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

func (l layout) put(d digest.Digest, data []byte) error {
	return newfile.Put(l.path(d), data)
}

func (l layout) write(d digest.Digest, r io.Reader) error {
	return newfile.Write(l.path(d), func(w io.Writer) error {
		verifier := d.Verifier()
		if _, err := io.Copy(io.MultiWriter(w, verifier), r); err != nil {
			return fmt.Errorf("writing %s: %w", d, err)
		}
		if !verifier.Verified() {
			return fmt.Errorf("the content of %s has another digest", d)
		}
		return nil
	})
}

// name adds an entry for every tag to index.json, in the place of earlier ones
// of the same name.
func (l layout) name(desc ocispecs.Descriptor, annotations map[string]string, tags []registry.Ref) error {
	index := ocispecs.Index{MediaType: ocispecs.MediaTypeImageIndex}
	index.SchemaVersion = 2
	data, err := os.ReadFile(filepath.Join(l.dir, ocispecs.ImageIndexFile))
	if err == nil {
		err = json.Unmarshal(data, &index)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading what is there: %w", err)
	}
	var added []ocispecs.Descriptor
	for _, tag := range tags {
		d := desc
		d.Annotations = map[string]string{imageName: tag.String(), ocispecs.AnnotationRefName: tag.Tag}
		maps.Copy(d.Annotations, annotations)
		added = append(added, d)
	}
	if len(tags) == 0 {
		if len(annotations) > 0 {
			desc.Annotations = annotations
		}
		added = append(added, desc)
	}
	index.Manifests = slices.DeleteFunc(index.Manifests, func(old ocispecs.Descriptor) bool {
		return slices.ContainsFunc(added, func(d ocispecs.Descriptor) bool {
			name := d.Annotations[ocispecs.AnnotationRefName]
			return old.Annotations[ocispecs.AnnotationRefName] == name && (name != "" || old.Digest == d.Digest)
		})
	})
	index.Manifests = append(index.Manifests, added...)
	if err := l.json(ocispecs.ImageLayoutFile, ocispecs.ImageLayout{Version: ocispecs.ImageLayoutVersion}); err != nil {
		return err
	}
	return l.json(ocispecs.ImageIndexFile, index)
}

func (l layout) json(name string, v any) error {
	data, err := encode(v)
	if err != nil {
		return err
	}
	return newfile.Put(filepath.Join(l.dir, name), data)
}
