package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

func TestDelay(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	r := Retry{InitialDelay: time.Second, MaxDelay: 10 * time.Second}
	for _, tc := range []struct {
		name     string
		n        int
		after    string
		low, top time.Duration
	}{
		{"first", 0, "", 0, time.Second},
		{"third", 2, "", 0, 4 * time.Second},
		{"capped", 8, "", 0, 10 * time.Second},
		{"no_overflow", 200, "", 0, 10 * time.Second},
		{"retry_after_seconds", 0, "7", 7 * time.Second, 7 * time.Second},
		{"retry_after_date", 0, "Mon, 23 Nov 2026 09:00:05 GMT", 5 * time.Second, 5 * time.Second},
		{"retry_after_past", 5, "Mon, 23 Nov 2026 08:00:00 GMT", 0, 0},
		{"retry_after_capped", 0, "3600", 10 * time.Second, 10 * time.Second},
		{"retry_after_nonsense", 0, "soon", 0, time.Second},
		{"retry_after_negative", 0, "-5", 0, time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := http.Header{}
			if tc.after != "" {
				h.Set("Retry-After", tc.after)
			}
			for range 100 {
				d := r.delay(tc.n, h, now)
				assert.Assert(t, d >= tc.low && d <= tc.top, "%s", d)
			}
		})
	}
	assert.Equal(t, Retry{}.delay(3, nil, now), time.Duration(0))
	assert.Equal(t, Retry{}.withDefaults(), Retry{defaultCount, defaultInitialDelay, defaultMaxDelay})
	assert.Equal(t, Retry{Count: -1}.withDefaults().Count, 0)
}

// flaky answers the first requests for manifests with a status.
func flaky(status, times int, h http.Header) (http.Handler, *atomic.Int32) {
	var n atomic.Int32
	next := inMemory()
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/v2/" && req.Method == http.MethodHead && int(n.Add(1)) <= times {
			for k := range h {
				w.Header().Set(k, h.Get(k))
			}
			w.WriteHeader(status)
			return
		}
		next.ServeHTTP(w, req)
	}), &n
}

func TestRetriesByStatus(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		status int
		times  int
		want   error
		tries  int32
	}{
		{http.StatusRequestTimeout, 1, nil, 2},
		{http.StatusTooManyRequests, 2, nil, 3},
		{http.StatusInternalServerError, 1, nil, 2},
		{http.StatusBadGateway, 1, nil, 2},
		{http.StatusServiceUnavailable, 2, nil, 3},
		{http.StatusGatewayTimeout, 3, nil, 4},
		{http.StatusServiceUnavailable, 4, ErrUnavailable, 4},
		{http.StatusNotFound, 1, ErrNotFound, 1},
		{http.StatusForbidden, 1, ErrDenied, 1},
		{http.StatusBadRequest, 1, ErrRejected, 1},
		{http.StatusNotImplemented, 1, ErrRejected, 1},
	} {
		t.Run(fmt.Sprintf("%d_%d_times", tc.status, tc.times), func(t *testing.T) {
			t.Parallel()
			h, n := flaky(tc.status, tc.times, nil)
			ref := serve(t, h).WithTag("1")
			c := newClient(t, Options{})
			_, err := c.PushManifest(t.Context(), ref, "application/vnd.oci.image.index.v1+json", []byte(`{"schemaVersion":2,"manifests":[]}`))
			assert.NilError(t, err)
			_, err = c.Head(t.Context(), ref)
			assert.Assert(t, errors.Is(err, tc.want), "%v", err)
			assert.Equal(t, n.Load(), tc.tries)
			if err != nil {
				contains(t, err, ref.String())
			}
			if errors.Is(err, ErrUnavailable) {
				contains(t, err, "after 4 tries in ", "503 Service Unavailable")
			}
		})
	}
}

func TestManifestPutIsRetried(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		status int
		body   string
		want   error
		puts   int
	}{
		{"server_error", 500, "", nil, 2},
		{"blob_not_seen_yet", 400, `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}`, nil, 2},
		{"invalid", 400, `{"errors":[{"code":"MANIFEST_INVALID","message":"no"}]}`, ErrRejected, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int32
			next := inMemory()
			rec := &recorder{next: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.Method == http.MethodPut && n.Add(1) == 1 {
					w.WriteHeader(tc.status)
					fmt.Fprint(w, tc.body)
					return
				}
				next.ServeHTTP(w, req)
			})}
			ref := serve(t, rec).WithTag("1")
			_, err := newClient(t, Options{}).PushManifest(t.Context(), ref, "application/vnd.oci.image.index.v1+json", []byte(`{"schemaVersion":2,"manifests":[]}`))
			assert.Assert(t, errors.Is(err, tc.want), "%v", err)
			assert.Equal(t, rec.count("PUT", "/manifests/1"), tc.puts)
			if err != nil {
				contains(t, err, "MANIFEST_INVALID: no")
			}
		})
	}
}

func TestUnreachableHost(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	ref := Ref{Registry: l.Addr().String(), Repository: "acme/app", Tag: "1"}
	l.Close()
	_, _, err = newClient(t, Options{}).Manifest(t.Context(), ref)
	assert.Assert(t, errors.Is(err, ErrUnavailable))
	contains(t, err, ref.String(), "after 4 tries in ", "connection refused")
}

// cancelOn ends a context with the first log record, so at the first retry.
type cancelOn struct {
	slog.Handler
	cancel func()
}

func (h cancelOn) Handle(context.Context, slog.Record) error {
	h.cancel()
	return nil
}

func (h cancelOn) Enabled(context.Context, slog.Level) bool { return true }

func TestCancellationEndsTheWait(t *testing.T) {
	t.Parallel()
	stop := errors.New("stopped by the user")
	for _, tc := range []struct{ name, path string }{{"small", "manifests"}, {"blob", "blobs"}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancelCause(t.Context())
			ref := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.URL.Path != "/v2/" {
					w.Header().Set("Retry-After", "3600")
					w.WriteHeader(503)
					cancel(stop)
				}
			}))
			_, desc := blobOf(10)
			// Without the cancellation this would wait for an hour.
			c := newClient(t, Options{Retry: Retry{Count: 3, InitialDelay: time.Hour, MaxDelay: time.Hour}})
			var err error
			if tc.path == "blobs" {
				_, err = c.Blob(ctx, ref, desc)
			} else {
				_, _, err = c.Manifest(ctx, ref.WithTag("1"))
			}
			assert.Assert(t, errors.Is(err, stop), "%v", err)
			assert.Assert(t, !errors.Is(err, ErrUnavailable))
		})
	}
}

func TestRetriesAreLogged(t *testing.T) {
	t.Parallel()
	h, _ := flaky(503, 1, nil)
	logged := 0
	c := newClient(t, Options{Log: slog.New(cancelOn{slog.DiscardHandler, func() { logged++ }})})
	_, err := c.Head(t.Context(), serve(t, h).WithTag("1"))
	assert.Assert(t, errors.Is(err, ErrNotFound))
	assert.Equal(t, logged, 1)
}
