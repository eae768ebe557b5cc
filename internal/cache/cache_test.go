package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/registry"
)

func clock() time.Time { return time.Unix(1000, 0) }

func newRegistry(t *testing.T, wrap func(http.Handler) http.Handler) *Registry {
	t.Helper()
	s := httptest.NewServer(wrap(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))))
	t.Cleanup(s.Close)
	client, err := registry.New(registry.Options{Retry: registry.Retry{Count: -1}})
	assert.NilError(t, err)
	repo, err := registry.ParseRef(strings.TrimPrefix(s.URL, "http://") + "/app/cache")
	assert.NilError(t, err)
	return &Registry{Client: client, Repo: repo, Now: clock}
}

func same(h http.Handler) http.Handler { return h }

func newDirectory(t *testing.T) *Directory {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cache")
	d, err := MakeDirectory(dir)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = d.Close() })
	d.Ref, d.Now = "somewhere", clock
	return d
}

var layer = []byte("the bytes of a layer")

func entry() Entry {
	return Entry{
		Layer:   ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: digest.FromBytes(layer), Size: int64(len(layer))},
		DiffID:  digest.FromString("diff"),
		Inputs:  []digest.Digest{digest.FromString("input"), ""},
		Created: time.Unix(900, 5).UTC(),
	}
}

// Both kinds keep the same.
func TestCache(t *testing.T) {
	t.Parallel()
	inRegistry, prefixed, directory := newRegistry(t, same), newRegistry(t, same), newDirectory(t)
	prefixed.Prefix = "tag"
	for name, tt := range map[string]struct {
		cache Cache
		ref   string
		ttl   *time.Duration
	}{
		"registry":  {inRegistry, inRegistry.Repo.Name(), &inRegistry.TTL},
		"prefix":    {prefixed, prefixed.Repo.Name(), &prefixed.TTL},
		"directory": {directory, "somewhere", &directory.TTL},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key, other := digest.FromString("key"), digest.FromString("other")
			_, err := tt.cache.Get(t.Context(), key)
			assert.Check(t, err == ErrMiss, "%v", err)
			assert.NilError(t, tt.cache.Put(t.Context(), []digest.Digest{key, other}, entry(), bytes.NewReader(layer)))
			want := entry()
			want.Ref = tt.ref
			for _, k := range []digest.Digest{key, other} {
				got, err := tt.cache.Get(t.Context(), k)
				assert.NilError(t, err)
				assert.Check(t, is.DeepEqual(*got, want))
			}
			*tt.ttl = 99 * time.Second
			_, err = tt.cache.Get(t.Context(), key)
			assert.Check(t, err == ErrMiss, "expired: %v", err)
			*tt.ttl = 101 * time.Second
			_, err = tt.cache.Get(t.Context(), key)
			assert.NilError(t, err)
		})
	}
}

// A layer that the image's repository has is not sent again.
func TestRegistry_mounts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer int
		sent   int
	}{
		"mounted":  {http.StatusCreated, 0},
		"declined": {http.StatusAccepted, 1},
		"refused":  {http.StatusForbidden, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mounts, uploads atomic.Int32
			c := newRegistry(t, func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if q := r.URL.Query(); q.Get("mount") != "" {
						assert.Check(t, is.Equal(q.Get("from"), "app/image"))
						mounts.Add(1)
						w.Header().Set("Location", "/v2/app/cache/blobs/uploads/x")
						w.WriteHeader(tt.answer)
						return
					}
					if r.URL.Query().Get("digest") == entry().Layer.Digest.String() {
						uploads.Add(1)
					}
					h.ServeHTTP(w, r)
				})
			})
			c.Besides = registry.Ref{Registry: c.Repo.Registry, Repository: "app/image"}
			assert.NilError(t, c.Put(t.Context(), []digest.Digest{digest.FromString("key")}, entry(), bytes.NewReader(layer)))
			assert.Check(t, is.Equal(mounts.Load(), int32(1)))
			assert.Check(t, is.Equal(uploads.Load(), int32(tt.sent)))
		})
	}
}

// One request is all that an entry costs.
func TestRegistry_get_is_one_request(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []string
	c := newRegistry(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			seen = append(seen, r.Method+" "+r.URL.Path)
			mu.Unlock()
			h.ServeHTTP(w, r)
		})
	})
	key := digest.FromString("key")
	assert.NilError(t, c.Put(t.Context(), []digest.Digest{key}, entry(), bytes.NewReader(layer)))
	seen = nil
	_, err := c.Get(t.Context(), key)
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(seen, []string{"GET /v2/app/cache/manifests/" + key.Encoded()}))
}

// An entry that is not what it should be is a miss with a reason, never a layer.
func TestDecode_foreign_entries(t *testing.T) {
	t.Parallel()
	key, other := digest.FromString("key"), digest.FromString("other")
	manifest := func(keys []digest.Digest, change func(*Entry)) []byte {
		e := entry()
		change(&e)
		data, _, err := encode(keys, e)
		assert.NilError(t, err)
		return data
	}
	good := manifest([]digest.Digest{key}, func(*Entry) {})
	edited := func(change func(*ocispecs.Manifest)) []byte {
		var m ocispecs.Manifest
		assert.NilError(t, json.Unmarshal(good, &m))
		change(&m)
		data, err := json.Marshal(m)
		assert.NilError(t, err)
		return data
	}
	_, err := decode(good, key)
	assert.NilError(t, err)
	for name, data := range map[string][]byte{
		"of_another_key": manifest([]digest.Digest{other}, func(*Entry) {}),
		"no_diff_id":     manifest([]digest.Digest{key}, func(e *Entry) { e.DiffID = "" }),
		"no_digest":      manifest([]digest.Digest{key}, func(e *Entry) { e.Layer.Digest = "sha256:12" }),
		"no_size":        manifest([]digest.Digest{key}, func(e *Entry) { e.Layer.Size = 0 }),
		"no_layer_type":  manifest([]digest.Digest{key}, func(e *Entry) { e.Layer.MediaType = "text/plain" }),
		"an_image":       edited(func(m *ocispecs.Manifest) { m.Config.MediaType = ocispecs.MediaTypeImageConfig }),
		"two_layers":     edited(func(m *ocispecs.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) }),
		"edited_description": edited(func(m *ocispecs.Manifest) {
			m.Config.Data = bytes.Replace(m.Config.Data, []byte("diffID"), []byte("DiffID"), 1)
		}),
		"no_description": edited(func(m *ocispecs.Manifest) { m.Config.Data = nil }),
		"truncated":      good[:len(good)/2],
		"empty":          nil,
	} {
		_, err := decode(data, key)
		assert.Check(t, err != nil, name)
		_, err = read(data, key, "x", 0, clock)
		assert.Check(t, errors.Is(err, ErrMiss) && err != ErrMiss, "%s: %v", name, err)
	}
	e, err := decode(edited(func(m *ocispecs.Manifest) { m.Layers[0].URLs = []string{"https://evil.example"} }), key)
	assert.NilError(t, err)
	assert.Check(t, is.Len(e.Layer.URLs, 0))
}

func TestRegistry_retagged(t *testing.T) {
	t.Parallel()
	c := newRegistry(t, same)
	key, other := digest.FromString("key"), digest.FromString("other")
	assert.NilError(t, c.Put(t.Context(), []digest.Digest{other}, entry(), bytes.NewReader(layer)))
	_, data, err := c.Client.Manifest(t.Context(), c.Repo.WithTag(c.tag(other)))
	assert.NilError(t, err)
	_, err = c.Client.PushManifest(t.Context(), c.Repo.WithTag(c.tag(key)), ocispecs.MediaTypeImageManifest, data)
	assert.NilError(t, err)
	_, err = c.Get(t.Context(), key)
	assert.Check(t, errors.Is(err, ErrMiss), "%v", err)
	assert.Check(t, is.ErrorContains(err, "another key"))
}

// A registry that fails costs time, not the build.
func TestRegistry_faults(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"forbidden": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"broken":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"truncated": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ocispecs.MediaTypeImageManifest)
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("{"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newRegistry(t, func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.Contains(r.URL.Path, "/manifests/") {
						answer(w, r)
						return
					}
					h.ServeHTTP(w, r)
				})
			})
			_, err := c.Get(t.Context(), digest.FromString("key"))
			assert.Check(t, errors.Is(err, ErrMiss) && err != ErrMiss, "%v", err)
		})
	}
}

func TestDirectory_incomplete(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(d *Directory, key digest.Digest) error{
		"no_layer":        func(d *Directory, _ digest.Digest) error { return d.root.Remove(blobFile(digest.FromBytes(layer))) },
		"truncated_layer": func(d *Directory, _ digest.Digest) error { return truncate(d, blobFile(digest.FromBytes(layer)), 3) },
		"truncated_entry": func(d *Directory, key digest.Digest) error { return truncate(d, keyFile(key), 3) },
		"huge_entry":      func(d *Directory, key digest.Digest) error { return truncate(d, keyFile(key), maxEntry+1) },
		"directory": func(d *Directory, key digest.Digest) error {
			return errors.Join(d.root.Remove(keyFile(key)), d.root.Mkdir(keyFile(key), 0o755))
		},
	} {
		d, key := newDirectory(t), digest.FromString("key")
		assert.NilError(t, d.Put(t.Context(), []digest.Digest{key}, entry(), bytes.NewReader(layer)))
		assert.NilError(t, spoil(d, key))
		_, err := d.Get(t.Context(), key)
		assert.Check(t, errors.Is(err, ErrMiss) && err != ErrMiss, "%s: %v", name, err)
	}
}

// A truncated layer is written again, and writers do not meet.
func TestDirectory_many_writers(t *testing.T) {
	t.Parallel()
	d, key := newDirectory(t), digest.FromString("key")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() { assert.Check(t, d.Put(t.Context(), []digest.Digest{key}, entry(), bytes.NewReader(layer))) })
	}
	group.Wait()
	assert.NilError(t, truncate(d, blobFile(digest.FromBytes(layer)), 3))
	assert.NilError(t, d.Put(t.Context(), []digest.Digest{key}, entry(), bytes.NewReader(layer)))
	_, err := d.Get(t.Context(), key)
	assert.NilError(t, err)
	parts, err := fs.Glob(d.root.FS(), "*/*/.part-*")
	assert.NilError(t, err)
	assert.Check(t, is.Len(parts, 0))
}

func truncate(d *Directory, name string, size int64) error {
	f, err := d.root.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

type fake struct {
	entry *Entry
	err   error
	puts  int
}

func (f *fake) Get(context.Context, digest.Digest) (*Entry, error) { return f.entry, f.err }

func (f *fake) Put(context.Context, []digest.Digest, Entry, io.ReaderAt) error {
	f.puts++
	return f.err
}

func TestSeveral(t *testing.T) {
	t.Parallel()
	reason := errors.New("reason")
	broken := &fake{err: errors.Join(ErrMiss, reason)}
	miss := &fake{err: ErrMiss}
	one, two := &fake{entry: &Entry{Ref: "one"}}, &fake{entry: &Entry{Ref: "two"}}
	key := digest.FromString("key")

	e, err := (&Several{From: []Cache{miss, broken, one, two}}).Get(t.Context(), key)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(e.Ref, "one"))
	_, err = (&Several{From: []Cache{miss, broken}}).Get(t.Context(), key)
	assert.Check(t, errors.Is(err, reason) && errors.Is(err, ErrMiss), "%v", err)
	_, err = (&Several{}).Get(t.Context(), key)
	assert.Check(t, err == ErrMiss, "%v", err)

	err = (&Several{To: []Cache{broken, one}}).Put(t.Context(), []digest.Digest{key}, entry(), nil)
	assert.Check(t, errors.Is(err, reason), "%v", err)
	assert.Check(t, is.Equal(one.puts, 1))
}

func TestSeveral_Carry(t *testing.T) {
	t.Parallel()
	key := digest.FromString("key")
	asked := 0
	content := func() (io.ReaderAt, error) {
		asked++
		return bytes.NewReader(layer), nil
	}
	// The way of a CI job that keeps a directory of what it used last.
	older, newer, newest := newDirectory(t), newDirectory(t), newDirectory(t)
	assert.NilError(t, older.Put(t.Context(), []digest.Digest{key}, entry(), bytes.NewReader(layer)))
	s := &Several{From: []Cache{older}, To: []Cache{newer, newest}}
	for range 2 {
		e, err := s.Get(t.Context(), key)
		assert.NilError(t, err)
		assert.NilError(t, s.Carry(t.Context(), key, *e, content))
		assert.Check(t, is.Equal(asked, 1))
	}
	for _, d := range []*Directory{newer, newest} {
		e, err := d.Get(t.Context(), key)
		assert.NilError(t, err)
		assert.Check(t, is.Equal(e.Layer.Digest, entry().Layer.Digest))
	}

	// One cache to read and to write costs nothing more.
	requests := 0
	r := newRegistry(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests++
			h.ServeHTTP(w, r)
		})
	})
	assert.NilError(t, r.Put(t.Context(), []digest.Digest{key}, entry(), bytes.NewReader(layer)))
	other := *r
	e, err := r.Get(t.Context(), key)
	assert.NilError(t, err)
	requests = 0
	assert.NilError(t, (&Several{From: []Cache{r}, To: []Cache{&other}}).Carry(t.Context(), key, *e, content))
	assert.Check(t, is.Equal(requests, 0))
	assert.Check(t, is.Equal(asked, 1))

	failed := errors.New("no layer")
	err = (&Several{To: []Cache{newDirectory(t)}}).Carry(t.Context(), key, *e, func() (io.ReaderAt, error) { return nil, failed })
	assert.Check(t, is.ErrorIs(err, failed))
}
