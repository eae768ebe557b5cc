// Package cache keeps layers of earlier builds by keys: in a registry, where
// each key is the tag of a manifest, or in a directory. The entries of both are
// the same bytes.
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
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Entry is one layer.
type Entry struct {
	Layer  ocispecs.Descriptor
	DiffID digest.Digest
	// Inputs identify what the layer was made of. What they mean, and when they
	// are empty, is the caller's affair.
	Inputs  []digest.Digest
	Created time.Time
	// Ref is where the layer can be read, set by Get.
	Ref string
}

// Cache finds and keeps entries. It is safe for concurrent use.
type Cache interface {
	// Get returns the entry of key. The error is ErrMiss, or wraps it with the
	// reason why an entry that exists cannot be used.
	Get(ctx context.Context, key digest.Digest) (*Entry, error)
	// Put stores a layer under keys.
	Put(ctx context.Context, keys []digest.Digest, e Entry, content io.ReaderAt) error
}

// ErrMiss says that there is no usable entry for a key.
var ErrMiss = errors.New("not in the cache")

const (
	artifactType = "application/vnd.kaniko-multiarch.cache.v2"
	configType   = "application/vnd.kaniko-multiarch.cache.config.v2+json"
	// maxEntry bounds what a foreign entry can make us read, in bytes.
	maxEntry = 1 << 20
)

// config is the blob that describes an entry. It is in the manifest as well, so
// that one request is enough.
type config struct {
	Keys    []digest.Digest `json:"keys"`
	DiffID  digest.Digest   `json:"diffID"`
	Inputs  []digest.Digest `json:"inputs,omitempty"`
	Created time.Time       `json:"created"`
}

// encode makes an entry's manifest and config.
func encode(keys []digest.Digest, e Entry) (manifest, conf []byte, err error) {
	if conf, err = json.Marshal(config{Keys: keys, DiffID: e.DiffID, Inputs: e.Inputs, Created: e.Created.UTC()}); err != nil {
		return nil, nil, err
	}
	manifest, err = json.Marshal(ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: ocispecs.Descriptor{MediaType: configType, Digest: digest.FromBytes(conf), Size: int64(len(conf)), Data: conf},
		Layers: []ocispecs.Descriptor{e.Layer},
	})
	return manifest, conf, err
}

// decode reads the manifest of an entry, which must be one for key.
func decode(data []byte, key digest.Digest) (*Entry, error) {
	var m ocispecs.Manifest
	if err := json.Unmarshal(data, &m); err != nil || m.Config.MediaType != configType || len(m.Layers) != 1 {
		return nil, errors.New("it is no cache entry of this version")
	}
	if digest.FromBytes(m.Config.Data) != m.Config.Digest {
		return nil, errors.New("its description is damaged")
	}
	var c config
	if err := json.Unmarshal(m.Config.Data, &c); err != nil {
		return nil, errors.New("its description is damaged")
	}
	if !slices.Contains(c.Keys, key) {
		return nil, errors.New("it is the entry of another key")
	}
	l := m.Layers[0]
	if l.Digest.Validate() != nil || l.Size <= 0 || c.DiffID.Validate() != nil || !slices.Contains(layerTypes, l.MediaType) {
		return nil, errors.New("it describes no layer")
	}
	// Nothing else of a foreign descriptor gets into an image.
	l = ocispecs.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size}
	return &Entry{Layer: l, DiffID: c.DiffID, Inputs: c.Inputs, Created: c.Created}, nil
}

var layerTypes = []string{ocispecs.MediaTypeImageLayer, ocispecs.MediaTypeImageLayerGzip, ocispecs.MediaTypeImageLayerZstd}

// fresh says that an entry is not too old: that ttl is 0 or has not passed. One
// of the future has no age that could be trusted.
func (e *Entry) fresh(ttl time.Duration, now func() time.Time) bool {
	return ttl <= 0 || now().Sub(e.Created).Abs() <= ttl
}

// read is what Get does with a manifest.
func read(data []byte, key digest.Digest, name string, ttl time.Duration, now func() time.Time) (*Entry, error) {
	e, err := decode(data, key)
	if err != nil {
		return nil, fmt.Errorf("%w: the entry %s cannot be used: %w", ErrMiss, name, err)
	}
	if !e.fresh(ttl, now) {
		return nil, ErrMiss
	}
	return e, nil
}

// Several looks in the caches From, the first one first, and writes to those of
// To.
type Several struct{ From, To []Cache }

var _ Cache = (*Several)(nil)

// Get asks all caches at once: of an entry that several have, the first counts.
func (s *Several) Get(ctx context.Context, key digest.Digest) (*Entry, error) {
	type answer struct {
		entry *Entry
		err   error
	}
	answers := make([]chan answer, len(s.From))
	for i, c := range s.From {
		answers[i] = make(chan answer, 1)
		go func() {
			e, err := c.Get(ctx, key)
			answers[i] <- answer{e, err}
		}()
	}
	miss := ErrMiss
	for _, ch := range answers {
		a := <-ch
		if a.err == nil {
			return a.entry, nil
		}
		if !errors.Is(a.err, ErrMiss) {
			return nil, a.err
		}
		if miss == ErrMiss {
			miss = a.err
		}
	}
	return nil, miss
}

// Put writes to all caches, one after the other; one that fails does not keep
// the others from it.
func (s *Several) Put(ctx context.Context, keys []digest.Digest, e Entry, content io.ReaderAt) error {
	var errs []error
	for _, c := range s.To {
		errs = append(errs, c.Put(ctx, keys, e, content))
	}
	return errors.Join(errs...)
}

func reader(data []byte) io.ReaderAt { return bytes.NewReader(data) }
