package cache

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/registry"
)

func newCache(t *testing.T) *Registry {
	t.Helper()
	s := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	client, err := registry.New(registry.Options{Retry: registry.Retry{Count: -1}})
	assert.NilError(t, err)
	repo, err := registry.ParseRef(strings.TrimPrefix(s.URL, "http://") + "/app/cache")
	assert.NilError(t, err)
	return &Registry{Client: client, Repo: repo, Now: func() time.Time { return time.Unix(1000, 0) }}
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	c := newCache(t)
	layer := []byte("the bytes of a layer")
	key := digest.FromString("key")
	want := Entry{
		Layer:   ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: digest.FromBytes(layer), Size: int64(len(layer))},
		DiffID:  digest.FromString("diff"),
		Created: time.Unix(900, 5).UTC(),
	}
	_, err := c.Get(t.Context(), key)
	assert.Check(t, err == ErrMiss, "%v", err)
	assert.NilError(t, c.Put(t.Context(), key, want, bytes.NewReader(layer)))
	got, err := c.Get(t.Context(), key)
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(*got, want))

	c.TTL = 99 * time.Second
	_, err = c.Get(t.Context(), key)
	assert.Check(t, err == ErrMiss, "expired: %v", err)
	c.TTL = 101 * time.Second
	_, err = c.Get(t.Context(), key)
	assert.NilError(t, err)

	c.ReadOnly = true
	other := digest.FromString("other")
	assert.NilError(t, c.Put(t.Context(), other, want, bytes.NewReader(layer)))
	_, err = c.Get(t.Context(), other)
	assert.Check(t, err == ErrMiss, "it was written: %v", err)
}

// An entry that is not what it should be is a miss with a reason, never a layer.
func TestRegistry_foreign_entries(t *testing.T) {
	t.Parallel()
	c := newCache(t)
	key, other := digest.FromString("key"), digest.FromString("other")
	layer := []byte("layer")
	e := Entry{Layer: ocispecs.Descriptor{MediaType: "x", Digest: digest.FromBytes(layer), Size: int64(len(layer))}, DiffID: key}
	assert.NilError(t, c.Put(t.Context(), other, e, bytes.NewReader(layer)))
	_, data, err := c.Client.Manifest(t.Context(), c.Repo.WithTag(tag(other)))
	assert.NilError(t, err)
	for name, manifest := range map[string][]byte{
		"of_another_key":  data,
		"an_image":        []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + e.Layer.Digest.String() + `","size":5},"layers":[]}`),
		"config_too_long": bytes.Replace(data, []byte(`"size":`), []byte(`"size":99999999`), 1),
	} {
		_, err := c.Client.PushManifest(t.Context(), c.Repo.WithTag(tag(key)), ocispecs.MediaTypeImageManifest, manifest)
		assert.NilError(t, err, name)
		_, err = c.Get(t.Context(), key)
		assert.Check(t, errors.Is(err, ErrMiss) && err != ErrMiss, "%s: %v", name, err)
	}
}
