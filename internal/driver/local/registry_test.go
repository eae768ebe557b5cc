package local

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// fake is a registry in memory that keeps the blobs of its repositories apart
// and mounts them on demand, and that remembers what it was asked.
type fake struct {
	inner  http.Handler
	mounts bool

	mu    sync.Mutex
	blobs map[string]bool
	asked []string
}

func newFake(t *testing.T, mounts bool) (*fake, registry.Ref) {
	t.Helper()
	f := &fake{inner: ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))), mounts: mounts, blobs: map[string]bool{}}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return f, registry.Ref{Registry: strings.TrimPrefix(s.URL, "http://"), Repository: "acme/app"}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	repo, rest, isBlob := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/blobs/")
	q := r.URL.Query()
	mount := q.Get("mount")
	f.mu.Lock()
	line := r.Method + " " + r.URL.Path
	if mount != "" {
		line = "MOUNT " + repo + " " + mount
	}
	f.asked = append(f.asked, line)
	there := f.blobs[repo+"@"+rest]
	switch {
	case mount != "" && f.mounts && f.blobs[q.Get("from")+"@"+mount]:
		f.blobs[repo+"@"+mount] = true
		f.mu.Unlock()
		w.Header().Set("Location", "/v2/"+repo+"/blobs/"+mount)
		w.WriteHeader(http.StatusCreated)
		return
	case mount != "":
		r.URL.RawQuery = ""
	case q.Get("digest") != "":
		f.blobs[repo+"@"+q.Get("digest")] = true
	}
	f.mu.Unlock()
	if isBlob && (r.Method == http.MethodHead || r.Method == http.MethodGet) && !there {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	f.inner.ServeHTTP(w, r)
}

// count says how often a request was made whose line has all of the parts.
func (f *fake) count(parts ...string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, line := range f.asked {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			n++
		}
	}
	return n
}

func (f *fake) has(repo registry.Ref, d digest.Digest) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.blobs[repo.Repository+"@"+d.String()]
}

func newClient(t *testing.T) *registry.Client {
	t.Helper()
	c, err := registry.New(registry.Options{Getenv: func(string) string { return "" }, HomeDir: t.TempDir(), Retry: registry.Retry{Count: -1}})
	assert.NilError(t, err)
	return c
}

func push(t *testing.T, c *registry.Client, repo registry.Ref, data string) ocispecs.Descriptor {
	t.Helper()
	desc, r := content(data)
	assert.NilError(t, c.PushBlob(t.Context(), repo, desc, r, nil))
	return desc
}

// pushImage makes an image of one layer at a tag.
func pushImage(t *testing.T, c *registry.Client, ref registry.Ref, layer string) (manifest, layerDesc ocispecs.Descriptor) {
	t.Helper()
	config, err := json.Marshal(ocispecs.Image{
		Platform: ocispecs.Platform{OS: "linux", Architecture: "amd64"},
		RootFS:   ocispecs.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromString(layer)}},
	})
	assert.NilError(t, err)
	configDesc := push(t, c, ref, string(config))
	configDesc.MediaType = ocispecs.MediaTypeImageConfig
	layerDesc = push(t, c, ref, layer)
	data, err := json.Marshal(ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest,
		Config: configDesc, Layers: []ocispecs.Descriptor{layerDesc},
	})
	assert.NilError(t, err)
	manifest, err = c.PushManifest(t.Context(), ref, ocispecs.MediaTypeImageManifest, data)
	assert.NilError(t, err)
	return manifest, layerDesc
}

func read(t *testing.T, c *registry.Client, repo registry.Ref, desc ocispecs.Descriptor) string {
	t.Helper()
	b, err := c.Blob(t.Context(), repo, desc)
	assert.NilError(t, err)
	defer b.Close()
	data, err := io.ReadAll(b)
	assert.NilError(t, err)
	return string(data)
}

func TestPublisher_sends_a_layer_once(t *testing.T) {
	t.Parallel()
	f, to := newFake(t, true)
	c := newClient(t)
	p := newPublisher(c, to, t.TempDir(), newBaseImages(c))
	desc, data := content("a layer")
	var g errgroup.Group
	for range 8 {
		g.Go(func() error { return p.Layer(t.Context(), desc, data, func(int64) {}) })
	}
	assert.NilError(t, g.Wait())
	assert.Check(t, is.Equal(f.count("PUT ", "/blobs/"), 1))
	assert.Check(t, is.Equal(read(t, c, to, desc), "a layer"))
}

// All that wait for one upload learn that it failed.
func TestPublisher_shares_the_error(t *testing.T) {
	t.Parallel()
	var posts sync.Map
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
		case r.Method == http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		default:
			if _, again := posts.LoadOrStore("post", true); again {
				t.Error("the upload was tried again")
			}
			w.WriteHeader(http.StatusForbidden)
		}
	})
	p := newPublisher(newClient(t), registry.Ref{Registry: strings.TrimPrefix(s.URL, "http://"), Repository: "a"}, t.TempDir(), newBaseImages(newClient(t)))
	desc, data := content("a layer")
	for range 2 {
		assert.Check(t, is.ErrorIs(p.Layer(t.Context(), desc, data, nil), registry.ErrDenied))
	}
}

func TestPublisher_base_layer(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		// there: the target has it; across: the base is in another registry.
		there, across, mounts bool
		mounted, pushed, read int
	}{
		{"there_already", true, false, true, 1, 0, 0},
		{"there_and_declined", true, false, false, 1, 0, 0},
		{"there_from_elsewhere", true, true, true, 0, 0, 0},
		{"mounted", false, false, true, 1, 0, 0},
		{"mount_declined", false, false, false, 1, 1, 1},
		{"other_registry", false, true, true, 0, 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c, spool := newClient(t), t.TempDir()
			target, to := newFake(t, tc.mounts)
			source, from := target, to
			if tc.across {
				source, from = newFake(t, tc.mounts)
			}
			from.Repository = "base/os"
			desc := push(t, c, from, "a base layer")
			if tc.there {
				push(t, c, to, "a base layer")
			}
			pushed, got := target.count("PUT /v2/acme/app/blobs/"), source.count("GET /v2/base/os/blobs/")

			p := newPublisher(c, to, spool, newBaseImages(c))
			var g errgroup.Group
			for range 4 {
				g.Go(func() error { return p.BaseLayer(t.Context(), from.WithTag("1").String(), desc) })
			}
			assert.NilError(t, g.Wait())
			assert.Check(t, target.has(to, desc.Digest))
			assert.Check(t, is.Equal(target.count("MOUNT "), tc.mounted))
			assert.Check(t, is.Equal(target.count("PUT /v2/acme/app/blobs/")-pushed, tc.pushed))
			assert.Check(t, is.Equal(source.count("GET /v2/base/os/blobs/")-got, tc.read))
			left, err := os.ReadDir(spool)
			assert.NilError(t, err)
			assert.Check(t, is.Len(left, 0), "a file is left in the spool")
		})
	}
}

func TestPublisher_base_layer_errors(t *testing.T) {
	t.Parallel()
	_, to := newFake(t, true)
	_, from := newFake(t, true)
	p := newPublisher(newClient(t), to, t.TempDir(), newBaseImages(newClient(t)))
	desc, _ := content("missing")
	assert.Check(t, is.ErrorIs(p.BaseLayer(t.Context(), from.String(), desc), registry.ErrNotFound))
	assert.Check(t, is.ErrorContains(p.BaseLayer(t.Context(), "a b", desc), "a b"))
}

// A published image is found by its digest; no tag has moved.
func TestPublisher_image(t *testing.T) {
	t.Parallel()
	f, to := newFake(t, true)
	c := newClient(t)
	config := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	configDesc := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}
	manifest, err := json.Marshal(ocispecs.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, Config: configDesc, Layers: []ocispecs.Descriptor{}})
	assert.NilError(t, err)
	img := &engine.Image{
		Descriptor: ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Size: int64(len(manifest))},
		Manifest:   manifest, Config: config, ConfigDescriptor: configDesc,
	}
	assert.NilError(t, newPublisher(c, to.WithTag("1"), t.TempDir(), newBaseImages(c)).Image(t.Context(), img))
	_, data, err := c.Manifest(t.Context(), to.WithDigest(img.Descriptor.Digest))
	assert.NilError(t, err)
	assert.Check(t, is.Equal(string(data), string(manifest)))
	assert.Check(t, is.Equal(read(t, c, to, configDesc), string(config)))
	_, err = c.Head(t.Context(), to.WithTag("1"))
	assert.Check(t, is.ErrorIs(err, registry.ErrNotFound))
	assert.Check(t, is.Equal(f.count("PUT ", "/manifests/"), 1))
}

func TestBaseImages_ask_once(t *testing.T) {
	t.Parallel()
	f, repo := newFake(t, true)
	c := newClient(t)
	ref := repo.WithTag("1")
	manifest, layer := pushImage(t, c, ref, "a base layer")
	amd64 := ocispecs.Platform{OS: "linux", Architecture: "amd64"}
	for _, tc := range []struct{ name, ref string }{
		{"by_tag", ref.String()},
		{"by_digest", repo.WithDigest(manifest.Digest).String()},
		{"by_tag_and_digest", ref.String() + "@" + manifest.Digest.String()},
	} {
		// One after the other: they share the count of requests.
		t.Run(tc.name, func(t *testing.T) {
			images := newBaseImages(c)
			before := f.count("GET ", "/manifests/")
			var g errgroup.Group
			for range 8 {
				g.Go(func() error {
					d, config, err := images.ImageConfig(t.Context(), tc.ref, amd64)
					assert.Check(t, is.Equal(d, manifest.Digest))
					assert.Check(t, is.Contains(string(config), "amd64"))
					return err
				})
			}
			assert.NilError(t, g.Wait())
			base, err := images.BaseImage(t.Context(), tc.ref, amd64)
			assert.NilError(t, err)
			assert.Check(t, is.DeepEqual(base.Layers, []ocispecs.Descriptor{layer}))
			assert.Check(t, is.DeepEqual(base.DiffIDs, []digest.Digest{digest.FromString("a base layer")}))
			assert.Check(t, is.Equal(f.count("GET ", "/manifests/")-before, 1))

			r, err := images.OpenLayer(t.Context(), tc.ref, layer)
			assert.NilError(t, err)
			defer r.Close()
			data, err := io.ReadAll(r)
			assert.NilError(t, err)
			assert.Check(t, is.Equal(string(data), "a base layer"))
		})
	}
}

// A failure is one for all who ask: the registry is not asked again.
func TestBaseImages_errors(t *testing.T) {
	t.Parallel()
	f, repo := newFake(t, true)
	images := newBaseImages(newClient(t))
	amd64 := ocispecs.Platform{OS: "linux", Architecture: "amd64"}
	for range 2 {
		_, _, err := images.ImageConfig(t.Context(), repo.WithTag("no").String(), amd64)
		assert.Check(t, is.ErrorIs(err, registry.ErrNotFound))
		assert.Check(t, is.ErrorContains(err, "base image "+repo.WithTag("no").String()))
	}
	assert.Check(t, is.Equal(f.count("GET ", "/manifests/no"), 1))
	_, _, err := images.ImageConfig(t.Context(), "a b", amd64)
	assert.Check(t, is.ErrorContains(err, "a b"))
	_, err = images.BaseImage(t.Context(), "a b", amd64)
	assert.Check(t, is.ErrorContains(err, "a b"))
	_, err = images.OpenLayer(t.Context(), "a b", ocispecs.Descriptor{})
	assert.Check(t, is.ErrorContains(err, "a b"))
}
