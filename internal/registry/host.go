package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/sync/semaphore"
)

const (
	// maxDownloads and maxUploads bound the blobs in flight to and from one
	// host: more gain nothing on a line that is full, and registries count
	// connections. They are separate so that neither can wait for the other.
	maxDownloads = 8
	maxUploads   = 5
	// plainProbeTimeout is how long https may take at a host that may also
	// speak plain http, before that is tried.
	plainProbeTimeout = 5 * time.Second
)

// host is what we know of one registry. It is probed once, with the first
// request to it.
type host struct {
	name string
	// plain is set where plain http is allowed, to the token server too.
	plain     bool
	registry  name.Registry
	downloads *semaphore.Weighted
	uploads   *semaphore.Weighted

	// probing is held by the one that probes.
	probing *semaphore.Weighted

	mu        sync.Mutex
	base      *url.URL
	challenge *transport.Challenge
	// learned are scopes that the registry asked for where we asked for others.
	learned map[string]string
	tokens  map[string]*token
	// declined are repositories where a login that nobody named was refused:
	// pulls go on without one.
	declined map[string]bool
}

// hostTable keeps the hosts that were asked.
type hostTable struct {
	mu    sync.Mutex
	known map[string]*host
}

// host returns the probed registry.
func (c *Client) host(ctx context.Context, r Ref) (*host, error) {
	c.hosts.mu.Lock()
	h := c.hosts.known[r.Registry]
	if h == nil {
		reg, err := name.NewRegistry(r.Registry)
		if err != nil {
			c.hosts.mu.Unlock()
			return nil, err
		}
		h = &host{
			name: r.Registry, registry: reg, plain: c.trust.allows(reg.RegistryStr()),
			downloads: semaphore.NewWeighted(maxDownloads), uploads: semaphore.NewWeighted(maxUploads),
			probing: semaphore.NewWeighted(1),
			learned: map[string]string{}, tokens: map[string]*token{}, declined: map[string]bool{},
		}
		c.hosts.known[r.Registry] = h
	}
	c.hosts.mu.Unlock()

	if err := h.probing.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	defer h.probing.Release(1)
	if h.base != nil {
		return h, nil
	}
	return h, c.probe(ctx, h)
}

// probe finds the scheme and what the registry wants for a login: GET /v2/
// (OCI distribution, "Determining Support").
func (c *Client) probe(ctx context.Context, h *host) error {
	start := time.Now()
	client := c.retrying(&http.Client{
		Transport:     &schemeProbe{next: c.raw.Transport, both: h.plain},
		CheckRedirect: checkRedirect,
		Timeout:       smallTimeout,
	})
	req, err := retryablehttp.NewRequestWithContext(onBehalf(ctx, h.name), http.MethodGet, "https://"+h.registry.RegistryStr()+"/v2/", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return c.requestError(ctx, h.name, start, err)
	}
	defer resp.Body.Close()
	// Read to the end, the connection is used again.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody))

	h.mu.Lock()
	defer h.mu.Unlock()
	h.base = &url.URL{Scheme: resp.Request.URL.Scheme, Host: h.registry.RegistryStr()}
	h.challenge = parseChallenge(resp, h.plain)
	return nil
}

// schemeProbe tries https, then http where that is allowed, as docker does.
type schemeProbe struct {
	next http.RoundTripper
	both bool
}

func (p *schemeProbe) RoundTrip(req *http.Request) (*http.Response, error) {
	if !p.both || req.Response != nil {
		return p.next.RoundTrip(req)
	}
	ctx, cancel := context.WithTimeout(req.Context(), plainProbeTimeout)
	resp, err := p.next.RoundTrip(req.Clone(ctx))
	if err == nil {
		resp.Body = &closeThen{resp.Body, cancel}
		return resp, nil
	}
	cancel()
	if req.Context().Err() != nil {
		return nil, err
	}
	plain := req.Clone(req.Context())
	plain.URL.Scheme = "http"
	resp, plainErr := p.next.RoundTrip(plain)
	if plainErr == nil {
		return resp, nil
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		return nil, plainErr
	}
	return nil, fmt.Errorf("https: %w; http: %w", err, plainErr)
}

// parseChallenge reads WWW-Authenticate of an answer 401; nil when there is
// nothing to read. go-containerregistry has the parser but exports only the
// request around it, so that gets the answer that we have.
func parseChallenge(resp *http.Response, plain bool) *transport.Challenge {
	if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") == "" {
		return nil
	}
	reg, err := name.NewRegistry("registry.invalid")
	if err != nil {
		return nil
	}
	ch, err := transport.Ping(context.Background(), reg, answered{resp})
	if err != nil {
		return nil
	}
	ch.Insecure = plain
	return ch
}

// answered gives the same answer to every request.
type answered struct{ resp *http.Response }

func (a answered) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: a.resp.StatusCode, Header: a.resp.Header,
		Body: io.NopCloser(bytes.NewReader(nil)), Request: req,
	}, nil
}
