// Package cache keeps layers of earlier builds in a registry: one manifest for
// each key, whose tag is the key.
//
// It must not know what a key is made of. An entry that is broken, foreign or
// too old is none.
package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/registry"
)

// Client is what the cache needs of a registry.
type Client interface {
	Manifest(ctx context.Context, ref registry.Ref) (ocispecs.Descriptor, []byte, error)
	Blob(ctx context.Context, repo registry.Ref, desc ocispecs.Descriptor) (io.ReadCloser, error)
	PushBlob(ctx context.Context, repo registry.Ref, desc ocispecs.Descriptor, content io.ReaderAt, progress func(int64)) error
	PushManifest(ctx context.Context, ref registry.Ref, mediaType string, data []byte) (ocispecs.Descriptor, error)
}

// Entry is one layer.
type Entry struct {
	Layer   ocispecs.Descriptor
	DiffID  digest.Digest
	Created time.Time
}

// Registry is a cache in a repository.
type Registry struct {
	Client Client
	Repo   registry.Ref
	// TTL is how long after its creation an entry counts; 0 means for ever.
	TTL time.Duration
	// ReadOnly keeps Put from writing.
	ReadOnly bool
	Now      func() time.Time
}

const (
	artifactType = "application/vnd.kaniko-multiarch.cache.v1"
	configType   = "application/vnd.kaniko-multiarch.cache.config.v1+json"
	// maxConfig bounds what a foreign entry can make us read, in bytes.
	maxConfig = 1 << 20
)

// config is the blob that describes an entry.
type config struct {
	Key     digest.Digest `json:"key"`
	DiffID  digest.Digest `json:"diffID"`
	Created time.Time     `json:"created"`
}

// ErrMiss says that there is no usable entry for a key.
var ErrMiss = errors.New("not in the cache")

// Name is a full reference of the repository.
func (r *Registry) Name() string { return r.Repo.Name() }

// Get returns the entry of key. The error is ErrMiss, or wraps it with the
// reason why an entry that exists cannot be used.
func (r *Registry) Get(ctx context.Context, key digest.Digest) (*Entry, error) {
	_, data, err := r.Client.Manifest(ctx, r.Repo.WithTag(tag(key)))
	if errors.Is(err, registry.ErrNotFound) {
		return nil, ErrMiss
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMiss, err)
	}
	var m ocispecs.Manifest
	if err := json.Unmarshal(data, &m); err != nil || m.Config.MediaType != configType || len(m.Layers) != 1 || m.Config.Size > maxConfig {
		return nil, fmt.Errorf("%w: %s:%s is no cache entry of this version", ErrMiss, r.Name(), tag(key))
	}
	blob, err := r.Client.Blob(ctx, r.Repo, m.Config)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMiss, err)
	}
	defer blob.Close()
	var c config
	if err := json.NewDecoder(blob).Decode(&c); err != nil || c.Key != key || c.DiffID.Validate() != nil {
		return nil, fmt.Errorf("%w: the entry %s:%s does not describe itself", ErrMiss, r.Name(), tag(key))
	}
	if r.TTL > 0 && r.Now().Sub(c.Created) > r.TTL {
		return nil, ErrMiss
	}
	return &Entry{Layer: m.Layers[0], DiffID: c.DiffID, Created: c.Created}, nil
}

// Put stores a layer under key.
func (r *Registry) Put(ctx context.Context, key digest.Digest, e Entry, content io.ReaderAt) error {
	if r.ReadOnly {
		return nil
	}
	if err := r.Client.PushBlob(ctx, r.Repo, e.Layer, content, nil); err != nil {
		return err
	}
	data, err := json.Marshal(config{Key: key, DiffID: e.DiffID, Created: e.Created.UTC()})
	if err != nil {
		return err
	}
	c := ocispecs.Descriptor{MediaType: configType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := r.Client.PushBlob(ctx, r.Repo, c, bytes.NewReader(data), nil); err != nil {
		return err
	}
	m, err := json.Marshal(ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest,
		ArtifactType: artifactType, Config: c, Layers: []ocispecs.Descriptor{e.Layer},
	})
	if err != nil {
		return err
	}
	_, err = r.Client.PushManifest(ctx, r.Repo.WithTag(tag(key)), ocispecs.MediaTypeImageManifest, m)
	return err
}

// tag is a key as a tag, which may not hold a colon.
func tag(key digest.Digest) string { return key.Encoded() }
