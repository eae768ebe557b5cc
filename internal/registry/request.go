package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

const (
	// maxManifest is the size of manifest and config that is read into memory;
	// registries need not accept more (OCI distribution, "Pushing Manifests").
	maxManifest = 4 << 20
	// maxErrorBody is read of an answer that is no success.
	maxErrorBody = 64 << 10
)

// call is one request to a registry.
type call struct {
	method string
	// repo says which registry and repository; path comes below the latter.
	repo  Ref
	path  string
	query url.Values
	// location replaces path: a URL that the registry gave us.
	location *url.URL
	scopes   scopes
	header   http.Header
	body     []byte
	// slow lifts the limit of time for the whole try: the registry works on
	// what it got.
	slow bool
	// once is for what is not worth a second try.
	once bool
}

// answer is an answer that was read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
	url    *url.URL
}

// header makes a header of one field.
func header(key, value string) http.Header { return http.Header{key: {value}} }

// url is where a call goes. A location at the registry keeps the registry's
// scheme: behind a proxy that ends TLS some write http.
func (h *host) url(q call) *url.URL {
	if q.location == nil {
		u := *h.base
		u.Path = "/v2/" + q.repo.Repository + "/" + q.path
		u.RawQuery = q.query.Encode()
		return &u
	}
	u := *q.location
	if u.Host == h.base.Host {
		u.Scheme = h.base.Scheme
	}
	if len(q.query) > 0 {
		// What the registry put there stays as it is, byte by byte.
		if u.RawQuery != "" {
			u.RawQuery += "&"
		}
		u.RawQuery += q.query.Encode()
	}
	return &u
}

// headerFor are the fields of a request; credentials go to the registry alone,
// not to another host that it named as a location.
func (h *host) headerFor(q call, g grant, to *url.URL) http.Header {
	hd := q.header.Clone()
	if hd == nil {
		hd = http.Header{}
	}
	if g.header != "" && to.Host == h.base.Host {
		hd.Set("Authorization", g.header)
	}
	return hd
}

// do sends a small request, with retries and login, and reads the answer. An
// answer that is neither 2xx nor in also is an error.
func (c *Client) do(ctx context.Context, q call, also ...int) (*answer, error) {
	client := c.small
	switch {
	case q.slow:
		client = c.slow
	case q.once:
		client = c.single
	}
	var a *answer
	resp, err := c.exchange(ctx, client, q, func(resp *http.Response) error {
		defer resp.Body.Close()
		limit := int64(maxErrorBody)
		if resp.StatusCode < 300 {
			limit = maxManifest + 1
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, limit))
		a = &answer{status: resp.StatusCode, header: resp.Header, body: body, url: resp.Request.URL}
		return err
	})
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	if a.status < 300 {
		return a, nil
	}
	for _, s := range also {
		if a.status == s {
			return a, nil
		}
	}
	return nil, c.answerError(q.repo, q.repo.Registry, a.status, a.body)
}

// open sends a request whose answer is a blob. The caller closes the body.
// An answer that is neither 2xx nor in also is an error.
func (c *Client) open(ctx context.Context, q call, also ...int) (*http.Response, error) {
	resp, err := c.exchange(ctx, c.stream, q, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	for _, s := range also {
		if resp.StatusCode == s {
			return resp, nil
		}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		body = nil
	}
	return nil, c.answerError(q.repo, q.repo.Registry, resp.StatusCode, body)
}

// exchange sends a request with retries and, when it is refused, once more
// with a new login. read takes the answer in; its error is retried too.
func (c *Client) exchange(ctx context.Context, client *retryablehttp.Client, q call, read retryablehttp.ResponseHandlerFunc) (*http.Response, error) {
	h, err := c.host(ctx, q.repo)
	if err != nil {
		return nil, err
	}
	for first := true; ; first = false {
		g, err := c.authorize(ctx, h, q.repo, q.scopes)
		if err != nil {
			return nil, err
		}
		start := time.Now()
		to := h.url(q)
		var body any
		if q.body != nil {
			body = q.body
		}
		req, err := retryablehttp.NewRequestWithContext(onBehalf(ctx, h.name), q.method, to.String(), body)
		if err != nil {
			return nil, errors.New(clean(err))
		}
		req.Header = h.headerFor(q, g, to)
		req.SetResponseHandler(read)
		resp, err := client.Do(req)
		if err != nil {
			return nil, c.requestError(ctx, h.name, start, err)
		}
		denied := resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden
		if !first || !denied || !c.refused(ctx, h, q.repo, q.scopes, g, resp) {
			return resp, nil
		}
		resp.Body.Close()
	}
}

// requestError turns the error of a client that retries into ours.
func (c *Client) requestError(ctx context.Context, registry string, start time.Time, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	tries := 1
	if e, ok := errors.AsType[*exhausted](err); ok {
		tries, err = e.tries, e
	}
	return unavailable(registry, tries, time.Since(start), err)
}

// about puts what was done to what in front of an error, once.
func about(err error, verb string, what fmt.Stringer) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", verb, what, err)
}
