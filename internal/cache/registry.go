package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/registry"
)

// Client is what the cache needs of a registry.
type Client interface {
	Manifest(ctx context.Context, ref registry.Ref) (ocispecs.Descriptor, []byte, error)
	PushBlob(ctx context.Context, repo registry.Ref, desc ocispecs.Descriptor, content io.ReaderAt, progress func(int64)) error
	MountBlob(ctx context.Context, to, from registry.Ref, d digest.Digest) (bool, error)
	PushManifest(ctx context.Context, ref registry.Ref, mediaType string, data []byte) (ocispecs.Descriptor, error)
}

// Registry is a cache in a repository.
type Registry struct {
	Client Client
	Repo   registry.Ref
	// Prefix begins the tags of the entries; empty is none. It is for a
	// repository that has other tags as well.
	Prefix string
	// TTL is how long after its creation an entry counts; 0 means for ever.
	TTL time.Duration
	// Besides is a repository of the same registry that may have the layers
	// already; the zero value is none.
	Besides registry.Ref
	Now     func() time.Time
}

var _ Cache = (*Registry)(nil)

// Get implements Cache.
func (r *Registry) Get(ctx context.Context, key digest.Digest) (*Entry, error) {
	ref := r.Repo.WithTag(r.tag(key))
	desc, data, err := r.Client.Manifest(ctx, ref)
	if errors.Is(err, registry.ErrNotFound) {
		return nil, ErrMiss
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMiss, err)
	}
	if desc.Size > maxEntry {
		return nil, fmt.Errorf("%w: the entry %s cannot be used: it has %d bytes", ErrMiss, ref, desc.Size)
	}
	e, err := read(data, key, ref.String(), r.TTL, r.Now)
	if err != nil {
		return nil, err
	}
	e.Ref = r.Repo.Name()
	return e, nil
}

// Put implements Cache.
func (r *Registry) Put(ctx context.Context, keys []digest.Digest, e Entry, content io.ReaderAt) error {
	if err := r.putLayer(ctx, e.Layer, content); err != nil {
		return err
	}
	manifest, conf, err := encode(keys, e)
	if err != nil {
		return err
	}
	desc := ocispecs.Descriptor{MediaType: configType, Digest: digest.FromBytes(conf), Size: int64(len(conf))}
	if err := r.Client.PushBlob(ctx, r.Repo, desc, reader(conf), nil); err != nil {
		return err
	}
	for _, key := range keys {
		if _, err := r.Client.PushManifest(ctx, r.Repo.WithTag(r.tag(key)), ocispecs.MediaTypeImageManifest, manifest); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) putLayer(ctx context.Context, layer ocispecs.Descriptor, content io.ReaderAt) error {
	if r.Besides.Registry == r.Repo.Registry && r.Besides.Repository != r.Repo.Repository {
		if mounted, err := r.Client.MountBlob(ctx, r.Repo, r.Besides, layer.Digest); err == nil && mounted {
			return nil
		}
	}
	return r.Client.PushBlob(ctx, r.Repo, layer, content, nil)
}

// tag is a key as a tag, which may not hold a colon.
func (r *Registry) tag(key digest.Digest) string {
	if r.Prefix == "" {
		return key.Encoded()
	}
	return r.Prefix + "-" + key.Encoded()
}
