package local

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// impatient is a downloader that does not wait before it tries again.
func impatient(retries int) *downloader {
	if retries == 0 {
		retries = -1
	}
	return newDownloader(build.Retry{Count: retries, InitialDelay: time.Nanosecond, MaxDelay: time.Nanosecond})
}

type download struct {
	disposition string
	modified    time.Time
	err         error
	content     string
	// reports are pairs of received and total.
	reports [][2]int64
}

func fetch(t *testing.T, ctx context.Context, d *downloader, address string) download {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	assert.NilError(t, err)
	defer f.Close()
	var out download
	out.disposition, out.modified, out.err = d.Download(ctx, address, f, func(received, total int64) {
		out.reports = append(out.reports, [2]int64{received, total})
	})
	data, err := os.ReadFile(f.Name())
	assert.NilError(t, err)
	out.content = string(data)
	return out
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func TestDownload(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		header   map[string]string
		modified time.Time
	}{
		{"nothing_said", nil, time.Time{}},
		{"disposition", map[string]string{"Content-Disposition": `attachment; filename="a b.txt"`}, time.Time{}},
		{"last_modified", map[string]string{"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}, time.Date(2015, 10, 21, 7, 28, 0, 0, time.UTC)},
		{"last_modified_is_no_time", map[string]string{"Last-Modified": "yesterday"}, time.Time{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				for k, v := range tc.header {
					w.Header().Set(k, v)
				}
				fmt.Fprint(w, "hello "+r.URL.RawQuery)
			})
			got := fetch(t, t.Context(), impatient(0), s.URL+"/x?a=b")
			assert.NilError(t, got.err)
			assert.Check(t, is.Equal(got.content, "hello a=b"))
			assert.Check(t, is.Equal(got.disposition, tc.header["Content-Disposition"]))
			assert.Check(t, got.modified.Equal(tc.modified), got.modified)
			assert.Check(t, is.Equal(got.reports[len(got.reports)-1], [2]int64{9, 9}))
			assert.Check(t, is.Equal(got.reports[0][1], int64(9)))
		})
	}
}

func TestDownload_follows_redirects(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/x" {
			http.Redirect(w, r, "/y", http.StatusFound)
			return
		}
		fmt.Fprint(w, r.URL.Path)
	})
	got := fetch(t, t.Context(), impatient(0), s.URL+"/x")
	assert.NilError(t, got.err)
	assert.Check(t, is.Equal(got.content, "/y"))
}

// cutting sends a body that ends early the first times.
func cutting(t *testing.T, cuts int32) (*httptest.Server, *atomic.Int32) {
	var tries atomic.Int32
	return serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		if tries.Add(1) <= cuts {
			fmt.Fprint(w, "01234")
			return
		}
		fmt.Fprint(w, "abcdefghij")
	}), &tries
}

func TestDownload_starts_again_when_the_body_is_cut(t *testing.T) {
	t.Parallel()
	s, tries := cutting(t, downloadTries-1)
	got := fetch(t, t.Context(), impatient(0), s.URL)
	assert.NilError(t, got.err)
	assert.Check(t, is.Equal(got.content, "abcdefghij"))
	assert.Check(t, is.Equal(tries.Load(), int32(downloadTries)))

	s, tries = cutting(t, downloadTries)
	got = fetch(t, t.Context(), impatient(0), s.URL+"/x?token=hunter2")
	assert.Check(t, is.ErrorContains(got.err, "unexpected EOF"))
	assert.Check(t, is.ErrorIs(got.err, registry.ErrUnavailable))
	assert.Check(t, is.ErrorContains(got.err, "downloading "+s.URL+"/x?..."))
	assert.Check(t, !strings.Contains(got.err.Error(), "hunter2"), got.err)
	assert.Check(t, is.Equal(tries.Load(), int32(downloadTries)))
}

func TestDownload_errors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		status int
	}{
		{"not_found", http.StatusNotFound},
		{"forbidden", http.StatusForbidden},
		{"no_content", http.StatusNoContent},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var tries atomic.Int32
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				tries.Add(1)
				w.WriteHeader(tc.status)
			})
			got := fetch(t, t.Context(), impatient(3), strings.Replace(s.URL, "://", "://me:hunter2@", 1)+"/x?token=hunter3")
			assert.Check(t, is.ErrorContains(got.err, fmt.Sprintf("the server answered %d", tc.status)))
			assert.Check(t, is.ErrorContains(got.err, "/x?..."))
			assert.Check(t, !strings.Contains(got.err.Error(), "hunter"), got.err)
			_, ok := errors.AsType[*engine.SourceError](got.err)
			assert.Check(t, ok, "%T", got.err)
			assert.Check(t, is.Equal(tries.Load(), int32(1)))
			assert.Check(t, is.Equal(got.content, ""))
		})
	}
}

func TestDownload_tries_again_after_a_server_error(t *testing.T) {
	t.Parallel()
	var tries atomic.Int32
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if tries.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, "hello")
	})
	got := fetch(t, t.Context(), impatient(1), s.URL)
	assert.NilError(t, got.err)
	assert.Check(t, is.Equal(got.content, "hello"))
}

func TestDownload_unreachable(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(nil)
	s.Close()
	got := fetch(t, t.Context(), impatient(0), strings.Replace(s.URL, "://", "://me:hunter2@", 1)+"/x?token=hunter3")
	assert.Check(t, is.ErrorContains(got.err, "connection refused: check the address"))
	assert.Check(t, is.ErrorIs(got.err, registry.ErrUnavailable))
	assert.Check(t, !strings.Contains(got.err.Error(), "hunter"), got.err)
}

func TestDownload_stops_when_cancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var tries atomic.Int32
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		w.Header().Set("Content-Length", "10")
		fmt.Fprint(w, "01234")
		assert.Check(t, http.NewResponseController(w).Flush())
		cancel()
		<-r.Context().Done()
	})
	got := fetch(t, ctx, impatient(3), s.URL)
	assert.Check(t, is.ErrorIs(got.err, context.Canceled))
	assert.Check(t, is.Equal(tries.Load(), int32(1)))
}

func TestRedacted(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, in, want string }{
		{"plain", "https://h/x", "https://h/x"},
		{"query", "https://h/x?token=1&b=2", "https://h/x?..."},
		{"user", "https://token@h/x", "https://h/x"},
		{"password", "https://me:pw@h/x", "https://h/x"},
		{"both", "https://me:pw@h/x?a#f", "https://h/x?...#f"},
		{"no_url", "https://me:pw@h/%zz", "the URL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			assert.Check(t, is.Equal(redacted(tc.in), tc.want))
		})
	}
}
