package registry

import (
	"errors"
	"net/http"
	"testing"

	"gotest.tools/v3/assert"
)

func TestCheckPush(t *testing.T) {
	t.Parallel()
	rec := &recorder{next: inMemory()}
	repo := serve(t, rec)
	c := newClient(t, Options{})
	assert.NilError(t, c.Prepare(t.Context(), repo))
	assert.NilError(t, c.CheckPush(t.Context(), repo))
	assert.Equal(t, rec.count("PUT", ""), 0)
	assert.Equal(t, rec.count("HEAD", ""), 0)

	readOnly := inMemory()
	repo = serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPost {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		readOnly.ServeHTTP(w, req)
	}))
	err := c.CheckPush(t.Context(), repo.WithTag("1"))
	assert.Assert(t, errors.Is(err, ErrDenied), "%v", err)
	assert.ErrorContains(t, err, "trying to push to "+repo.Name()+": ")
}
