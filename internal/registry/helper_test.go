package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
)

// newClient has short delays, no credentials and no home unless o says so.
func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	if o.HomeDir == "" {
		o.HomeDir = t.TempDir()
	}
	if o.Retry == (Retry{}) {
		o.Retry = Retry{Count: 3, InitialDelay: time.Millisecond, MaxDelay: 5 * time.Millisecond}
	}
	c, err := New(o)
	assert.NilError(t, err)
	return c
}

// env is a Getenv over pairs of name and value.
func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// serve starts a plain http server and returns a repository on it.
func serve(t *testing.T, h http.Handler) Ref {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(s.Close)
	return Ref{Registry: s.Listener.Addr().String(), Repository: "acme/app"}
}

// inMemory is go-containerregistry's registry.
func inMemory() http.Handler {
	return registry.New(registry.Logger(log.New(io.Discard, "", 0)))
}

// recorder remembers requests as "METHOD path?query".
type recorder struct {
	next http.Handler
	mu   sync.Mutex
	all  []*http.Request
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.all = append(r.all, req)
	r.mu.Unlock()
	r.next.ServeHTTP(w, req)
}

func (r *recorder) count(method, part string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, req := range r.all {
		if req.Method == method && strings.Contains(req.URL.String(), part) {
			n++
		}
	}
	return n
}

// blobOf makes content that does not compress, and its descriptor.
func blobOf(size int) ([]byte, ocispecs.Descriptor) {
	data := make([]byte, size)
	r := rand.New(rand.NewPCG(1, uint64(size)))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data, ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: digest.FromBytes(data), Size: int64(size)}
}

func push(t *testing.T, c *Client, repo Ref, data []byte, mediaType string) ocispecs.Descriptor {
	t.Helper()
	d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	assert.NilError(t, c.PushBlob(t.Context(), repo, d, bytes.NewReader(data), nil))
	return d
}

func toJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	assert.NilError(t, err)
	return data
}

// pushImage pushes an image of one layer with a config for a platform.
func pushImage(t *testing.T, c *Client, to Ref, p ocispecs.Platform) ocispecs.Descriptor {
	t.Helper()
	m := ocispecs.Manifest{MediaType: ocispecs.MediaTypeImageManifest}
	m.SchemaVersion = 2
	m.Config = push(t, c, to, toJSON(t, ocispecs.Image{Platform: p}), ocispecs.MediaTypeImageConfig)
	m.Layers = []ocispecs.Descriptor{push(t, c, to, []byte("layer of "+p.Architecture+p.Variant), ocispecs.MediaTypeImageLayerGzip)}
	d, err := c.PushManifest(t.Context(), to, m.MediaType, toJSON(t, m))
	assert.NilError(t, err)
	return d
}

func pushIndex(t *testing.T, c *Client, to Ref, children ...ocispecs.Descriptor) ocispecs.Descriptor {
	t.Helper()
	index := ocispecs.Index{MediaType: ocispecs.MediaTypeImageIndex, Manifests: children}
	index.SchemaVersion = 2
	d, err := c.PushManifest(t.Context(), to, index.MediaType, toJSON(t, index))
	assert.NilError(t, err)
	return d
}

// dialTo makes every host name lead to one server, so that names which are not
// loopback can be tried.
func dialTo(c *Client, addr string) {
	dialBy(c, func(string) string { return addr })
}

// dialBy leads host names to servers.
func dialBy(c *Client, server func(hostport string) string) {
	for _, c := range []*Client{c, c.base} {
		rt := c.raw.Transport.(*roundTripper)
		sets := append(slices.Collect(maps.Values(rt.special)), rt.transports)
		for _, set := range sets {
			for _, tr := range []*http.Transport{set.verified, set.unverified, set.verifiedShowing, set.unverifiedShowing} {
				tr.DialContext = func(ctx context.Context, network, hostport string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, network, server(hostport))
				}
				tr.Proxy = nil
			}
		}
	}
}

// cut sends part of an answer and then breaks the connection.
func cut(w http.ResponseWriter, status int, length int, part []byte) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	resp := http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: w.Header(), ContentLength: int64(length), Body: io.NopCloser(bytes.NewReader(part))}
	// Write complains that the body is too short: that is the point.
	_ = resp.Write(buf)
	_ = buf.Flush()
}

func contains(t *testing.T, err error, parts ...string) {
	t.Helper()
	assert.Assert(t, err != nil)
	for _, p := range parts {
		assert.Assert(t, strings.Contains(err.Error(), p), "%q does not contain %q", err, p)
	}
}
