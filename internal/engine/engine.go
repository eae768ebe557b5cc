// Package engine walks a graph: it runs every vertex that the images need, once
// each and in parallel where their inputs allow, and makes the images of the
// results. Layers are compressed and handed on while later vertices run.
//
// It must not know where trees live (rootfs), how a process is isolated
// (sandbox), or how a registry speaks: all of that comes in through interfaces.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/cache"
	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/progress"
	"github.com/org/kaniko-multiarch/internal/rootfs"
	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// Engine builds graphs. Its fields must be set before Build.
type Engine struct {
	Store rootfs.Store
	// Plain, a rootfs.Parter, is for images that nothing runs on, if that is not
	// Store.
	Plain   rootfs.Store
	Sandbox sandbox.Runner
	Images  Images
	// Contexts are the directories that local sources name.
	Contexts map[string]Context
	// Publisher gets layers and images; nil keeps them here.
	Publisher Publisher
	// Files gets the file trees of the images; nil means that nobody wants them.
	Files Files
	// Cache has layers of earlier builds; nil means none.
	Cache Cache
	// CacheReadOnly says that nothing of this build is to be kept there.
	CacheReadOnly bool

	Progress progress.Reporter
	Download Downloader
	Git      Git
	// Secrets are the values of the secrets by their ID.
	Secrets map[string][]byte
	// Agents are the SSH agents of the build; nil means none.
	Agents Agents
	// Compression is for the layers of this build.
	Compression layer.Compression
	// SpoolDir keeps compressed layers until the build ends.
	SpoolDir string
	// Parallel limits the vertices that run at once; 0 means a default.
	Parallel int
	// Annotations are those of the manifest for p; nil means none.
	Annotations func(p ocispecs.Platform) map[string]string
	// Epoch, in seconds since 1970, limits the times in image configs; nil
	// leaves them.
	Epoch *int64
	// RewriteTimes limits the times in our layers to Epoch as well.
	RewriteTimes bool
	// Now is the clock.
	Now func() time.Time
}

// Images reads base images.
type Images interface {
	// BaseImage returns the image that ref, which has a digest, names for p.
	BaseImage(ctx context.Context, ref string, p ocispecs.Platform) (*BaseImage, error)
	// OpenLayer returns the compressed bytes of a layer, verified as they are
	// read.
	OpenLayer(ctx context.Context, ref string, layer ocispecs.Descriptor) (io.ReadCloser, error)
}

// BaseImage is what an image source stands for.
type BaseImage struct {
	Layers  []ocispecs.Descriptor
	DiffIDs []digest.Digest
}

// Context is a directory that a local source names.
type Context interface {
	// Materialize copies the selected files into the empty directory dst, owned
	// by root.
	Materialize(ctx context.Context, dst string, files buildcontext.Selection) error
	// List lists what Materialize would copy, while the build works in dir; nil
	// is what only a copy can tell.
	List(ctx context.Context, dir string, files buildcontext.Selection) (*buildcontext.Listing, error)
}

// Downloader fetches URLs.
type Downloader interface {
	// Download writes what is at url to the empty file f and tells report the
	// bytes received so far and in all (0: unknown). It returns the server's
	// Content-Disposition and Last-Modified, each of which may be zero.
	Download(ctx context.Context, url string, f *os.File, report func(received, total int64)) (disposition string, modified time.Time, err error)
}

// Git reads repositories.
type Git interface {
	// Checkout writes the files of s to the empty directory dir.
	Checkout(ctx context.Context, s *graph.GitSource, dir string) error
}

// Agents serve SSH agents.
type Agents interface {
	Has(id string) bool
	// Serve answers for an agent at a new socket in the directory dir until stop
	// is called.
	Serve(id, dir string) (socket string, stop func() error, err error)
}

// Cache finds and keeps layers by the keys of the vertex that made them. It is
// safe for concurrent use.
type Cache interface {
	// Get returns the entry of key. The error is cache.ErrMiss, or wraps it with
	// what is wrong with the entry.
	Get(ctx context.Context, key digest.Digest) (*cache.Entry, error)
	Put(ctx context.Context, keys []digest.Digest, e cache.Entry, content io.ReaderAt) error
	// Carry takes an entry that Get found along to where it is to be as well;
	// content is called when that takes the layer.
	Carry(ctx context.Context, key digest.Digest, e cache.Entry, content func() (io.ReaderAt, error)) error
}

// Publisher is where an image goes. It is safe for concurrent use, and may be
// given one layer several times.
type Publisher interface {
	// BaseLayer makes a layer of the image ref available to the image. The error
	// is an *UnreadableError when it is ref that does not have the layer.
	BaseLayer(ctx context.Context, ref string, layer ocispecs.Descriptor) error
	// Layer takes a layer of this build; report is told the bytes sent.
	Layer(ctx context.Context, layer ocispecs.Descriptor, content io.ReaderAt, report func(int64)) error
	// Image takes a config and a manifest whose layers are all there.
	Image(ctx context.Context, img *Image) error
}

// Streamer is a Publisher that can take a layer while it is made.
type Streamer interface {
	// Stream does what it can do before the layer is complete. Layer is called
	// for it afterwards nevertheless.
	Stream(ctx context.Context, layer *layer.Pending, report func(int64)) error
}

// UnreadableError is a layer that cannot be read from where it should be.
type UnreadableError struct{ Err error }

func (e *UnreadableError) Error() string { return e.Err.Error() }
func (e *UnreadableError) Unwrap() error { return e.Err }

// Image is a finished image.
type Image struct {
	Platform ocispecs.Platform
	// Descriptor is the manifest's.
	Descriptor       ocispecs.Descriptor
	Manifest, Config []byte
	ConfigDescriptor ocispecs.Descriptor
	// Reused and Built count the layers, Cached those of Reused that are not the
	// base image's.
	Reused, Built, Cached int
	// Size is the sum of the compressed sizes of the layers, in bytes.
	Size int64
	// Time is what the vertices of this image took, in sum of their own times.
	Time time.Duration
}

// StepError is the failure of one vertex.
type StepError struct {
	Name     string
	Location graph.Location
	Err      error
}

func (e *StepError) Error() string {
	if e.Location.Start == 0 {
		return fmt.Sprintf("%s: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("%s:%d: %s: %v", e.Location.File, e.Location.Start, e.Name, e.Err)
}

func (e *StepError) Unwrap() error { return e.Err }

// SourceError is something that a Dockerfile names and that is not there, or is
// not what it should be.
type SourceError struct{ Err error }

func (e *SourceError) Error() string { return e.Err.Error() }
func (e *SourceError) Unwrap() error { return e.Err }

// Build runs the graph and returns its images in the graph's order. An error of
// a vertex is a *StepError.
func (e *Engine) Build(ctx context.Context, g *graph.Graph) ([]*Image, error) {
	broken, keep := map[digest.Digest]bool{}, false
	for {
		images, err := e.build(ctx, g, broken, keep)
		if _, lost := errors.AsType[*rootfs.LostError](err); lost && !keep && ctx.Err() == nil {
			keep = true
			e.Progress.Warn(progress.Warning{Text: fmt.Sprintf("the build starts again, and keeps what it threw away: %v", err)})
			continue
		}
		layer, ok := brokenLayer(ctx, err, broken)
		if !ok {
			return images, err
		}
		broken[layer] = true
		e.Progress.Warn(progress.Warning{Text: fmt.Sprintf("the cache is broken, the build starts again without this layer: %v", err)})
	}
}

// build is one try to build, without the given layers of the cache. With keep it
// can make all trees again.
func (e *Engine) build(ctx context.Context, g *graph.Graph, broken map[digest.Digest]bool, keep bool) ([]*Image, error) {
	b := newBuild(e, g)
	b.broken, b.keepAll = broken, keep
	defer b.close()
	if err := b.run(ctx); err != nil {
		return nil, err
	}
	return b.images, nil
}

func (e *Engine) parallel() int {
	if e.Parallel > 0 {
		return e.Parallel
	}
	// Steps that wait for the network are common, so a small machine still
	// gains from a few at once.
	return max(4, runtime.NumCPU())
}
