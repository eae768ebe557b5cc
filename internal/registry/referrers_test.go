package registry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
)

func TestReferrers(t *testing.T) {
	t.Parallel()
	page := func(name string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":1}]}`, ocispecs.MediaTypeImageManifest, digest.FromString(name))
	}
	for _, tc := range []struct {
		name string
		// answers are by path and query.
		answer func(w http.ResponseWriter, r *http.Request)
		want   []string
		fails  error
	}{
		{"pages", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", ocispecs.MediaTypeImageIndex)
			if r.URL.Query().Get("page") == "" {
				w.Header().Set("Link", "<"+r.URL.Path+`?page=2>; rel="next"`)
				fmt.Fprint(w, page("one"))
				return
			}
			fmt.Fprint(w, page("two"))
		}, []string{"one", "two"}, nil},
		{"page_without_quotes", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", ocispecs.MediaTypeImageIndex)
			if r.URL.Query().Get("page") == "" {
				w.Header().Set("Link", "<"+r.URL.Path+"?page=2>; rel=next")
			}
			fmt.Fprint(w, page("one"))
		}, []string{"one", "one"}, nil},
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", ocispecs.MediaTypeImageIndex)
			w.Header().Set("Link", "<"+r.URL.Path+`?page=2>; rel="next"`)
			fmt.Fprint(w, page("one"))
		}, nil, ErrRejected},
		{"no_api_but_a_page", func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/") {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			fmt.Fprint(w, "<html>welcome</html>")
		}, nil, nil},
		{"no_api_but_a_tag", func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/sha256-") {
				w.Header().Set("Content-Type", ocispecs.MediaTypeImageIndex)
				fmt.Fprint(w, page("one"))
				return
			}
			w.WriteHeader(http.StatusForbidden)
		}, []string{"one"}, nil},
		{"down", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, nil, ErrUnavailable},
		{"nonsense", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ocispecs.MediaTypeImageIndex)
			fmt.Fprint(w, "{")
		}, nil, ErrRejected},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			repo := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v2/" {
					return
				}
				tc.answer(w, r)
			}))
			c := newClient(t, Options{Retry: Retry{Count: -1}})
			list, err := c.Referrers(t.Context(), repo.WithDigest(someDigest))
			if tc.fails != nil {
				assert.ErrorIs(t, err, tc.fails)
				return
			}
			assert.NilError(t, err)
			assert.Equal(t, len(list), len(tc.want))
			for i, d := range list {
				assert.Equal(t, d.Digest, digest.FromString(tc.want[i]))
			}
		})
	}
}

// Signatures that only the destination has stay; more of them take their place.
func TestCopyReferrers_keeps_signatures(t *testing.T) {
	t.Parallel()
	from := serve(t, inMemory())
	to := serve(t, inMemory())
	c := newClient(t, Options{})
	push := func(repo Ref, tag string, layers ...string) ocispecs.Descriptor {
		blob := func(text string) ocispecs.Descriptor {
			d := ocispecs.Descriptor{MediaType: "text/plain", Digest: digest.FromString(text), Size: int64(len(text))}
			assert.NilError(t, c.PushBlob(t.Context(), repo, d, strings.NewReader(text), nil))
			return d
		}
		m := ocispecs.Manifest{MediaType: ocispecs.MediaTypeImageManifest, Config: blob("{}")}
		m.SchemaVersion = 2
		for _, l := range layers {
			m.Layers = append(m.Layers, blob(l))
		}
		data, err := json.Marshal(m)
		assert.NilError(t, err)
		d, err := c.PushManifest(t.Context(), repo.WithTag(tag), m.MediaType, data)
		assert.NilError(t, err)
		return d
	}
	image := push(from, "1", "image")
	tag := "sha256-" + image.Digest.Encoded() + ".sig"
	there := func() digest.Digest {
		d, err := c.Head(t.Context(), to.WithTag(tag))
		assert.NilError(t, err)
		return d.Digest
	}
	run := func() error {
		_, err := c.CopyReferrers(t.Context(), to.WithDigest(image.Digest), from.WithDigest(image.Digest))
		return err
	}
	one := push(from, tag, "one")
	assert.NilError(t, run())
	assert.Equal(t, there(), one.Digest)
	two := push(from, tag, "one", "two")
	assert.NilError(t, run())
	assert.Equal(t, there(), two.Digest)
	own := push(to, tag, "one", "own")
	err := run()
	assert.ErrorIs(t, err, ErrRejected)
	assert.ErrorContains(t, err, "that the copy would remove")
	assert.Equal(t, there(), own.Digest)
}
