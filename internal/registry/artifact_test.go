package registry

import (
	"bytes"
	"encoding/json"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
)

// All that the manifest names is there, and is asked for once.
func TestPushArtifact(t *testing.T) {
	t.Parallel()
	rec := &recorder{next: inMemory()}
	repo := serve(t, rec)
	c := newClient(t, Options{})
	var blobs []Blob
	for _, size := range []int{5, 3} {
		data, desc := blobOf(size)
		blobs = append(blobs, Blob{desc, bytes.NewReader(data)})
	}
	push := func() ocispecs.Manifest {
		desc, err := c.PushArtifact(t.Context(), repo.WithTag("1"), "application/x", blobs...)
		assert.NilError(t, err)
		found, data, err := c.Manifest(t.Context(), repo.WithTag("1"))
		assert.NilError(t, err)
		assert.Equal(t, found.Digest, desc.Digest)
		var m ocispecs.Manifest
		assert.NilError(t, json.Unmarshal(data, &m))
		return m
	}
	m := push()
	assert.Equal(t, m.ArtifactType, "application/x")
	assert.DeepEqual(t, m.Layers, []ocispecs.Descriptor{blobs[0].Descriptor, blobs[1].Descriptor})
	asked := rec.count("HEAD", "/blobs/")
	push()
	assert.Equal(t, rec.count("HEAD", "/blobs/"), asked+3)
	for _, d := range append(m.Layers, m.Config) {
		there, err := c.HasBlob(t.Context(), repo, d.Digest)
		assert.NilError(t, err)
		assert.Check(t, there, d.MediaType)
	}
}
