package engine

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// send starts compressing and publishing the layers of t that are not on their
// way yet. Errors come out of b.background.
func (b *build) send(ctx context.Context, t tree) {
	if len(t) > 0 {
		b.startExport()
	}
	for _, l := range t {
		l.sending.Do(func() {
			b.background.Go(func() error {
				if l.base != nil {
					return b.fail(b.sendBase(ctx, l.base))
				}
				return b.fail(b.sendMade(ctx, l))
			})
		})
	}
}

func (b *build) sendBase(ctx context.Context, l *baseLayer) error {
	if b.Publisher == nil {
		return nil
	}
	if err := b.Publisher.BaseLayer(ctx, l.ref, l.descriptor); err != nil {
		err = fmt.Errorf("publishing layer %s of %s: %w", l.descriptor.Digest, l.ref, err)
		if _, ok := errors.AsType[*UnreadableError](err); ok {
			return l.ofCache(err)
		}
		return err
	}
	return nil
}

func (b *build) sendMade(ctx context.Context, l *treeLayer) error {
	blob, err := b.compressed(ctx, l)
	if err != nil {
		return err
	}
	if b.Publisher == nil {
		return nil
	}
	desc := blob.Descriptor
	last := int64(-1)
	report := func(sent int64) {
		if sent != last {
			b.Progress.Status(exportID, "pushing "+desc.Digest.Encoded()[:12], sent, desc.Size, sent == desc.Size)
		}
		last = sent
	}
	if err := b.Publisher.Layer(ctx, desc, blob, report); err != nil {
		return fmt.Errorf("publishing layer %s: %w", desc.Digest, err)
	}
	return nil
}

// compressed returns the blob of a layer, which is made by the first caller.
func (b *build) compressed(ctx context.Context, l *treeLayer) (*layer.Blob, error) {
	l.compressing.Do(func() {
		if l.blob, l.err = b.compress(ctx, l.made); l.err != nil {
			l.err = fmt.Errorf("compressing a layer: %w", l.err)
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.spool = append(b.spool, l.blob.Close)
	})
	return l.blob, l.err
}

func (b *build) compress(ctx context.Context, l rootfs.Layer) (*layer.Blob, error) {
	if err := b.cores.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	defer b.cores.Release(1)
	opts := rootfs.TarOptions{}
	if b.RewriteTimes {
		opts.MaxTime = b.Epoch
	}
	return b.Compression.Compress(ctx, b.SpoolDir, func(w io.Writer) error { return l.WriteTar(ctx, w, opts) })
}

// describe is what a manifest says about a layer.
func (l *treeLayer) describe() (ocispecs.Descriptor, digest.Digest) {
	if l.base == nil {
		return l.blob.Descriptor, l.blob.DiffID
	}
	d := l.base.descriptor
	return ocispecs.Descriptor{MediaType: ociLayerType(d.MediaType), Digest: d.Digest, Size: d.Size}, l.base.diffID
}

// ociLayerType is the OCI name of a layer type: the bytes of Docker's are the
// same.
func ociLayerType(mediaType string) string {
	switch mediaType {
	case "application/vnd.docker.image.rootfs.diff.tar.gzip":
		return ocispecs.MediaTypeImageLayerGzip
	case "application/vnd.docker.image.rootfs.diff.tar.zstd":
		return ocispecs.MediaTypeImageLayerZstd
	case "application/vnd.docker.image.rootfs.diff.tar":
		return ocispecs.MediaTypeImageLayer
	}
	return mediaType
}
