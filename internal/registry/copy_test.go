package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
)

func TestCopyImage(t *testing.T) {
	t.Parallel()
	amd, arm := platform(t, "linux/amd64"), platform(t, "linux/arm64")
	for _, tc := range []struct {
		name      string
		elsewhere bool
		index     bool
		tag       string
	}{
		{"manifest_to_repository", false, false, ""},
		{"manifest_to_tag", false, false, "new"},
		{"manifest_to_registry", true, false, "new"},
		{"index_to_registry", true, true, "new"},
		{"index_by_digest", true, true, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, Options{})
			from := serve(t, inMemory())
			to := from
			if tc.elsewhere {
				to = serve(t, inMemory())
			}
			to.Repository, to.Tag = "acme/other", tc.tag
			d := pushImage(t, c, from, arm)
			if tc.index {
				d = pushIndex(t, c, from, pushImage(t, c, from, amd), d)
			}
			assert.NilError(t, c.CopyImage(t.Context(), to, from.WithDigest(d.Digest)))
			want := to
			if tc.tag == "" {
				want = to.WithDigest(d.Digest)
			}
			img, err := c.Image(t.Context(), want, arm)
			assert.NilError(t, err)
			assert.Equal(t, img.Root, d.Digest)
			b, err := c.Blob(t.Context(), img.Ref, img.Manifest.Layers[0])
			assert.NilError(t, err)
			data, err := io.ReadAll(b)
			assert.NilError(t, err)
			assert.Equal(t, string(data), "layer of arm64")
			// Again, which finds everything there.
			assert.NilError(t, c.CopyImage(t.Context(), to, from.WithDigest(d.Digest)))
		})
	}
}

func TestCopyImageErrors(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{})
	repo := serve(t, inMemory())
	to := repo
	to.Repository = "acme/other"
	assert.ErrorContains(t, c.CopyImage(t.Context(), to, repo.WithTag("1")), "name it by digest")
	assert.ErrorContains(t, c.CopyImage(t.Context(), to.WithDigest(someDigest), repo.WithDigest("sha256:00")), "digests differ")
	err := c.CopyImage(t.Context(), to, repo.WithDigest(someDigest))
	assert.Assert(t, errors.Is(err, ErrNotFound), "%v", err)
	contains(t, err, to.String(), repo.WithDigest(someDigest).String())
}

// TestCopyStreamsOverBrokenConnections breaks both sides once.
func TestCopyStreamsOverBrokenConnections(t *testing.T) {
	t.Parallel()
	data, desc := blobOf(2_000_000)
	var gets atomic.Int32
	from, _ := blobServer(t, func(w http.ResponseWriter, _, offset int) {
		if gets.Add(1) == 1 {
			cut(w, 200, len(data), data[:1_500_000])
			return
		}
		sendRange(w, data, offset)
	})
	u := &uploads{fault: func(u *uploads, w http.ResponseWriter, req *http.Request, n int) bool {
		if req.Method == http.MethodPatch && n == 1 {
			u.take(req, 500_000)
			hangUp(w)
			return true
		}
		return false
	}}
	to := serve(t, u)
	assert.NilError(t, newClient(t, Options{}).copyBlob(t.Context(), to, from, desc))
	assert.Assert(t, bytes.Equal(u.blob, data))
}

func TestCopyOfABrokenSource(t *testing.T) {
	t.Parallel()
	data, desc := blobOf(200_000)
	from, _ := blobServer(t, func(w http.ResponseWriter, _, offset int) {
		if offset < 0 {
			cut(w, 200, len(data), data[:100_000])
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", offset, len(data)-1, len(data)))
		cut(w, 206, len(data)-offset, nil)
	})
	u := &uploads{}
	err := newClient(t, Options{}).copyBlob(t.Context(), serve(t, u), from, desc)
	assert.Assert(t, errors.Is(err, ErrUnavailable), "%v", err)
	contains(t, err, from.Registry+" failed after 4 tries")
	assert.Equal(t, u.counts["PATCH"], 1)
}

func TestCopySkipsLayersThatLieElsewhere(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{})
	from := serve(t, inMemory())
	m := ocispecs.Manifest{MediaType: ocispecs.MediaTypeImageManifest}
	m.SchemaVersion = 2
	m.Config = push(t, c, from, []byte(`{"os":"windows","architecture":"amd64"}`), ocispecs.MediaTypeImageConfig)
	m.Layers = []ocispecs.Descriptor{{MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Digest: someDigest, Size: 3, URLs: []string{"https://x.test/layer"}}}
	d, err := c.PushManifest(t.Context(), from, m.MediaType, toJSON(t, m))
	assert.NilError(t, err)
	assert.NilError(t, c.CopyImage(t.Context(), serve(t, inMemory()), from.WithDigest(d.Digest)))
}
