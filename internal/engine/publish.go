package engine

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

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

// sendMade compresses and publishes a layer of this build. While it is made, as
// much of it is sent as there is.
func (b *build) sendMade(ctx context.Context, l *treeLayer) error {
	defer close(l.sent)
	var head errgroup.Group
	head.Go(func() error { return b.fail(b.stream(ctx, l)) })
	blob, err := b.compressed(ctx, l)
	if err != nil {
		// The stream breaks off for that reason.
		_ = b.fail(err)
	}
	if err := errors.Join(head.Wait(), err); err != nil {
		return err
	}
	if b.Publisher == nil {
		return nil
	}
	if err := b.Publisher.Layer(ctx, blob.Descriptor, blob, b.reportLayer(l)); err != nil {
		return fmt.Errorf("publishing layer %s: %w", blob.Descriptor.Digest, err)
	}
	return nil
}

// streamFrom is what a compressed layer has at least, in bytes, that is sent
// before it is complete. Of a smaller one the registry is asked first whether it
// has it.
const streamFrom = 4 << 20

// stream sends a layer that is still being made. One whose times have a limit
// may be the same as in an earlier build: it is not sent before that is known.
func (b *build) stream(ctx context.Context, l *treeLayer) error {
	to, ok := b.Publisher.(Streamer)
	if !ok || b.RewriteTimes {
		return nil
	}
	large, err := l.pending.Reach(ctx, streamFrom)
	if err != nil || !large || l.pending.Blob() != nil {
		return nil // whoever makes it knows the error
	}
	if err := to.Stream(ctx, l.pending, b.reportLayer(l)); err != nil {
		return fmt.Errorf("publishing a layer: %w", err)
	}
	return nil
}

// reportLayer shows how much of a layer was sent, once its size is known.
func (b *build) reportLayer(l *treeLayer) func(int64) {
	last := int64(-1)
	return func(sent int64) {
		blob := l.pending.Blob()
		if blob == nil || sent == last {
			return
		}
		last = sent
		d := blob.Descriptor
		b.Progress.Status(exportID, "pushing "+d.Digest.Encoded()[:12], sent, d.Size, sent == d.Size)
	}
}

// compressed returns the blob of a layer, which is made by the first caller.
func (b *build) compressed(ctx context.Context, l *treeLayer) (*layer.Blob, error) {
	l.compressing.Do(func() {
		if l.blob, l.err = b.compress(ctx, l); l.err != nil {
			l.err = fmt.Errorf("compressing a layer: %w", l.err)
			return
		}
		b.mu.Lock()
		b.spool = append(b.spool, l.blob.Close)
		b.mu.Unlock()
		if b.ran.Load() {
			b.spare(b.unwritten())
		}
	})
	return l.blob, l.err
}

func (b *build) compress(ctx context.Context, l *treeLayer) (*layer.Blob, error) {
	if err := b.cores.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	defer b.cores.Release(1)
	opts := rootfs.TarOptions{}
	if b.RewriteTimes {
		opts.MaxTime = b.Epoch
	}
	return b.Compression.Fill(ctx, l.pending, b.SpoolDir, func(w io.Writer) error { return l.made.WriteTar(ctx, w, opts) })
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
