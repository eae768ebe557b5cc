package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"slices"

	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Blob is a blob to be stored.
type Blob struct {
	ocispecs.Descriptor
	Content io.ReaderAt
}

// PushArtifact stores what is no image: blobs in the order that is given, in a
// manifest with the empty config. ref is as in PushManifest. OCI image
// specification 1.1, "Guidelines for Artifact Usage".
func (c *Client) PushArtifact(ctx context.Context, ref Ref, artifactType string, blobs ...Blob) (ocispecs.Descriptor, error) {
	empty := ocispecs.DescriptorEmptyJSON
	m := ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: ocispecs.Descriptor{MediaType: empty.MediaType, Digest: empty.Digest, Size: empty.Size},
	}
	for _, b := range append(slices.Clip(blobs), Blob{empty, bytes.NewReader(empty.Data)}) {
		if err := c.PushBlob(ctx, ref, b.Descriptor, b.Content, nil); err != nil {
			return ocispecs.Descriptor{}, err
		}
	}
	for _, b := range blobs {
		m.Layers = append(m.Layers, b.Descriptor)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	return c.PushManifest(ctx, ref, m.MediaType, data)
}
