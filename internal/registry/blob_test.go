package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
)

// blobServer answers GETs of blobs: try counts from 1, offset is that of the
// Range header, -1 without.
func blobServer(t *testing.T, answer func(w http.ResponseWriter, try int, offset int)) (Ref, *atomic.Int32) {
	var n atomic.Int32
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/v2/" {
			return
		}
		offset := -1
		if _, err := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &offset); err != nil {
			offset = -1
		}
		answer(w, int(n.Add(1)), offset)
	})), &n
}

func sendRange(w http.ResponseWriter, data []byte, offset int) {
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", offset, len(data)-1, len(data)))
	w.WriteHeader(http.StatusPartialContent)
	w.Write(data[offset:])
}

func TestBlobDownloads(t *testing.T) {
	t.Parallel()
	const size = 300_000
	data, desc := blobOf(size)
	for _, tc := range []struct {
		name   string
		answer func(w http.ResponseWriter, try, offset int)
		want   error
		text   string
		tries  int32
	}{
		{"whole", func(w http.ResponseWriter, _, _ int) { w.Write(data) }, nil, "", 1},
		{"cut_then_range", func(w http.ResponseWriter, try, offset int) {
			if try == 1 {
				cut(w, 200, size, data[:size/2])
				return
			}
			sendRange(w, data, offset)
		}, nil, "", 2},
		{"cut_many_times_with_progress", func(w http.ResponseWriter, try, offset int) {
			if offset < 0 {
				cut(w, 200, size, data[:70_000])
				return
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", offset, size-1, size))
			cut(w, 206, size-offset, data[offset:min(offset+70_000, size)])
		}, nil, "", 5},
		{"range_ignored", func(w http.ResponseWriter, try, _ int) {
			if try == 1 {
				cut(w, 200, size, data[:size/2])
				return
			}
			w.Write(data)
		}, nil, "", 2},
		{"range_refused", func(w http.ResponseWriter, try, offset int) {
			switch {
			case try == 1:
				cut(w, 200, size, data[:size/2])
			case offset >= 0:
				w.WriteHeader(416)
			default:
				w.Write(data)
			}
		}, nil, "", 3},
		{"range_starts_elsewhere", func(w http.ResponseWriter, try, offset int) {
			switch {
			case try == 1:
				cut(w, 200, size, data[:size/2])
			case offset >= 0:
				sendRange(w, data, offset-10)
			default:
				w.Write(data)
			}
		}, nil, "", 3},
		{"cut_while_skipping", func(w http.ResponseWriter, try, _ int) {
			switch try {
			case 1:
				cut(w, 200, size, data[:size/2])
			case 2:
				cut(w, 200, size, data[:size/4])
			default:
				w.Write(data)
			}
		}, nil, "", 3},
		{"server_error_while_resuming", func(w http.ResponseWriter, try, offset int) {
			switch try {
			case 1:
				cut(w, 200, size, data[:size/2])
			case 2:
				w.WriteHeader(503)
			default:
				sendRange(w, data, offset)
			}
		}, nil, "", 3},
		{"no_progress", func(w http.ResponseWriter, try, offset int) {
			if try == 1 {
				cut(w, 200, size, data[:size/2])
				return
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", offset, size-1, size))
			cut(w, 206, size-offset, nil)
		}, ErrUnavailable, "after 4 tries", 4},
		{"gone_while_resuming", func(w http.ResponseWriter, try, _ int) {
			if try == 1 {
				cut(w, 200, size, data[:size/2])
				return
			}
			w.WriteHeader(404)
		}, ErrNotFound, "404 Not Found", 2},
		{"other_content", func(w http.ResponseWriter, _, _ int) {
			w.Write(append([]byte("x"), data[1:]...))
		}, ErrCorrupt, "another digest", 1},
		{"other_tail_after_resume", func(w http.ResponseWriter, try, offset int) {
			if try == 1 {
				cut(w, 200, size, data[:size/2])
				return
			}
			other := append([]byte{}, data...)
			other[size-1]++
			sendRange(w, other, offset)
		}, ErrCorrupt, "another digest", 2},
		{"too_short_by_its_own_word", func(w http.ResponseWriter, _, _ int) {
			w.Header().Set("Content-Length", fmt.Sprint(size-1))
			w.Write(data[:size-1])
		}, ErrCorrupt, "299999 bytes of it instead of 300000", 1},
		{"too_long_by_its_own_word", func(w http.ResponseWriter, _, _ int) {
			w.Header().Set("Content-Length", fmt.Sprint(size+1))
			w.Write(append(data[:size:size], 'x'))
		}, ErrCorrupt, "300001 bytes of it", 1},
		{"too_long_without_length", func(w http.ResponseWriter, _, _ int) {
			w.Write(data)
			http.NewResponseController(w).Flush()
			w.Write([]byte("x"))
		}, ErrCorrupt, "more than its 300000 bytes", 1},
		{"too_short_without_length", func(w http.ResponseWriter, _, offset int) {
			if offset < 0 {
				http.NewResponseController(w).Flush()
				w.Write(data[:size-5])
				return
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", offset, size-1, size))
			w.WriteHeader(206)
		}, ErrUnavailable, "unexpected EOF", 4},
		{"missing", func(w http.ResponseWriter, _, _ int) { w.WriteHeader(404) }, ErrNotFound, "404", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			repo, tries := blobServer(t, tc.answer)
			c := newClient(t, Options{})
			var got []byte
			b, err := c.Blob(t.Context(), repo, desc)
			if err == nil {
				defer b.Close()
				got, err = io.ReadAll(b)
			}
			assert.Assert(t, errors.Is(err, tc.want), "%v", err)
			assert.Equal(t, tries.Load(), tc.tries)
			if tc.want == nil {
				assert.Assert(t, string(got) == string(data))
				return
			}
			contains(t, err, repo.WithDigest(desc.Digest).String(), tc.text)
			if b != nil {
				_, again := b.Read(make([]byte, 1))
				assert.Equal(t, again, err, "the error stays")
			}
		})
	}
}

func TestBlobIdleConnectionIsResumed(t *testing.T) {
	t.Parallel()
	data, desc := blobOf(100_000)
	done := make(chan struct{})
	repo, tries := blobServer(t, func(w http.ResponseWriter, try, offset int) {
		if try == 1 {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			w.Write(data[:50_000])
			http.NewResponseController(w).Flush()
			<-done
			return
		}
		sendRange(w, data, offset)
	})
	t.Cleanup(func() { close(done) })
	c := newClient(t, Options{})
	c.idle = 300 * time.Millisecond
	b, err := c.Blob(t.Context(), repo, desc)
	assert.NilError(t, err)
	got, err := io.ReadAll(b)
	assert.NilError(t, err)
	assert.Assert(t, string(got) == string(data))
	assert.Assert(t, tries.Load() >= 2)
}

func TestBlobWithoutAnAnswerIsAskedAgain(t *testing.T) {
	t.Parallel()
	data, desc := blobOf(100)
	done := make(chan struct{})
	repo, tries := blobServer(t, func(w http.ResponseWriter, try, _ int) {
		if try == 1 {
			<-done
			return
		}
		w.Write(data)
	})
	t.Cleanup(func() { close(done) })
	c := newClient(t, Options{})
	c.idle = 300 * time.Millisecond
	b, err := c.Blob(t.Context(), repo, desc)
	assert.NilError(t, err)
	_, err = io.ReadAll(b)
	assert.NilError(t, err)
	assert.Assert(t, tries.Load() >= 2)
}

func TestEmptyBlob(t *testing.T) {
	t.Parallel()
	_, desc := blobOf(0)
	repo, _ := blobServer(t, func(http.ResponseWriter, int, int) {})
	b, err := newClient(t, Options{}).Blob(t.Context(), repo, desc)
	assert.NilError(t, err)
	got, err := io.ReadAll(b)
	assert.NilError(t, err)
	assert.Equal(t, len(got), 0)
}

func TestPlacesForDownloadsAreGivenBack(t *testing.T) {
	t.Parallel()
	data, desc := blobOf(10)
	repo, _ := blobServer(t, func(w http.ResponseWriter, _, _ int) { w.Write(data) })
	c := newClient(t, Options{})
	for i := range 3 * maxDownloads {
		b, err := c.Blob(t.Context(), repo, desc)
		assert.NilError(t, err)
		if i%2 == 0 {
			// Read to the end but never closed.
			_, err := io.ReadAll(b)
			assert.NilError(t, err)
			continue
		}
		assert.NilError(t, b.Close())
		assert.NilError(t, b.Close())
		_, err = b.Read(make([]byte, 1))
		assert.ErrorContains(t, err, "closed")
	}
	bad := ocispecs.Descriptor{Digest: "sha256:12", Size: 1}
	for range 3 * maxDownloads {
		_, err := c.Blob(t.Context(), repo, bad)
		assert.ErrorContains(t, err, "invalid")
	}
}

func TestHasBlob(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{})
	repo := serve(t, inMemory())
	data, desc := blobOf(10)
	ok, err := c.HasBlob(t.Context(), repo, desc.Digest)
	assert.NilError(t, err)
	assert.Assert(t, !ok)
	push(t, c, repo, data, desc.MediaType)
	ok, err = c.HasBlob(t.Context(), repo, desc.Digest)
	assert.NilError(t, err)
	assert.Assert(t, ok)
}

func TestRedirectsDoNotTakeCredentialsAlong(t *testing.T) {
	t.Parallel()
	data, desc := blobOf(1000)
	var leaked atomic.Int32
	var fail atomic.Bool
	store := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != "" || req.Header.Get("Referer") != "" {
			leaked.Add(1)
		}
		if fail.Load() {
			cut(w, 200, len(data), data[:10])
			return
		}
		w.Write(data)
	}))
	var seen atomic.Int32
	repo := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if u, p, ok := req.BasicAuth(); !ok || u != "bob" || p != "hunter22" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
			return
		}
		seen.Add(1)
		http.Redirect(w, req, "http://"+store.Registry+"/blob?X-Signature=s3cr3t", http.StatusTemporaryRedirect)
	}))
	c := newClient(t, Options{Getenv: env("DOCKER_AUTH_CONFIG", authConfig(repo.Registry, "bob", "hunter22"))})
	b, err := c.Blob(t.Context(), repo, desc)
	assert.NilError(t, err)
	_, err = io.ReadAll(b)
	assert.NilError(t, err)
	assert.Equal(t, leaked.Load(), int32(0))
	assert.Assert(t, seen.Load() > 0)

	fail.Store(true)
	b, err = c.Blob(t.Context(), repo, desc)
	assert.NilError(t, err)
	_, err = io.ReadAll(b)
	assert.Assert(t, errors.Is(err, ErrUnavailable), "%v", err)
	for _, secret := range []string{"s3cr3t", "hunter22", "X-Signature"} {
		assert.Assert(t, !strings.Contains(err.Error(), secret), "%v", err)
	}
	assert.Equal(t, leaked.Load(), int32(0))
}
