package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// downloadTries is how often a download that breaks off is started again.
const downloadTries = 3

// downloader fetches what ADD names by URL.
type downloader struct{ client *retryablehttp.Client }

func newDownloader(r build.Retry) *downloader {
	c := retryablehttp.NewClient()
	c.Logger = nil
	// The library's own error has the whole address, tokens included.
	c.ErrorHandler = retryablehttp.PassthroughErrorHandler
	if r.Count != 0 {
		c.RetryMax = max(0, r.Count)
	}
	if r.InitialDelay > 0 {
		c.RetryWaitMin = r.InitialDelay
	}
	if r.MaxDelay > 0 {
		c.RetryWaitMax = max(r.MaxDelay, c.RetryWaitMin)
	}
	return &downloader{client: c}
}

func (d *downloader) Download(ctx context.Context, address string, f *os.File, report func(received, total int64)) (disposition string, modified time.Time, err error) {
	for try := 1; ; try++ {
		disposition, modified, err = d.once(ctx, address, f, report)
		var broken *brokenOffError
		if err == nil || try == downloadTries || ctx.Err() != nil || !errors.As(err, &broken) {
			return disposition, modified, err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return "", time.Time{}, err
		}
		if err := f.Truncate(0); err != nil {
			return "", time.Time{}, err
		}
	}
}

// brokenOffError is a body that ended early: worth another try.
type brokenOffError struct{ err error }

func (e *brokenOffError) Error() string { return e.err.Error() }
func (e *brokenOffError) Unwrap() error { return e.err }

func (d *downloader) once(ctx context.Context, address string, f *os.File, report func(received, total int64)) (string, time.Time, error) {
	name := redacted(address)
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("downloading %s: %w", name, withoutURL(err))
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("downloading %s: %w: %w: check the address, and HTTPS_PROXY where a proxy leads out", name, registry.ErrUnavailable, withoutURL(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		return "", time.Time{}, fmt.Errorf("downloading %s: %w: the server answered %s", name, registry.ErrUnavailable, resp.Status)
	}
	if resp.StatusCode != http.StatusOK {
		return "", time.Time{}, &engine.SourceError{Err: fmt.Errorf("downloading %s: the server answered %s: check the URL", name, resp.Status)}
	}
	body := &countingReader{r: resp.Body, report: func(n int64) { report(n, max(0, resp.ContentLength)) }}
	if _, err := io.Copy(f, body); err != nil && body.err == nil {
		return "", time.Time{}, fmt.Errorf("storing %s: %w", name, err)
	} else if err != nil {
		return "", time.Time{}, &brokenOffError{fmt.Errorf("downloading %s: %w: %w", name, registry.ErrUnavailable, err)}
	}
	report(body.n, body.n)
	modified, _ := http.ParseTime(resp.Header.Get("Last-Modified"))
	return resp.Header.Get("Content-Disposition"), modified, nil
}

// redacted is an address without user, password and query, where tokens live.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "the URL"
	}
	if u.RawQuery != "" {
		u.RawQuery = "..."
	}
	u.User = nil
	return u.String()
}

// withoutURL drops the address that net/http puts before an error.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

type countingReader struct {
	r      io.Reader
	n      int64
	err    error
	report func(int64)
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	c.report(c.n)
	return n, err
}
