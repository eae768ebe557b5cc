package registry

import (
	"context"
	// go-digest only knows the algorithms that are linked in.
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types; those of OCI are in image-spec. Docker image manifest
// version 2, schema 2.
const (
	MediaTypeDockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerConfig       = "application/vnd.docker.container.image.v1+json"
)

// manifestTypes are what we read, the newest first.
var manifestTypes = []string{
	ocispecs.MediaTypeImageIndex, ocispecs.MediaTypeImageManifest,
	MediaTypeDockerManifestList, MediaTypeDockerManifest,
}

// IsIndex reports whether a media type is a list of manifests.
func IsIndex(mediaType string) bool {
	return mediaType == ocispecs.MediaTypeImageIndex || mediaType == MediaTypeDockerManifestList
}

func isManifest(mediaType string) bool {
	return mediaType == ocispecs.MediaTypeImageManifest || mediaType == MediaTypeDockerManifest
}

// Head describes what a reference names, without reading it where the registry
// says enough in its headers. ErrNotFound when there is no such thing.
func (c *Client) Head(ctx context.Context, ref Ref) (ocispecs.Descriptor, error) {
	a, err := c.do(ctx, manifestCall(http.MethodHead, ref))
	if err != nil {
		return ocispecs.Descriptor{}, about(err, "looking up", ref.DefaultTag())
	}
	said := digest.Digest(a.header.Get("Docker-Content-Digest"))
	size, err := strconv.ParseInt(a.header.Get("Content-Length"), 10, 64)
	mediaType, _, typeErr := mime.ParseMediaType(a.header.Get("Content-Type"))
	known := IsIndex(mediaType) || isManifest(mediaType)
	if said.Validate() != nil || err != nil || typeErr != nil || !known {
		d, _, err := c.Manifest(ctx, ref)
		return d, err
	}
	if ref.Digest != "" && ref.Digest.Algorithm() == said.Algorithm() && said != ref.Digest {
		return ocispecs.Descriptor{}, about(corrupt("%s says that it is %s", ref.Registry, said), "looking up", ref)
	}
	if ref.Digest != "" {
		said = ref.Digest
	}
	return ocispecs.Descriptor{MediaType: mediaType, Digest: said, Size: size}, nil
}

func manifestCall(method string, ref Ref) call {
	return call{
		method: method, repo: ref, path: "manifests/" + ref.target(), scopes: pullScope(ref),
		// In one line: not every registry looks at the second.
		header: header("Accept", strings.Join(manifestTypes, ", ")),
	}
}

// Manifest reads an image manifest or index, of OCI or Docker. The bytes have
// the digest of ref, if it has one, and that of the descriptor.
func (c *Client) Manifest(ctx context.Context, ref Ref) (ocispecs.Descriptor, []byte, error) {
	d, data, err := c.manifest(ctx, ref)
	return d, data, about(err, "pulling the manifest of", ref.DefaultTag())
}

func (c *Client) manifest(ctx context.Context, ref Ref) (ocispecs.Descriptor, []byte, error) {
	none := ocispecs.Descriptor{}
	a, err := c.do(ctx, manifestCall(http.MethodGet, ref))
	if err != nil {
		return none, nil, err
	}
	if len(a.body) > maxManifest {
		return none, nil, &failure{kind: ErrRejected, text: fmt.Sprintf("it is larger than %d MiB", maxManifest>>20)}
	}
	want := ref.Digest
	if said := digest.Digest(a.header.Get("Docker-Content-Digest")); want == "" && said.Validate() == nil {
		want = said
	}
	if want == "" {
		want = digest.FromBytes(a.body)
	}
	if err := want.Validate(); err != nil {
		return none, nil, fmt.Errorf("digest %q: %w", want, err)
	}
	if got := want.Algorithm().FromBytes(a.body); got != want {
		return none, nil, corrupt("%s sent %d bytes with digest %s instead of %s", ref.Registry, len(a.body), got, want)
	}
	mediaType, err := mediaTypeOf(a.header.Get("Content-Type"), a.body)
	if err != nil {
		return none, nil, err
	}
	return ocispecs.Descriptor{MediaType: mediaType, Digest: want, Size: int64(len(a.body))}, a.body, nil
}

// mediaTypeOf says what a manifest is. Its own word counts more than the
// header, which some stores get wrong; OCI manifests may have none.
func mediaTypeOf(contentType string, data []byte) (string, error) {
	var m struct {
		MediaType     string          `json:"mediaType"`
		SchemaVersion int             `json:"schemaVersion"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return "", &failure{kind: ErrRejected, text: "it is not a manifest: " + err.Error()}
	}
	header, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		header = ""
	}
	switch t := m.MediaType; {
	case m.SchemaVersion == 1 || strings.Contains(header, "docker.distribution.manifest.v1+"):
		return "", &failure{kind: ErrRejected, text: "it is a Docker schema 1 manifest, a format that nobody writes since 2017: pull and push it with a current docker first"}
	case IsIndex(t) || isManifest(t):
		return t, nil
	case t != "":
		return "", &failure{kind: ErrRejected, text: fmt.Sprintf("its media type %q is neither an image manifest nor an index", t)}
	case IsIndex(header) && m.Manifests != nil, isManifest(header) && m.Config != nil:
		return header, nil
	case m.Manifests != nil && m.Config == nil:
		return ocispecs.MediaTypeImageIndex, nil
	case m.Config != nil && m.Manifests == nil:
		return ocispecs.MediaTypeImageManifest, nil
	}
	return "", &failure{kind: ErrRejected, text: "it is neither an image manifest nor an index"}
}

// unknownBlobTries is how often a manifest is pushed again when the registry
// says that it lacks a blob: some take a moment to see what they just got.
const unknownBlobTries = 3

// PushManifest stores a manifest or index under ref's tag, or only under its
// digest when ref has no tag. A digest in ref must be that of data.
func (c *Client) PushManifest(ctx context.Context, ref Ref, mediaType string, data []byte) (ocispecs.Descriptor, error) {
	d, err := c.pushManifest(ctx, ref, mediaType, data)
	return d, about(err, "pushing the manifest of", ref)
}

func (c *Client) pushManifest(ctx context.Context, ref Ref, mediaType string, data []byte) (ocispecs.Descriptor, error) {
	none := ocispecs.Descriptor{}
	d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if len(data) > maxManifest {
		return none, fmt.Errorf("it has %d bytes, registries take %d: use fewer or shorter annotations", len(data), maxManifest)
	}
	if ref.Digest != "" {
		if err := ref.Digest.Validate(); err != nil {
			return none, fmt.Errorf("digest %q: %w", ref.Digest, err)
		}
		if got := ref.Digest.Algorithm().FromBytes(data); got != ref.Digest {
			return none, corrupt("its digest is %s", got)
		}
		d.Digest = ref.Digest
	}
	target := ref.Tag
	if target == "" {
		target = d.Digest.String()
	}
	put := call{
		method: http.MethodPut, repo: ref, path: "manifests/" + target, scopes: pushScope(ref),
		header: header("Content-Type", mediaType), body: data,
	}
	a, err := c.do(ctx, put)
	for n := 0; n < min(unknownBlobTries, c.retry.Count) && hasCode(err, transport.ManifestBlobUnknownErrorCode); n++ {
		if err := c.wait(ctx, n, nil); err != nil {
			return none, err
		}
		a, err = c.do(ctx, put)
	}
	if err != nil {
		return none, err
	}
	said := digest.Digest(a.header.Get("Docker-Content-Digest"))
	if said.Validate() == nil && said.Algorithm() == d.Digest.Algorithm() && said != d.Digest {
		return none, corrupt("%s stored it as %s instead of %s", ref.Registry, said, d.Digest)
	}
	return d, nil
}
