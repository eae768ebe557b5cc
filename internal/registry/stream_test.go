package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
)

// slowBlob is a blob whose second half is there once ready is closed.
type slowBlob struct {
	data  []byte
	desc  ocispecs.Descriptor
	ready chan struct{}
	fail  error
}

func (s *slowBlob) ReadAt(p []byte, off int64) (int, error) {
	half := int64(len(s.data) / 2)
	if off < half {
		return copy(p, s.data[off:half]), nil
	}
	<-s.ready
	if s.fail != nil {
		return 0, s.fail
	}
	return bytes.NewReader(s.data).ReadAt(p, off)
}

func (s *slowBlob) Wait(context.Context) (ocispecs.Descriptor, error) {
	<-s.ready
	return s.desc, s.fail
}

func TestStreams(t *testing.T) {
	t.Parallel()
	const size = 2_000_000
	data, desc := blobOf(size)
	for _, tc := range []struct {
		name string
		// early takes what arrives of the first PATCH before the blob is complete;
		// false hangs up then.
		early func(u *uploads, w http.ResponseWriter, req *http.Request) bool
		fail  error
		want  error
		log   string
	}{
		{"plain", func(u *uploads, _ http.ResponseWriter, req *http.Request) bool {
			u.take(req, size/2)
			return true
		}, nil, nil, "POST PATCH PUT"},
		{"cut_before_it_is_complete", func(u *uploads, w http.ResponseWriter, req *http.Request) bool {
			u.take(req, size/2)
			hangUp(w)
			return false
		}, nil, nil, "POST PATCH GET PATCH[1000000-1999999] PUT"},
		{"without_patch", func(_ *uploads, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(405)
			return false
		}, nil, nil, "POST PATCH DELETE POST PUT"},
		{"cannot_be_made", func(u *uploads, _ http.ResponseWriter, req *http.Request) bool {
			u.take(req, size/2)
			return true
		}, io.ErrNoProgress, io.ErrNoProgress, "POST PATCH DELETE"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			blob := &slowBlob{data: data, desc: desc, ready: make(chan struct{}), fail: tc.fail}
			u := &uploads{fault: func(u *uploads, w http.ResponseWriter, req *http.Request, n int) bool {
				if req.Method != http.MethodPatch || n > 1 {
					return false
				}
				assert.Check(t, req.ContentLength < 0)
				goOn := tc.early(u, w, req)
				close(blob.ready)
				return !goOn
			}}
			repo := serve(t, u)
			var last int64
			got, err := newClient(t, Options{}).StreamBlob(t.Context(), repo, blob, func(n int64) { last = n })
			assert.Assert(t, errors.Is(err, tc.want), "%v", err)
			assert.Equal(t, u.log(), tc.log)
			if tc.want != nil {
				return
			}
			assert.DeepEqual(t, got, desc)
			assert.Equal(t, last, int64(size))
			assert.Assert(t, bytes.Equal(u.blob, data))
		})
	}
}
