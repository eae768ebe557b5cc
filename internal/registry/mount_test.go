package registry

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

func TestMountBlob(t *testing.T) {
	t.Parallel()
	_, desc := blobOf(10)
	for _, tc := range []struct {
		name   string
		status int
		want   bool
		fails  error
		log    string
	}{
		{"accepted", 201, true, nil, "POST"},
		{"declined", 202, false, nil, "POST DELETE"},
		{"denied", 403, false, nil, "POST"},
		{"not_supported", 405, false, nil, "POST"},
		{"broken", 500, false, ErrUnavailable, "POST POST POST POST"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			query := ""
			u := &uploads{fault: func(u *uploads, w http.ResponseWriter, req *http.Request, _ int) bool {
				if req.Method != http.MethodPost {
					return false
				}
				query = req.URL.RawQuery
				if tc.status == 202 {
					u.session++
					u.accepted(w, "")
					return true
				}
				w.WriteHeader(tc.status)
				return true
			}}
			to := serve(t, u)
			from := to
			from.Repository = "acme/base"
			got, err := newClient(t, Options{}).MountBlob(t.Context(), to, from, desc.Digest)
			assert.Assert(t, errors.Is(err, tc.fails), "%v", err)
			assert.Equal(t, got, tc.want)
			assert.Equal(t, u.log(), tc.log)
			assert.Equal(t, query, "from=acme%2Fbase&mount="+strings.Replace(desc.Digest.String(), ":", "%3A", 1))
		})
	}
	got, err := newClient(t, Options{}).MountBlob(t.Context(), Ref{Registry: "a.test", Repository: "x"}, Ref{Registry: "b.test", Repository: "x"}, desc.Digest)
	assert.NilError(t, err)
	assert.Assert(t, !got, "registries differ")
}

func TestMountAsksForBothScopes(t *testing.T) {
	t.Parallel()
	s := &tokenRegistry{next: &uploads{}, expires: 300}
	to := serve(t, s)
	from := to
	from.Repository = "acme/base"
	_, desc := blobOf(10)
	_, err := newClient(t, Options{}).MountBlob(t.Context(), to, from, desc.Digest)
	assert.NilError(t, err)
	assert.Equal(t, s.asked[0], " repository:acme/app:pull,push repository:acme/base:pull")
}
