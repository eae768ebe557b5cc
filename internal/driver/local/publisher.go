package local

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// publisher sends layers and images to one repository.
type publisher struct {
	client *registry.Client
	bases  *baseImages
	to     registry.Ref
	spool  string
	mu     sync.Mutex
	blobs  map[digest.Digest]*blobEntry
}

type blobEntry struct {
	once sync.Once
	err  error
}

var (
	_ engine.Publisher = (*publisher)(nil)
	_ engine.Streamer  = (*publisher)(nil)
)

func newPublisher(client *registry.Client, to registry.Ref, spool string, bases *baseImages) *publisher {
	return &publisher{client: client, bases: bases, to: to, spool: spool, blobs: map[digest.Digest]*blobEntry{}}
}

// once makes sure that a blob is sent by one caller; the others wait for it.
func (p *publisher) once(d digest.Digest, send func() error) error {
	p.mu.Lock()
	e, ok := p.blobs[d]
	if !ok {
		e = &blobEntry{}
		p.blobs[d] = e
	}
	p.mu.Unlock()
	e.once.Do(func() { e.err = send() })
	return e.err
}

func (p *publisher) BaseLayer(ctx context.Context, from string, layer ocispecs.Descriptor) error {
	var source registry.Ref
	if !inLayout(from) {
		var err error
		if source, err = registry.ParseRef(from); err != nil {
			return err
		}
	}
	return p.once(layer.Digest, func() error {
		// One request, whether the blob is there already or not.
		if source.Registry == p.to.Registry && source.Repository != p.to.Repository {
			if mounted, err := p.client.MountBlob(ctx, p.to, source, layer.Digest); err != nil || mounted {
				return err
			}
		}
		if there, err := p.client.HasBlob(ctx, p.to, layer.Digest); err != nil || there {
			return err
		}
		return p.copyBlob(ctx, from, layer)
	})
}

// copyBlob goes through a file: an upload that breaks off needs the bytes
// again.
func (p *publisher) copyBlob(ctx context.Context, from string, layer ocispecs.Descriptor) error {
	blob, err := p.bases.OpenLayer(ctx, from, layer)
	if err != nil {
		return &engine.UnreadableError{Err: err}
	}
	defer blob.Close()
	f, err := os.CreateTemp(p.spool, "base-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := io.Copy(f, blob); err != nil {
		return &engine.UnreadableError{Err: err}
	}
	return p.client.PushBlob(ctx, p.to, layer, f, nil)
}

func (p *publisher) Layer(ctx context.Context, layer ocispecs.Descriptor, content io.ReaderAt, report func(int64)) error {
	return p.once(layer.Digest, func() error { return p.client.PushBlob(ctx, p.to, layer, content, report) })
}

// Stream implements engine.Streamer.
func (p *publisher) Stream(ctx context.Context, l *layer.Pending, report func(int64)) error {
	desc, err := p.client.StreamBlob(ctx, p.to, l, report)
	if err != nil {
		return err
	}
	return p.once(desc.Digest, func() error { return nil })
}

func (p *publisher) Image(ctx context.Context, img *engine.Image) error {
	if err := p.client.PushBlob(ctx, p.to, img.ConfigDescriptor, bytes.NewReader(img.Config), nil); err != nil {
		return err
	}
	desc, err := p.client.PushManifest(ctx, p.to.WithTag("").WithDigest(img.Descriptor.Digest), img.Descriptor.MediaType, img.Manifest)
	if err != nil {
		return err
	}
	if desc.Digest != img.Descriptor.Digest {
		return fmt.Errorf("%s answered with digest %s for manifest %s", p.to.Registry, desc.Digest, img.Descriptor.Digest)
	}
	return nil
}
