package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
)

func TestPlaces(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		o    Options
		ref  string
		want string
	}{
		{"none", Options{}, "alpine:3", "docker.io/library/alpine:3"},
		{"hub", Options{Mirrors: []string{"a.test", "b.test:5000/hub"}}, "alpine:3", "a.test/library/alpine:3 b.test:5000/hub/library/alpine:3 docker.io/library/alpine:3"},
		{"not_the_hub", Options{Mirrors: []string{"a.test"}}, "ghcr.io/acme/app:1", "ghcr.io/acme/app:1"},
		{"no_fallback", Options{Mirrors: []string{"a.test"}, SkipDefaultFallback: true}, "alpine:3", "a.test/library/alpine:3"},
		{"no_fallback_without_mirrors", Options{Mirrors: []string{"a.test"}, SkipDefaultFallback: true}, "ghcr.io/acme/app:1", "ghcr.io/acme/app:1"},
		{"map", Options{Maps: map[string][]string{"ghcr.io": {"a.test/gh", "b.test"}}}, "ghcr.io/acme/app:1", "a.test/gh/acme/app:1 b.test/acme/app:1 ghcr.io/acme/app:1"},
		{"kanikos_name_of_the_hub", Options{Maps: map[string][]string{"index.docker.io": {"a.test"}}}, "alpine:3", "a.test/library/alpine:3 docker.io/library/alpine:3"},
		{"maps_before_mirrors", Options{Maps: map[string][]string{"docker.io": {"a.test"}}, Mirrors: []string{"b.test"}}, "alpine:3", "a.test/library/alpine:3 b.test/library/alpine:3 docker.io/library/alpine:3"},
		{"path_is_replaced", Options{Maps: map[string][]string{"quay.io/acme": {"a.test/x"}}}, "quay.io/acme/team/app:1", "a.test/x/team/app:1 quay.io/acme/team/app:1"},
		{"whole_name", Options{Maps: map[string][]string{"quay.io/acme/app": {"a.test/x/y", "b.test"}}}, "quay.io/acme/app:1", "a.test/x/y:1 quay.io/acme/app:1"},
		{"path_by_segments", Options{Maps: map[string][]string{"quay.io/acme": {"a.test"}}}, "quay.io/acmeevil/app:1", "quay.io/acmeevil/app:1"},
		{"longest_first", Options{Maps: map[string][]string{"quay.io": {"a.test"}, "quay.io/acme": {"b.test"}}}, "quay.io/acme/app:1", "b.test/app:1 a.test/acme/app:1 quay.io/acme/app:1"},
		{"port_is_part_of_the_name", Options{Maps: map[string][]string{"reg.test": {"a.test"}}}, "reg.test:5000/app:1", "reg.test:5000/app:1"},
		{"look_alike", Options{Maps: map[string][]string{"reg.test": {"a.test"}}}, "reg.test.evil.test/app:1", "reg.test.evil.test/app:1"},
		{"same_twice", Options{Mirrors: []string{"a.test", "A.test/"}}, "alpine:3", "a.test/library/alpine:3 docker.io/library/alpine:3"},
		{"itself_keeps_its_place", Options{Mirrors: []string{"docker.io", "a.test"}}, "alpine:3", "docker.io/library/alpine:3 a.test/library/alpine:3"},
		{"hubs_other_host", Options{Mirrors: []string{"registry-1.docker.io"}, SkipDefaultFallback: true}, "alpine:3", "registry-1.docker.io/library/alpine:3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m, err := parseMirrors(tc.o)
			assert.NilError(t, err)
			ref, err := ParseRef(tc.ref)
			assert.NilError(t, err)
			var got []string
			for _, p := range m.places(ref) {
				got = append(got, p.String())
			}
			assert.Equal(t, strings.Join(got, " "), tc.want)
		})
	}
}

func TestBadMirrors(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "https://a.test", "a.test/x:1", "a.test/x y", "a.test//x", "/x", "a test"} {
		_, err := New(Options{Mirrors: []string{bad}, Getenv: env()})
		assert.ErrorContains(t, err, "give HOST[:PORT][/PATH]", bad)
		_, err = New(Options{Maps: map[string][]string{bad: {"a.test"}}, Getenv: env()})
		assert.ErrorContains(t, err, "give HOST[:PORT][/PATH]", bad)
	}
}

// tampering changes the bytes of some answers.
func tampering(next http.Handler, part string, change func([]byte) []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !strings.Contains(req.URL.Path, part) || req.Method != http.MethodGet {
			next.ServeHTTP(w, req)
			return
		}
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, req)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		body := change(rec.Body.Bytes())
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.WriteHeader(rec.Code)
		w.Write(body)
	})
}

func flip(b []byte) []byte {
	b[len(b)-2] ^= 1
	return b
}

// TestMirrorsThatFail has a mirror that is no good before one that is.
func TestMirrorsThatFail(t *testing.T) {
	t.Parallel()
	amd, arm := platform(t, "linux/amd64"), platform(t, "linux/arm64")
	full := func(t *testing.T) http.Handler {
		h := inMemory()
		pushImage(t, newClient(t, Options{}), serve(t, h).WithTag("1"), amd)
		return h
	}
	for _, tc := range []struct {
		name string
		bad  func(t *testing.T) http.Handler
	}{
		{"lacks_the_image", func(*testing.T) http.Handler { return inMemory() }},
		{"denies", func(*testing.T) http.Handler { return basicRegistry("bob", "x") }},
		{"is_broken", func(*testing.T) http.Handler { return status(503) }},
		{"is_no_registry", func(*testing.T) http.Handler { return status(200) }},
		{"lacks_the_platform", func(t *testing.T) http.Handler {
			h := inMemory()
			pushImage(t, newClient(t, Options{}), serve(t, h).WithTag("1"), arm)
			return h
		}},
		{"changes_the_manifest", func(t *testing.T) http.Handler { return tampering(full(t), "/manifests/", flip) }},
		{"changes_the_config", func(t *testing.T) http.Handler { return tampering(full(t), "/blobs/", flip) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			bad, good, origin := &recorder{next: tc.bad(t)}, &recorder{next: full(t)}, &recorder{next: full(t)}
			b, g, ref := serve(t, bad), serve(t, good), serve(t, origin).WithTag("1")
			c := newClient(t, Options{Maps: map[string][]string{ref.Registry: {b.Registry, g.Registry}}})
			img, err := c.Image(t.Context(), ref, amd)
			assert.NilError(t, err)
			assert.Equal(t, img.Source.Name(), g.Name())
			assert.Equal(t, img.Ref, ref.WithDigest(img.Descriptor.Digest))
			assert.Assert(t, len(bad.all) > 0, "it was not asked")
			before := len(bad.all)
			assert.Equal(t, readLayer(t, c, ref.WithDigest(img.Root), img), "layer of amd64")
			_, err = c.Image(t.Context(), ref, amd)
			assert.NilError(t, err)
			assert.Equal(t, len(bad.all), before, "blobs come from where the manifest came from")
			assert.Equal(t, len(origin.all), 0)
		})
	}
}

func status(code int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
}

func readLayer(t *testing.T, c *Client, repo Ref, img *Image) string {
	t.Helper()
	b, err := c.Blob(t.Context(), repo, img.Manifest.Layers[0])
	assert.NilError(t, err)
	defer b.Close()
	data, err := io.ReadAll(b)
	assert.NilError(t, err)
	return string(data)
}

func TestMirrorThatIsDown(t *testing.T) {
	t.Parallel()
	amd := platform(t, "linux/amd64")
	ref := serve(t, inMemory()).WithTag("1")
	pushImage(t, newClient(t, Options{}), ref, amd)
	c := newClient(t, Options{Maps: map[string][]string{ref.Registry: {"127.0.0.1:1"}}})
	img, err := c.Image(t.Context(), ref, amd)
	assert.NilError(t, err)
	assert.Equal(t, img.Source, img.Ref)
	assert.Equal(t, readLayer(t, c, ref, img), "layer of amd64", "found by its tag")
}

// TestMirrorIsTriedInHaste: there is another place to ask.
func TestMirrorIsTriedInHaste(t *testing.T) {
	t.Parallel()
	rec := &recorder{next: status(503)}
	mirror := serve(t, rec)
	ref := serve(t, inMemory()).WithTag("1")
	c := newClient(t, Options{Retry: Retry{Count: 7, InitialDelay: 1, MaxDelay: 1}, Maps: map[string][]string{ref.Registry: {mirror.Registry}}})
	_, err := c.Image(t.Context(), ref, platform(t, "linux/amd64"))
	assert.Assert(t, errors.Is(err, ErrNotFound), "%v", err)
	contains(t, err, ref.String(), "its mirrors failed before: ", mirror.Registry, "503")
	assert.Equal(t, len(rec.all), 2)
}

func TestWithoutFallback(t *testing.T) {
	t.Parallel()
	amd := platform(t, "linux/amd64")
	rec := &recorder{next: inMemory()}
	ref := serve(t, rec).WithTag("1")
	pushImage(t, newClient(t, Options{}), ref, amd)
	before := len(rec.all)
	mirror := serve(t, inMemory())
	c := newClient(t, Options{SkipDefaultFallback: true, Maps: map[string][]string{ref.Registry: {mirror.Registry}}})
	_, err := c.Image(t.Context(), ref, amd)
	assert.Assert(t, errors.Is(err, ErrNotFound), "%v", err)
	contains(t, err, mirror.Name(), ref.Registry+" itself was not asked")
	assert.Equal(t, len(rec.all), before)
}

// TestMirrorsAndDigests: by digest nobody can serve another image.
func TestMirrorsAndDigests(t *testing.T) {
	t.Parallel()
	amd, arm := platform(t, "linux/amd64"), platform(t, "linux/arm64")
	ref := serve(t, inMemory())
	d := pushImage(t, newClient(t, Options{}), ref.WithTag("1"), amd)
	// The mirror answers every question with its own image.
	other := inMemory()
	pushImage(t, newClient(t, Options{}), serve(t, other).WithTag("1"), arm)
	mirror := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.Contains(req.URL.Path, "/manifests/") {
			req.URL.Path = "/v2/acme/app/manifests/1"
		}
		other.ServeHTTP(w, req)
	}))
	maps := map[string][]string{ref.Registry: {mirror.Registry}}
	img, err := newClient(t, Options{Maps: maps}).Image(t.Context(), ref.WithDigest(d.Digest), amd)
	assert.NilError(t, err)
	assert.Equal(t, img.Root, d.Digest)
	_, err = newClient(t, Options{Maps: maps, SkipDefaultFallback: true}).Image(t.Context(), ref.WithDigest(d.Digest), amd)
	assert.Assert(t, errors.Is(err, ErrCorrupt), "%v", err)
}

// TestMirrorThatCuts gets all tries: only its start was in haste.
func TestMirrorThatCuts(t *testing.T) {
	t.Parallel()
	amd, layer := platform(t, "linux/amd64"), []byte("layer of amd64")
	stored := inMemory()
	pushImage(t, newClient(t, Options{}), serve(t, stored).WithTag("1"), amd)
	cuts := 0
	mirror := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.Contains(req.URL.Path, "/blobs/"+digest.FromBytes(layer).String()) && cuts < 3 {
			cuts++
			cut(w, 200, len(layer), layer[:cuts])
			return
		}
		stored.ServeHTTP(w, req)
	}))
	ref := serve(t, inMemory()).WithTag("1")
	c := newClient(t, Options{Maps: map[string][]string{ref.Registry: {mirror.Registry}}})
	img, err := c.Image(t.Context(), ref, amd)
	assert.NilError(t, err)
	assert.Equal(t, readLayer(t, c, img.Ref, img), string(layer))
	assert.Equal(t, cuts, 3)
}

func TestMirrorsAndBlobs(t *testing.T) {
	t.Parallel()
	amd := platform(t, "linux/amd64")
	layer := []byte("layer of amd64")
	blob := "/blobs/" + push(t, newClient(t, Options{}), serve(t, inMemory()), layer, ocispecs.MediaTypeImageLayerGzip).Digest.String()
	for _, tc := range []struct {
		name   string
		mirror func(http.Handler) http.Handler
		want   error
	}{
		{"lacks_it", func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if strings.Contains(req.URL.Path, blob) {
					w.WriteHeader(404)
					return
				}
				next.ServeHTTP(w, req)
			})
		}, nil},
		{"has_a_shorter_one", func(next http.Handler) http.Handler {
			return tampering(next, blob, func(b []byte) []byte { return b[1:] })
		}, nil},
		{"has_another_one", func(next http.Handler) http.Handler { return tampering(next, blob, flip) }, ErrCorrupt},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ref, stored := serve(t, inMemory()).WithTag("1"), inMemory()
			pushImage(t, newClient(t, Options{}), ref, amd)
			pushImage(t, newClient(t, Options{}), serve(t, stored).WithTag("1"), amd)
			mirror := serve(t, tc.mirror(stored))
			c := newClient(t, Options{Maps: map[string][]string{ref.Registry: {mirror.Registry}}})
			img, err := c.Image(t.Context(), ref, amd)
			assert.NilError(t, err)
			assert.Equal(t, img.Source.Name(), mirror.Name())
			b, err := c.Blob(t.Context(), img.Ref, img.Manifest.Layers[0])
			assert.NilError(t, err)
			data, err := io.ReadAll(b)
			assert.Assert(t, errors.Is(err, tc.want), "%v", err)
			if tc.want == nil {
				assert.Equal(t, string(data), string(layer))
			} else {
				contains(t, err, mirror.Name())
			}
		})
	}
}

// TestOnlyBaseImagesAreMirrored: what is pushed is read where it was pushed.
func TestOnlyBaseImagesAreMirrored(t *testing.T) {
	t.Parallel()
	rec := &recorder{next: inMemory()}
	ref, mirror := serve(t, inMemory()).WithTag("1"), serve(t, rec)
	c := newClient(t, Options{SkipDefaultFallback: true, Maps: map[string][]string{ref.Registry: {mirror.Registry}}})
	d := pushImage(t, c, ref, platform(t, "linux/amd64"))
	_, err := c.Head(t.Context(), ref)
	assert.NilError(t, err)
	_, data, err := c.Manifest(t.Context(), ref)
	assert.NilError(t, err)
	assert.Equal(t, int64(len(data)), d.Size)
	_, err = c.HasBlob(t.Context(), ref, someDigest)
	assert.NilError(t, err)
	layer := []byte("layer of amd64")
	b, err := c.Blob(t.Context(), ref.WithTag(""), push(t, c, ref, layer, ocispecs.MediaTypeImageLayerGzip))
	assert.NilError(t, err)
	assert.NilError(t, b.Close())
	to := ref
	to.Repository, to.Tag = "acme/copy", "2"
	assert.NilError(t, c.CopyImage(t.Context(), to, ref.WithDigest(d.Digest)))
	assert.Equal(t, len(rec.all), 0)
}

func TestMirrorsEndWithTheContext(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	mirror := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stop() }))
	rec := &recorder{next: inMemory()}
	ref := serve(t, rec).WithTag("1")
	c := newClient(t, Options{Maps: map[string][]string{ref.Registry: {mirror.Registry}}})
	_, err := c.Image(ctx, ref, platform(t, "linux/amd64"))
	assert.Assert(t, errors.Is(err, context.Canceled), "%v", err)
	assert.Equal(t, len(rec.all), 0)
}
