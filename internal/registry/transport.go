package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	dialTimeout = 15 * time.Second
	// headerTimeout is how long a registry may think once it has the whole
	// request. Committing a large blob takes some of them minutes.
	headerTimeout = 5 * time.Minute
	// maxRedirects is net/http's own limit.
	maxRedirects = 10
)

// errPlainHTTP is a request that would leave the machine unencrypted without
// anybody having allowed it.
var errPlainHTTP = errors.New("plain http is not allowed")

// trust knows where plain http and unverified certificates are allowed.
type trust struct {
	// insecure are hosts for both, anyInsecure is all of them.
	insecure    []string
	anyInsecure bool
	// unverified are registries for unverified certificates.
	unverified   []string
	noneVerified bool
}

// allows reports whether a host may be asked over plain http.
func (t trust) allows(hostport string) bool {
	return t.anyInsecure || isLoopback(hostOnly(hostport)) || listed(t.insecure, hostport)
}

// verifies reports whether a host has to prove who it is, in a request that is
// made on behalf of a registry.
func (t trust) verifies(hostport, registry string) bool {
	return !t.allows(hostport) && !t.noneVerified && !listed(t.unverified, hostport) && !listed(t.unverified, registry)
}

// listed reports whether a list has a host, or the host without its port.
func listed(list []string, hostport string) bool {
	hostport = canonical(hostport)
	h := hostOnly(hostport)
	return slices.ContainsFunc(list, func(s string) bool { s = canonical(s); return s == hostport || s == h })
}

// hostOnly takes the port and the brackets of IPv6 off.
func hostOnly(hostport string) string {
	u := url.URL{Host: hostport}
	return u.Hostname()
}

func isLoopback(h string) bool {
	if h == "localhost" || strings.HasSuffix(h, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(h)
	return err == nil && ip.IsLoopback()
}

// roundTripper is the one way out: it picks the transport by the trust in the
// host and names the program.
type roundTripper struct {
	transports
	// special are those of registries with keys of their own.
	special map[string]transports
	trust   trust
	agent   string
}

// transports differ in what they ask of a server and show to it.
type transports struct {
	verified, unverified               *http.Transport
	verifiedShowing, unverifiedShowing *http.Transport
}

func newTransport(t trust, keys map[string]key, agent string) *roundTripper {
	verified := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&dialer{Dialer: net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          100,
		MaxIdleConnsPerHost:   maxDownloads + maxUploads,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: headerTimeout,
		ExpectContinueTimeout: time.Second,
		// The digest is that of the bytes as they are sent.
		DisableCompression: true,
		// Pings find a dead connection below a stream that waits.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
	rt := &roundTripper{transports: key{}.transports(verified), special: map[string]transports{}, trust: t, agent: agent}
	for registry, k := range keys {
		rt.special[registry] = k.transports(verified)
	}
	return rt
}

type behalfKey struct{}

// onBehalf marks requests for a registry: its token server and its store are
// trusted as it is.
func onBehalf(ctx context.Context, registry string) context.Context {
	return context.WithValue(ctx, behalfKey{}, registry)
}

func (rt *roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "http" && !rt.trust.allows(req.URL.Host) && !redirectedFromHTTP(req) {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, fmt.Errorf("%w to %s: allow it with --insecure-registry %s", errPlainHTTP, req.URL.Host, req.URL.Host)
	}
	next := rt.pick(req)
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", rt.agent)
	return next.RoundTrip(req)
}

// pick chooses the transport. A certificate of ours is shown to the registry
// alone, not to hosts that it names.
func (rt *roundTripper) pick(req *http.Request) *http.Transport {
	registry, ok := req.Context().Value(behalfKey{}).(string)
	if !ok {
		registry = req.URL.Host
	}
	registry = canonical(registry)
	set, ok := rt.special[registry]
	if !ok {
		set, ok = rt.special[hostOnly(registry)]
	}
	if !ok {
		set = rt.transports
	}
	verify := rt.trust.verifies(req.URL.Host, registry)
	show := hostOnly(canonical(req.URL.Host)) == hostOnly(registry)
	switch {
	case verify && show:
		return set.verifiedShowing
	case verify:
		return set.verified
	case show:
		return set.unverifiedShowing
	}
	return set.unverified
}

// redirectedFromHTTP allows a plain registry to keep its blobs on a plain
// store: nothing is given away that was not already.
func redirectedFromHTTP(req *http.Request) bool {
	return req.Response != nil && req.Response.Request != nil && req.Response.Request.URL.Scheme == "http"
}

// checkRedirect keeps the Authorization header from any other host. net/http
// would take it along to another port and to subdomains. Referer would show a
// signed URL to the next host.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	first := via[0].URL
	if req.URL.Host != first.Host || req.URL.Scheme != first.Scheme {
		req.Header.Del("Authorization")
	}
	req.Header.Del("Referer")
	return nil
}

// keepRedirect hands a redirect to the caller. go-containerregistry follows
// those of token servers itself, with checks of its own.
func keepRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// hint is what to do about an error of the connection.
func hint(registry string, err error) string {
	if errors.Is(err, http.ErrSchemeMismatch) {
		return "it speaks plain http: allow that with --insecure-registry " + registry
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "trust its certificate authority with SSL_CERT_FILE, or do not verify it with --insecure-registry " + registry
	}
	return ""
}
