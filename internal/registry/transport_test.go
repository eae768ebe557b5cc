package registry

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"

	"gotest.tools/v3/assert"
)

func TestTrust(t *testing.T) {
	t.Parallel()
	tr := trust{insecure: []string{"reg.test", "other.test:5000", "[fd00::1]:5000", "10.0.0.7"}}
	for host, want := range map[string]bool{
		"reg.test": true, "reg.test:8080": true, "REG.test": true, "other.test:5000": true,
		"other.test": false, "other.test:5001": false, "evilreg.test": false, "reg.test.evil.test": false,
		"[fd00::1]:5000": true, "[fd00::1]:5001": false, "10.0.0.7:5000": true, "10.0.0.8:5000": false,
		"localhost": true, "localhost:5000": true, "127.0.0.1:5000": true, "127.3.2.1": true, "[::1]:5000": true,
		"app.localhost": true, "localhost.evil.test": false, "127.0.0.1.evil.test": false, "192.168.1.1": false,
	} {
		assert.Equal(t, tr.allows(host), want, host)
	}
}

func TestInsecureNames(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "http://reg.test", "reg.test/x", "a,b"} {
		_, err := New(Options{Insecure: []string{bad}, Getenv: env()})
		assert.ErrorContains(t, err, "give HOST or HOST:PORT")
	}
}

func TestSchemes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		tls      bool
		insecure []string
		want     error
		text     string
	}{
		{"plain_at_a_strange_host", false, nil, ErrUnavailable, "it speaks plain http: allow that with --insecure-registry reg.test:5000"},
		{"plain_allowed", false, []string{"reg.test:5000"}, nil, ""},
		{"plain_allowed_for_all_ports", false, []string{"reg.test"}, nil, ""},
		{"plain_allowed_elsewhere", false, []string{"reg.test:5001"}, ErrUnavailable, "plain http"},
		{"unknown_authority", true, nil, ErrUnavailable, "SSL_CERT_FILE"},
		{"unknown_authority_allowed", true, []string{"reg.test"}, nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewUnstartedServer(inMemory())
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			s.EnableHTTP2 = true
			if tc.tls {
				s.StartTLS()
			} else {
				s.Start()
			}
			t.Cleanup(s.Close)
			c := newClient(t, Options{Insecure: tc.insecure})
			dialTo(c, s.Listener.Addr().String())
			ref := Ref{Registry: "reg.test:5000", Repository: "acme/app", Tag: "1"}
			_, err := c.PushManifest(t.Context(), ref, "application/vnd.oci.image.index.v1+json", []byte(emptyIndex))
			assert.Assert(t, errors.Is(err, tc.want), "%v", err)
			if tc.want != nil {
				contains(t, err, ref.String(), tc.text)
			}
		})
	}
}

func TestTLSAtLoopbackAndOneProbe(t *testing.T) {
	t.Parallel()
	rec := &recorder{next: inMemory()}
	s := httptest.NewTLSServer(rec)
	t.Cleanup(s.Close)
	c := newClient(t, Options{UserAgent: "test/1"})
	ref := Ref{Registry: s.Listener.Addr().String(), Repository: "acme/app", Tag: "1"}
	for range 3 {
		_, err := c.PushManifest(t.Context(), ref, "application/vnd.oci.image.index.v1+json", []byte(emptyIndex))
		assert.NilError(t, err)
	}
	assert.Equal(t, rec.count("GET", "/v2/"), 1)
	for _, r := range rec.all {
		assert.Equal(t, r.UserAgent(), "test/1")
	}
}

func TestProbeIsRetried(t *testing.T) {
	t.Parallel()
	n := 0
	next := inMemory()
	ref := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/v2/" {
			if n++; n < 3 {
				w.WriteHeader(503)
				return
			}
		}
		next.ServeHTTP(w, req)
	})).WithTag("1")
	_, err := newClient(t, Options{}).Head(t.Context(), ref)
	assert.Assert(t, errors.Is(err, ErrNotFound), "%v", err)
	assert.Equal(t, n, 3)
}

func TestRedirectToPlainHTTPIsRefused(t *testing.T) {
	t.Parallel()
	_, desc := blobOf(10)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/v2/" {
			http.Redirect(w, req, "http://store.test/blob?X-Signature=s3cr3t", http.StatusTemporaryRedirect)
		}
	}))
	t.Cleanup(s.Close)
	c := newClient(t, Options{})
	repo := Ref{Registry: s.Listener.Addr().String(), Repository: "acme/app"}
	_, err := c.Blob(t.Context(), repo, desc)
	contains(t, err, "plain http is not allowed to store.test: allow it with --insecure-registry store.test")
	assert.Equal(t, scrub(err.Error()), err.Error())
}

func TestScrub(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`Get "https://s3.test/b?X-Amz-Signature=abc": EOF`: `Get "https://s3.test/b": EOF`,
		"proxy http://user:pass@proxy.test:3128 said no":   "proxy http://proxy.test:3128 said no",
		"Authorization: Bearer abcdefghijklm.n-o_p":        "Authorization: Bearer ...",
		"header basic Ym9iOmh1bnRlcjI=":                    "header basic ...",
		"basic auth is off":                                "basic auth is off",
		"what? nothing":                                    "what? nothing",
	} {
		assert.Equal(t, scrub(in), want)
	}
}
