package registry

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// Retry says how often to try again and how long to wait. A field that is zero
// takes its default.
type Retry struct {
	// Count is the number of tries after the first; 5 by default, negative
	// for none. A transfer that moves forward starts counting anew.
	Count int
	// InitialDelay is the longest wait before the second try; it doubles with
	// each further one. 1 s by default. The wait itself is a random part of
	// it, so that the legs of a matrix do not come back together.
	InitialDelay time.Duration
	// MaxDelay bounds every wait, also one that the registry asked for with
	// Retry-After. 30 s by default.
	MaxDelay time.Duration
}

// The defaults ride out about half a minute of trouble: a registry's restart
// or a rate limit by the minute, not an outage.
const (
	defaultCount        = 5
	defaultInitialDelay = time.Second
	defaultMaxDelay     = 30 * time.Second
)

func (r Retry) withDefaults() Retry {
	if r.Count == 0 {
		r.Count = defaultCount
	}
	r.Count = max(r.Count, 0)
	if r.InitialDelay == 0 {
		r.InitialDelay = defaultInitialDelay
	}
	if r.MaxDelay == 0 {
		r.MaxDelay = defaultMaxDelay
	}
	return r
}

// hasty tries once more at most: there is another place to ask.
func (r Retry) hasty() Retry {
	r.Count = min(r.Count, 1)
	return r
}

// temporary are the answers that may differ a moment later.
func temporary(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests,
		http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// retriable says whether an error of net/http may go away. Cancellation does
// not, nor do certificates and protocols that do not fit.
func retriable(ctx context.Context, err error) bool {
	if ctx.Err() != nil || errors.Is(err, http.ErrSchemeMismatch) || errors.Is(err, errPlainHTTP) {
		return false
	}
	again, _ := retryablehttp.ErrorPropagatedRetryPolicy(ctx, nil, err)
	return again
}

// delay is the wait before try n+2. Full jitter; see "Exponential Backoff And
// Jitter" in the AWS architecture blog.
func (r Retry) delay(n int, header http.Header, now time.Time) time.Duration {
	if asked, ok := retryAfter(header, now); ok {
		return min(asked, r.MaxDelay)
	}
	longest := r.MaxDelay
	if n < 30 {
		longest = min(r.InitialDelay<<n, r.MaxDelay)
	}
	if longest <= 0 {
		return 0
	}
	return rand.N(longest)
}

// retryAfter reads the header of RFC 9110, section 10.2.3: seconds or a date.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	v := h.Get("Retry-After")
	if v == "" {
		return 0, false
	}
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(s) * time.Second, true
	}
	t, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	return max(t.Sub(now), 0), true
}

// wait sleeps before try n+2, or less when ctx ends.
func (c *Client) wait(ctx context.Context, n int, header http.Header) error {
	t := time.NewTimer(c.retry.delay(n, header, time.Now()))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// retrying wraps h so that it tries again by our rules.
func (c *Client) retrying(h *http.Client) *retryablehttp.Client {
	return &retryablehttp.Client{
		HTTPClient: h,
		RetryMax:   c.retry.Count,
		CheckRetry: func(ctx context.Context, resp *http.Response, err error) (bool, error) {
			if ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			if err != nil {
				return retriable(ctx, err), nil
			}
			return temporary(resp.StatusCode), nil
		},
		Backoff: func(_, _ time.Duration, n int, resp *http.Response) time.Duration {
			var h http.Header
			if resp != nil {
				h = resp.Header
			}
			return c.retry.delay(n, h, time.Now())
		},
		RequestLogHook: func(_ retryablehttp.Logger, req *http.Request, n int) {
			if n > 0 {
				c.log.Warn("registry request failed, trying again", "registry", req.URL.Host, "method", req.Method, "path", req.URL.Path, "try", n+1)
			}
		},
		ErrorHandler: func(resp *http.Response, err error, tries int) (*http.Response, error) {
			e := &exhausted{tries: tries, cause: err}
			if resp != nil {
				body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
				resp.Body.Close()
				e.status = resp.StatusCode
				_, e.detail = diagnostics(body)
			}
			return nil, e
		},
	}
}
