package registry

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
)

const emptyIndex = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

func TestManifestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, mediaType := range manifestTypes {
		t.Run(mediaType, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, Options{})
			ref := serve(t, inMemory()).WithTag("1")
			body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{},"manifests":[]}`, mediaType)
			d, err := c.PushManifest(t.Context(), ref, mediaType, []byte(body))
			assert.NilError(t, err)
			want := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromString(body), Size: int64(len(body))}
			assert.DeepEqual(t, d, want)
			for _, r := range []Ref{ref, ref.WithDigest(d.Digest)} {
				got, data, err := c.Manifest(t.Context(), r)
				assert.NilError(t, err)
				assert.DeepEqual(t, got, want)
				assert.Equal(t, string(data), body)
				got, err = c.Head(t.Context(), r)
				assert.NilError(t, err)
				assert.DeepEqual(t, got, want)
			}
		})
	}
}

func TestPushByDigestMovesNoTag(t *testing.T) {
	t.Parallel()
	rec := &recorder{next: inMemory()}
	repo := serve(t, rec)
	c := newClient(t, Options{})
	d, err := c.PushManifest(t.Context(), repo, ocispecs.MediaTypeImageIndex, []byte(emptyIndex))
	assert.NilError(t, err)
	assert.Equal(t, rec.count("PUT", "/manifests/"+d.Digest.String()), 1)
	_, err = c.Head(t.Context(), repo)
	assert.Assert(t, errors.Is(err, ErrNotFound), "latest must not exist: %v", err)
	_, err = c.PushManifest(t.Context(), repo.WithDigest(someDigest), ocispecs.MediaTypeImageIndex, []byte(emptyIndex))
	assert.Assert(t, errors.Is(err, ErrCorrupt), "%v", err)
}

func TestManifestAnswers(t *testing.T) {
	t.Parallel()
	good := digest.FromString(emptyIndex)
	for _, tc := range []struct {
		name, body  string
		contentType string
		said        string
		ref         digest.Digest
		want        error
		text        string
		mediaType   string
	}{
		{"by_tag", emptyIndex, "", "", "", nil, "", ocispecs.MediaTypeImageIndex},
		{"by_digest", emptyIndex, "", "", good, nil, "", ocispecs.MediaTypeImageIndex},
		{"other_content_for_digest", emptyIndex + " ", "", "", good, ErrCorrupt, good.String(), ""},
		{"other_content_for_header", emptyIndex, "", someDigest, "", ErrCorrupt, someDigest, ""},
		{"sha512", emptyIndex, "", "", digest.SHA512.FromString(emptyIndex), nil, "", ocispecs.MediaTypeImageIndex},
		{"no_media_type_in_body", `{"schemaVersion":2,"config":{}}`, ocispecs.MediaTypeImageManifest + "; charset=utf-8", "", "", nil, "", ocispecs.MediaTypeImageManifest},
		{"wrong_header", emptyIndex, "text/plain", "", "", nil, "", ocispecs.MediaTypeImageIndex},
		{"no_media_type_anywhere", `{"schemaVersion":2,"manifests":[]}`, "application/json", "", "", nil, "", ocispecs.MediaTypeImageIndex},
		{"header_against_content", `{"schemaVersion":2,"manifests":[]}`, ocispecs.MediaTypeImageManifest, "", "", nil, "", ocispecs.MediaTypeImageIndex},
		{"schema_1", `{"schemaVersion":1}`, "application/vnd.docker.distribution.manifest.v1+prettyjws", "", "", ErrRejected, "schema 1", ""},
		{"foreign_type", `{"schemaVersion":2,"mediaType":"application/x"}`, "", "", "", ErrRejected, `"application/x"`, ""},
		{"not_json", `<html>`, "text/html", "", "", ErrRejected, "not a manifest", ""},
		{"nothing_of_both", `{"schemaVersion":2}`, "", "", "", ErrRejected, "neither", ""},
		{"too_large", strings.Repeat(" ", maxManifest+1), "", "", "", ErrRejected, "larger than 4 MiB", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ref := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if tc.contentType != "" {
					w.Header().Set("Content-Type", tc.contentType)
				}
				if tc.said != "" {
					w.Header().Set("Docker-Content-Digest", tc.said)
				}
				fmt.Fprint(w, tc.body)
			})).WithTag("1")
			if tc.ref != "" {
				ref = ref.WithDigest(tc.ref)
			}
			d, _, err := newClient(t, Options{}).Manifest(t.Context(), ref)
			assert.Assert(t, errors.Is(err, tc.want), "%v", err)
			if tc.want != nil {
				contains(t, err, ref.String(), tc.text)
				return
			}
			assert.Equal(t, d.MediaType, tc.mediaType)
			if tc.ref != "" {
				assert.Equal(t, d.Digest, tc.ref)
			}
		})
	}
}

func TestManifestCutInTheMiddleIsReadAgain(t *testing.T) {
	t.Parallel()
	n := 0
	ref := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/v2/" {
			return
		}
		if n++; n == 1 {
			cut(w, 200, len(emptyIndex), []byte(emptyIndex[:20]))
			return
		}
		fmt.Fprint(w, emptyIndex)
	})).WithTag("1")
	_, data, err := newClient(t, Options{}).Manifest(t.Context(), ref)
	assert.NilError(t, err)
	assert.Equal(t, string(data), emptyIndex)
}

func TestHeadReadsTheManifestWhenHeadersAreMissing(t *testing.T) {
	t.Parallel()
	rec := &recorder{next: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, emptyIndex) })}
	ref := serve(t, rec).WithTag("1")
	d, err := newClient(t, Options{}).Head(t.Context(), ref)
	assert.NilError(t, err)
	assert.Equal(t, d.Digest, digest.FromString(emptyIndex))
	assert.Equal(t, rec.count("GET", "/manifests/1"), 1)
}

func TestRegistryThatStoresSomethingElse(t *testing.T) {
	t.Parallel()
	ref := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Docker-Content-Digest", someDigest)
		w.WriteHeader(201)
	})).WithTag("1")
	_, err := newClient(t, Options{}).PushManifest(t.Context(), ref, ocispecs.MediaTypeImageIndex, []byte(emptyIndex))
	assert.Assert(t, errors.Is(err, ErrCorrupt), "%v", err)
}

// Registries have no common code for a tag that must not move.
func TestImmutableTag(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, body string
		status     int
		want       bool
	}{
		{"ecr", `{"errors":[{"code":"TAG_INVALID","message":"The image tag '1' already exists in the 'acme/app' repository and cannot be overwritten because the repository is immutable."}]}`, 400, true},
		{"artifact_registry", `{"errors":[{"code":"MANIFEST_INVALID","message":"cannot update tag 1. The repository has enabled tag immutability"}]}`, 400, true},
		{"harbor", `{"errors":[{"code":"PRECONDITION","message":"Failed to process request due to 'app:1' configured as immutable."}]}`, 412, true},
		{"other", `{"errors":[{"code":"TAG_INVALID","message":"no"}]}`, 400, false},
		{"not_there", `{"errors":[{"code":"NAME_UNKNOWN","message":"no repository acme/immutable"}]}`, 404, false},
		{"of_that_name", `{"errors":[{"code":"DENIED","message":"no access to 'acme/immutable-app'"}]}`, 403, false},
		{"name_and_word", `{"errors":[{"code":"TAG_INVALID","message":"'acme/immutable-app' is immutable"}]}`, 400, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			repo := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.Method != http.MethodPut {
					return
				}
				w.WriteHeader(tc.status)
				fmt.Fprint(w, tc.body)
			}))
			repo.Repository = "acme/immutable-app"
			_, err := newClient(t, Options{}).PushManifest(t.Context(), repo.WithTag("1"), ocispecs.MediaTypeImageIndex, []byte(emptyIndex))
			assert.Assert(t, err != nil)
			assert.Equal(t, errors.Is(err, ErrImmutable), tc.want, "%v", err)
			assert.Check(t, !tc.want || errors.Is(err, ErrRejected), "%v", err)
		})
	}
}
