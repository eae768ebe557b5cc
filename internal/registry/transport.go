package registry

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
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
type trust struct{ insecure []string }

func (t trust) allows(hostport string) bool {
	h := hostOnly(hostport)
	if isLoopback(h) {
		return true
	}
	for _, i := range t.insecure {
		if strings.EqualFold(i, hostport) || strings.EqualFold(i, h) {
			return true
		}
	}
	return false
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
	verified, unverified *http.Transport
	trust                trust
	agent                string
}

func newTransport(t trust, agent string) *roundTripper {
	verified := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
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
	unverified := verified.Clone()
	unverified.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	return &roundTripper{verified: verified, unverified: unverified, trust: t, agent: agent}
}

func (rt *roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	allowed := rt.trust.allows(req.URL.Host)
	if req.URL.Scheme == "http" && !allowed && !redirectedFromHTTP(req) {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, fmt.Errorf("%w to %s: allow it with --insecure-registry %s", errPlainHTTP, req.URL.Host, req.URL.Host)
	}
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", rt.agent)
	if allowed {
		return rt.unverified.RoundTrip(req)
	}
	return rt.verified.RoundTrip(req)
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
