package engine

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/fileop"
	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// tree is a file tree as its layers, the lowest first.
type tree []*treeLayer

// treeLayer is one layer of a tree: of a base image or the cache, which is
// fetched when a step needs its files, or made by this build.
type treeLayer struct {
	base *baseLayer
	made rootfs.Layer
	// created is zero for layers of a base image, whose history has it.
	created time.Time

	// sending starts publishing, once, at the end of which sent is closed;
	// compressing makes blob, once, of which pending has what there is.
	sending, compressing sync.Once
	sent                 chan struct{}
	pending              *layer.Pending
	blob                 *layer.Blob
	err                  error

	// source makes the layer of a source that is no image; listing has the names of
	// its files, if nobody needed more at first.
	source  *source
	listing *buildcontext.Listing

	// sums are set for the files of a source. identifying makes id, their digest,
	// once.
	sums        *fileop.Sums
	identifying sync.Once
	id          digest.Digest
	idErr       error
}

// fresh reports whether a step of this build made a layer of t.
func (t tree) fresh() bool {
	return slices.ContainsFunc(t, func(l *treeLayer) bool { return l.base == nil && l.sums == nil })
}

// baseLayer is a layer in a registry.
type baseLayer struct {
	ref        string
	descriptor ocispecs.Descriptor
	diffID     digest.Digest
	// cached says that the layer is of the cache, not of an image.
	cached bool
}

func madeLayer(l rootfs.Layer, created time.Time) *treeLayer {
	return &treeLayer{made: l, created: created, sent: make(chan struct{}), pending: layer.NewPending()}
}

// layers brings all layers of a tree into the store, those of base images by
// unpacking them, concurrently.
func (b *build) layers(ctx context.Context, store rootfs.Store, t tree) ([]rootfs.Layer, error) {
	out := make([]rootfs.Layer, len(t))
	group, ctx := errgroup.WithContext(ctx)
	for i, l := range t {
		if l.base == nil && l.source == nil {
			out[i] = l.made
			continue
		}
		group.Go(func() (err error) {
			if l.source != nil {
				out[i], err = l.source.load()
				return err
			}
			unpacked, err := store.Base(ctx, l.base.diffID, func(ctx context.Context) (io.ReadCloser, error) {
				return b.openBase(ctx, l.base)
			})
			if err != nil {
				return l.base.ofCache(fmt.Errorf("unpacking layer %s of %s: %w", l.base.descriptor.Digest, l.base.ref, err))
			}
			out[i] = unpacked
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return out, nil
}

func (b *build) openBase(ctx context.Context, l *baseLayer) (io.ReadCloser, error) {
	compressed, err := b.Images.OpenLayer(ctx, l.ref, l.descriptor)
	if err != nil {
		return nil, err
	}
	return layer.Decompress(compressed)
}

// work opens a writable tree on top of t.
func (b *build) work(ctx context.Context, store rootfs.Store, t tree) (rootfs.Work, error) {
	parents, err := b.layers(ctx, store, t)
	if err != nil {
		return nil, err
	}
	return store.Work(ctx, parents)
}

// commit makes the changes of w the top layer of t, and that the tree of e.
func (b *build) commit(ctx context.Context, w rootfs.Work, t tree, e graph.Edge) (tree, error) {
	l, err := w.Commit(ctx, b.hints(e, t)...)
	if err != nil {
		return nil, fmt.Errorf("finding the changes: %w", err)
	}
	// The tree below belongs to other vertices, too.
	out := make(tree, 0, len(t)+1)
	return append(append(out, t...), madeLayer(l, b.Now())), nil
}
