package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

func TestUploads(t *testing.T) {
	t.Parallel()
	const size = 3_000_000
	data, desc := blobOf(size)
	is := func(req *http.Request, method string, n, want int) bool { return req.Method == method && n == want }
	for _, tc := range []struct {
		name  string
		fault func(u *uploads, w http.ResponseWriter, req *http.Request, n int) bool
		want  error
		text  string
		log   string
	}{
		{"plain", nil, nil, "", "HEAD POST PATCH PUT"},
		{"present", func(_ *uploads, w http.ResponseWriter, req *http.Request, _ int) bool {
			return req.Method == http.MethodHead
		}, nil, "", "HEAD"},
		{"open_fails_once", func(_ *uploads, w http.ResponseWriter, req *http.Request, n int) bool {
			if is(req, "POST", n, 1) {
				w.WriteHeader(503)
				return true
			}
			return false
		}, nil, "", "HEAD POST POST PATCH PUT"},
		{"cut_in_the_middle", func(u *uploads, w http.ResponseWriter, req *http.Request, n int) bool {
			if is(req, "PATCH", n, 1) {
				u.take(req, 1_000_000)
				hangUp(w)
				return true
			}
			return false
		}, nil, "", "HEAD POST PATCH GET PATCH[1000000-2999999] PUT"},
		{"cut_before_anything_arrived", func(u *uploads, w http.ResponseWriter, req *http.Request, n int) bool {
			if is(req, "PATCH", n, 1) {
				hangUp(w)
				return true
			}
			return false
		}, nil, "", "HEAD POST PATCH GET DELETE POST PATCH PUT"},
		{"cut_after_everything_arrived", func(u *uploads, w http.ResponseWriter, req *http.Request, n int) bool {
			if is(req, "PATCH", n, 1) {
				u.take(req, size)
				hangUp(w)
				return true
			}
			return false
		}, nil, "", "HEAD POST PATCH GET PUT"},
		{"server_error_while_sending", func(u *uploads, w http.ResponseWriter, req *http.Request, n int) bool {
			if is(req, "PATCH", n, 1) {
				u.take(req, size)
				u.got = u.got[:2_000_000]
				w.WriteHeader(502)
				return true
			}
			return false
		}, nil, "", "HEAD POST PATCH GET PATCH[2000000-2999999] PUT"},
		{"session_forgotten", func(u *uploads, w http.ResponseWriter, req *http.Request, n int) bool {
			if is(req, "PATCH", n, 1) {
				u.take(req, 1_000_000)
				u.session++
				hangUp(w)
				return true
			}
			return false
		}, nil, "", "HEAD POST PATCH GET POST PATCH PUT"},
		{"status_not_supported", func(u *uploads, w http.ResponseWriter, req *http.Request, n int) bool {
			if is(req, "PATCH", n, 1) {
				u.take(req, 1_000_000)
				hangUp(w)
				return true
			}
			if req.Method == http.MethodGet {
				w.WriteHeader(405)
				return true
			}
			return false
		}, nil, "", "HEAD POST PATCH GET POST PATCH PUT"},
		{"range_not_satisfiable", func(u *uploads, w http.ResponseWriter, req *http.Request, n int) bool {
			switch {
			case is(req, "PATCH", n, 1):
				u.take(req, 1_000_000)
				hangUp(w)
				return true
			case is(req, "GET", n, 1):
				// Bytes that were on the way arrive after the answer.
				u.accepted(w, "0-499999")
				return true
			}
			return false
		}, nil, "", "HEAD POST PATCH GET PATCH[500000-2999999] GET PATCH[1000000-2999999] PUT"},
		{"put_together_wrongly", func(u *uploads, w http.ResponseWriter, req *http.Request, n int) bool {
			if is(req, "PUT", n, 1) {
				u.got[17]++
			}
			return false
		}, nil, "", "HEAD POST PATCH PUT POST PATCH PUT"},
		{"without_patch", func(u *uploads, w http.ResponseWriter, req *http.Request, _ int) bool {
			if req.Method == http.MethodPatch {
				io.Copy(io.Discard, req.Body)
				w.WriteHeader(405)
				return true
			}
			return false
		}, nil, "", "HEAD POST PATCH DELETE POST PUT"},
		{"answer_to_commit_lost", func(u *uploads, w http.ResponseWriter, req *http.Request, n int) bool {
			if is(req, "PUT", n, 1) {
				u.blob = u.got
				u.session++
				hangUp(w)
				return true
			}
			return false
		}, nil, "", "HEAD POST PATCH PUT PUT HEAD"},
		{"always_cut", func(u *uploads, w http.ResponseWriter, req *http.Request, _ int) bool {
			if req.Method == http.MethodPatch {
				hangUp(w)
				return true
			}
			return false
		}, ErrUnavailable, "after 4 tries in ", "HEAD POST PATCH GET DELETE POST PATCH GET DELETE POST PATCH GET DELETE POST PATCH GET DELETE"},
		{"denied", func(_ *uploads, w http.ResponseWriter, req *http.Request, _ int) bool {
			if req.Method == http.MethodPost {
				w.WriteHeader(403)
				return true
			}
			return false
		}, ErrDenied, "docker login", "HEAD POST"},
		{"too_large", func(_ *uploads, w http.ResponseWriter, req *http.Request, _ int) bool {
			if req.Method == http.MethodPatch {
				io.Copy(io.Discard, req.Body)
				w.WriteHeader(413)
				return true
			}
			return false
		}, ErrRejected, "413 Request Entity Too Large", "HEAD POST PATCH DELETE"},
		{"other_digest_stored", func(u *uploads, w http.ResponseWriter, req *http.Request, _ int) bool {
			if req.Method == http.MethodPut {
				w.Header().Set("Docker-Content-Digest", someDigest)
				w.WriteHeader(201)
				return true
			}
			return false
		}, ErrCorrupt, "stored it as " + someDigest, "HEAD POST PATCH PUT DELETE"},
		{"no_location", func(u *uploads, w http.ResponseWriter, req *http.Request, _ int) bool {
			if req.Method == http.MethodPost {
				w.WriteHeader(202)
				return true
			}
			return false
		}, ErrRejected, "without saying where", "HEAD POST"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			u := &uploads{fault: tc.fault}
			repo := serve(t, u)
			var last int64
			err := newClient(t, Options{}).PushBlob(t.Context(), repo, desc, bytes.NewReader(data), func(n int64) { last = n })
			assert.Assert(t, errors.Is(err, tc.want), "%v", err)
			assert.Equal(t, u.log(), tc.log)
			if tc.want != nil {
				contains(t, err, repo.WithDigest(desc.Digest).String(), tc.text)
				return
			}
			assert.Equal(t, last, int64(size))
			if tc.name != "present" {
				assert.Assert(t, bytes.Equal(u.blob, data))
			}
		})
	}
}

func TestUploadOfOtherContentIsRejected(t *testing.T) {
	t.Parallel()
	data, desc := blobOf(1000)
	data[3]++
	u := &uploads{}
	err := newClient(t, Options{}).PushBlob(t.Context(), serve(t, u), desc, bytes.NewReader(data), nil)
	assert.Assert(t, errors.Is(err, ErrRejected), "%v", err)
	contains(t, err, "DIGEST_INVALID")
	assert.Assert(t, u.blob == nil)
}

func TestContentThatCannotBeRead(t *testing.T) {
	t.Parallel()
	data, desc := blobOf(200_000)
	u := &uploads{}
	repo := serve(t, u)
	err := newClient(t, Options{}).PushBlob(t.Context(), repo, desc, bytes.NewReader(data[:150_000]), nil)
	contains(t, err, "it ends after 150000 of 200000 bytes")
	assert.Assert(t, !errors.Is(err, ErrUnavailable))
	assert.Equal(t, u.counts["PATCH"], 1, "the disk's errors are not retried")
}

func TestEmptyBlobIsPushed(t *testing.T) {
	t.Parallel()
	_, desc := blobOf(0)
	u := &uploads{}
	assert.NilError(t, newClient(t, Options{}).PushBlob(t.Context(), serve(t, u), desc, bytes.NewReader(nil), nil))
	assert.Equal(t, u.log(), "HEAD POST PUT")
}

func TestIdleUploadIsResumed(t *testing.T) {
	t.Parallel()
	// More than the buffers of a loopback connection hold.
	data, desc := blobOf(20_000_000)
	release := make(chan struct{})
	u := &uploads{}
	u.fault = func(u *uploads, w http.ResponseWriter, req *http.Request, n int) bool {
		if req.Method == http.MethodPatch && n == 1 {
			u.take(req, 100_000)
			u.mu.Unlock()
			<-release
			u.mu.Lock()
			return true
		}
		return false
	}
	repo := serve(t, u)
	t.Cleanup(func() { close(release) })
	c := newClient(t, Options{})
	c.idle = 300 * time.Millisecond
	assert.NilError(t, c.PushBlob(t.Context(), repo, desc, bytes.NewReader(data), nil))
	// On a busy machine it may be resumed more than once.
	assert.Assert(t, strings.HasPrefix(u.log(), "HEAD POST PATCH GET PATCH[100000-19999999]"), u.log())
	assert.Assert(t, bytes.Equal(u.blob, data))
}

func TestCancelledUpload(t *testing.T) {
	t.Parallel()
	data, desc := blobOf(100_000)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stopped by the user")
	u := &uploads{fault: func(_ *uploads, w http.ResponseWriter, req *http.Request, _ int) bool {
		if req.Method == http.MethodPatch {
			cancel(stop)
			hangUp(w)
			return true
		}
		return false
	}}
	err := newClient(t, Options{}).PushBlob(ctx, serve(t, u), desc, bytes.NewReader(data), nil)
	assert.Assert(t, errors.Is(err, stop), "%v", err)
	assert.Equal(t, u.log(), "HEAD POST PATCH DELETE")
}

func TestTokenEndsDuringUpload(t *testing.T) {
	t.Parallel()
	data, desc := blobOf(5_000_000)
	u := &uploads{}
	// HEAD and POST use the first token up.
	s := &tokenRegistry{next: u, uses: 2, expires: 3600}
	assert.NilError(t, newClient(t, Options{}).PushBlob(t.Context(), serve(t, s), desc, bytes.NewReader(data), nil))
	assert.Assert(t, bytes.Equal(u.blob, data))
	assert.Assert(t, len(s.asked) > 1)
}

func TestLocationAtAnotherHostGetsNoCredentials(t *testing.T) {
	t.Parallel()
	data, desc := blobOf(1000)
	u := &uploads{}
	leaked := false
	store := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		leaked = leaked || req.Header.Get("Authorization") != ""
		u.ServeHTTP(w, req)
	}))
	u.fault = func(u *uploads, w http.ResponseWriter, req *http.Request, _ int) bool {
		if req.Method != http.MethodPost {
			return false
		}
		u.session++
		w.Header().Set("Location", fmt.Sprintf("http://%s/v2/acme/app/blobs/uploads/%d?_state=a%%20b%%2Bc/%%3D", store.Registry, u.session))
		w.WriteHeader(202)
		return true
	}
	repo := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, _, ok := req.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
			return
		}
		u.ServeHTTP(w, req)
	}))
	c := newClient(t, Options{Getenv: env("DOCKER_AUTH_CONFIG", authConfig(repo.Registry, "bob", "hunter22"))})
	assert.NilError(t, c.PushBlob(t.Context(), repo, desc, bytes.NewReader(data), nil))
	assert.Assert(t, bytes.Equal(u.blob, data))
	assert.Assert(t, !leaked)
}

func TestRangeEnd(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in   string
		want int64
		ok   bool
	}{{"0-99", 99, true}, {"bytes=0-99", 99, true}, {"0-0", 0, true}, {"", 0, false}, {"5-9", 9, false}, {"0-x", 0, false}, {"0--1", -1, true}} {
		got, ok := rangeEnd(tc.in)
		assert.Equal(t, ok, tc.ok, tc.in)
		assert.Equal(t, got, tc.want, tc.in)
	}
}

func TestSmallBlobsTakeOneRequestLess(t *testing.T) {
	t.Parallel()
	for size, log := range map[int]string{smallBlob: "HEAD POST PUT", smallBlob + 1: "HEAD POST PATCH PUT"} {
		data, desc := blobOf(size)
		u := &uploads{}
		assert.NilError(t, newClient(t, Options{}).PushBlob(t.Context(), serve(t, u), desc, bytes.NewReader(data), nil))
		assert.Equal(t, u.log(), log)
		assert.Assert(t, bytes.Equal(u.blob, data))
	}
	// What breaks starts anew.
	data, desc := blobOf(1000)
	u := &uploads{fault: func(u *uploads, w http.ResponseWriter, req *http.Request, n int) bool {
		if req.Method == http.MethodPut && n == 1 {
			u.take(req, 500)
			hangUp(w)
			return true
		}
		return false
	}}
	assert.NilError(t, newClient(t, Options{}).PushBlob(t.Context(), serve(t, u), desc, bytes.NewReader(data), nil))
	assert.Equal(t, u.log(), "HEAD POST PUT POST PUT")
	assert.Assert(t, bytes.Equal(u.blob, data))
}
