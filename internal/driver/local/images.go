package local

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/frontend"
	"github.com/org/kaniko-multiarch/internal/ocilayout"
	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// baseImages asks the registry about each base image once, for the front end
// and the engine.
type baseImages struct {
	client *registry.Client
	// layouts are OCI layouts by the name that references have for them.
	layouts map[string]*ocilayout.Layout

	mu    sync.Mutex
	known map[imageKey]*imageEntry
}

func newBaseImages(client *registry.Client) *baseImages {
	return &baseImages{client: client, known: map[imageKey]*imageEntry{}}
}

type imageKey struct{ ref, platform string }

type imageEntry struct {
	once  sync.Once
	image *registry.Image
	err   error
}

var (
	_ frontend.Images = (*baseImages)(nil)
	_ engine.Images   = (*baseImages)(nil)
)

func (b *baseImages) get(ctx context.Context, name string, p ocispecs.Platform) (*registry.Image, error) {
	if inLayout(name) {
		return b.fromLayout(ctx, name, p)
	}
	ref, err := registry.ParseRef(name)
	if err != nil {
		return nil, err
	}
	if ref.Digest != "" {
		// What the front end resolved comes back with tag and digest.
		ref.Tag = ""
	}
	b.mu.Lock()
	key := imageKey{ref.String(), platform.Format(p)}
	e, ok := b.known[key]
	if !ok {
		e = &imageEntry{}
		b.known[key] = e
	}
	b.mu.Unlock()
	e.once.Do(func() {
		if e.image, e.err = b.client.Image(ctx, ref.DefaultTag(), p); e.err != nil {
			e.err = fmt.Errorf("base image %s: %w", name, e.err)
			return
		}
		b.remember(imageKey{ref.WithDigest(e.image.Root).String(), key.platform}, e)
	})
	return e.image, e.err
}

// remember lets the same image be found by its digest.
func (b *baseImages) remember(key imageKey, e *imageEntry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.known[key]; !ok {
		b.known[key] = &imageEntry{image: e.image}
		b.known[key].once.Do(func() {})
	}
}

func (b *baseImages) ImageConfig(ctx context.Context, ref string, p ocispecs.Platform) (digest.Digest, []byte, error) {
	img, err := b.get(ctx, ref, p)
	if err != nil {
		return "", nil, err
	}
	return img.Root, img.Config, nil
}

func (b *baseImages) BaseImage(ctx context.Context, ref string, p ocispecs.Platform) (*engine.BaseImage, error) {
	img, err := b.get(ctx, ref, p)
	if err != nil {
		return nil, err
	}
	var config ocispecs.Image
	if err := json.Unmarshal(img.Config, &config); err != nil {
		return nil, fmt.Errorf("reading the config of %s: %w", ref, err)
	}
	return &engine.BaseImage{Layers: img.Manifest.Layers, DiffIDs: config.RootFS.DiffIDs}, nil
}

func (b *baseImages) OpenLayer(ctx context.Context, ref string, layer ocispecs.Descriptor) (io.ReadCloser, error) {
	if inLayout(ref) {
		l, _, err := b.layout(ref)
		if err != nil {
			return nil, err
		}
		return l.Blob(layer)
	}
	repo, err := registry.ParseRef(ref)
	if err != nil {
		return nil, err
	}
	return b.client.Blob(ctx, repo, layer)
}
