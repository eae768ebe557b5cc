package registry

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// serveTLS starts a server whose certificate is for example.com and
// *.example.com, and returns the certificate's file.
func serveTLS(t *testing.T, h http.Handler, clients tls.ClientAuthType) (addr, ca string) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{ClientAuth: clients}
	s.StartTLS()
	t.Cleanup(s.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	writePEM(t, ca, "CERTIFICATE", s.Certificate().Raw)
	return s.Listener.Addr().String(), ca
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	assert.NilError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// clientCert makes a certificate that signs itself.
func clientCert(t *testing.T) ClientCert {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NilError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, priv.Public(), priv)
	assert.NilError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(priv)
	assert.NilError(t, err)
	dir := t.TempDir()
	c := ClientCert{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	writePEM(t, c.Cert, "CERTIFICATE", der)
	writePEM(t, c.Key, "PRIVATE KEY", keyDER)
	return c
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	addr, ca := serveTLS(t, inMemory(), tls.NoClientCert)
	for _, tc := range []struct {
		name string
		o    Options
		ok   bool
	}{
		{"unknown", Options{}, false},
		{"known", Options{Certificates: map[string]string{"example.com:5000": ca}}, true},
		{"known_for_all_ports", Options{Certificates: map[string]string{"example.com": ca}}, true},
		{"known_for_another_port", Options{Certificates: map[string]string{"example.com:5001": ca}}, false},
		{"known_for_another_host", Options{Certificates: map[string]string{"other.example.com": ca}}, false},
		{"not_verified", Options{SkipVerifyRegistries: []string{"example.com:5000"}}, true},
		{"not_verified_on_all_ports", Options{SkipVerifyRegistries: []string{"EXAMPLE.com"}}, true},
		{"another_not_verified", Options{SkipVerifyRegistries: []string{"other.example.com", "example.com:5001"}}, false},
		{"none_verified", Options{SkipVerifyPush: true}, true},
		{"none_verified_in_pulls", Options{SkipVerifyPull: true}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, tc.o)
			dialTo(c, addr)
			_, err := c.HasBlob(t.Context(), Ref{Registry: "example.com:5000", Repository: "acme/app"}, someDigest)
			if tc.ok {
				assert.NilError(t, err)
				return
			}
			assert.Assert(t, errors.Is(err, ErrUnavailable), "%v", err)
			contains(t, err, "certificate")
		})
	}
}

// TestDirections: base images are pulled, everything else is pushed.
func TestDirections(t *testing.T) {
	t.Parallel()
	amd := platform(t, "linux/amd64")
	secured, plain := inMemory(), inMemory()
	tlsAddr, _ := serveTLS(t, secured, tls.NoClientCert)
	plainAddr := serve(t, plain).Registry
	for _, h := range []http.Handler{secured, plain} {
		pushImage(t, newClient(t, Options{}), serve(t, h).WithTag("1"), amd)
	}
	for _, tc := range []struct {
		name       string
		o          Options
		addr       string
		pull, push bool
	}{
		{"plain_pull", Options{InsecurePull: true}, plainAddr, true, false},
		{"plain_push", Options{InsecurePush: true}, plainAddr, false, true},
		{"plain_both", Options{InsecurePull: true, InsecurePush: true}, plainAddr, true, true},
		{"plain_is_more_than_unverified", Options{SkipVerifyPull: true, SkipVerifyPush: true}, plainAddr, false, false},
		{"unverified_pull", Options{SkipVerifyPull: true}, tlsAddr, true, false},
		{"unverified_push", Options{SkipVerifyPush: true}, tlsAddr, false, true},
		{"unverified_both", Options{SkipVerifyPull: true, SkipVerifyPush: true}, tlsAddr, true, true},
		{"by_registry", Options{Insecure: []string{"reg.test"}, SkipVerifyPull: true}, plainAddr, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.o.Retry = Retry{Count: -1}
			c := newClient(t, tc.o)
			dialTo(c, tc.addr)
			ref := Ref{Registry: "reg.test", Repository: "acme/app", Tag: "1"}
			img, err := c.Image(t.Context(), ref, amd)
			assert.Equal(t, err == nil, tc.pull, "%v", err)
			if tc.pull {
				assert.Equal(t, readLayer(t, c, img.Ref, img), "layer of amd64")
			}
			_, err = c.HasBlob(t.Context(), ref, someDigest)
			assert.Equal(t, err == nil, tc.push, "%v", err)
		})
	}
}

// TestHostsOfARegistry: what holds for a registry holds for its token server
// and its store, and not for these when they are asked for themselves.
func TestHostsOfARegistry(t *testing.T) {
	t.Parallel()
	data, desc := blobOf(100)
	addr, ca := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.Host == "auth.example.com":
			w.Write([]byte(`{"token":"t0ken"}`))
		case req.Host == "store.example.com" && req.Method == http.MethodGet:
			w.Write(data)
		case req.Host == "store.example.com":
			w.Header().Set("Location", "https://store.example.com/upload")
			w.WriteHeader(map[string]int{http.MethodPatch: 202, http.MethodPut: 201}[req.Method])
		case req.Header.Get("Authorization") != "Bearer t0ken":
			w.Header().Set("WWW-Authenticate", `Bearer realm="https://auth.example.com/token",service="test"`)
			w.WriteHeader(401)
		case req.Method == http.MethodHead:
			w.WriteHeader(404)
		case req.Method == http.MethodPost:
			w.Header().Set("Location", "https://store.example.com/upload")
			w.WriteHeader(202)
		default:
			http.Redirect(w, req, "https://store.example.com/x", http.StatusTemporaryRedirect)
		}
	}), tls.NoClientCert)
	for _, tc := range []struct {
		name string
		o    Options
	}{
		{"certificate", Options{Certificates: map[string]string{"example.com": ca}}},
		{"not_verified", Options{SkipVerifyRegistries: []string{"example.com"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, tc.o)
			dialTo(c, addr)
			repo := Ref{Registry: "example.com", Repository: "a"}
			assert.NilError(t, c.PushBlob(t.Context(), repo, desc, bytes.NewReader(data), nil))
			b, err := c.Blob(t.Context(), repo, desc)
			assert.NilError(t, err)
			assert.NilError(t, b.Close())
			for _, other := range []string{"store.example.com", "auth.example.com"} {
				_, err = c.Blob(t.Context(), Ref{Registry: other, Repository: "a"}, desc)
				assert.Assert(t, errors.Is(err, ErrUnavailable), "%v", err)
			}
		})
	}
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	_, desc := blobOf(100)
	addr, ca := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/v2/" {
			http.Redirect(w, req, "https://store.example.com/x", http.StatusTemporaryRedirect)
		}
	}), tls.RequireAnyClientCert)
	shown := 0
	store, _ := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		shown += len(req.TLS.PeerCertificates)
		w.WriteHeader(404)
	}), tls.RequestClientCert)
	own := clientCert(t)
	for _, tc := range []struct {
		name string
		o    Options
		want error
	}{
		{"shown", Options{Certificates: map[string]string{"example.com": ca}, ClientCerts: map[string]ClientCert{"example.com": own}}, ErrNotFound},
		{"shown_to_a_server_that_is_not_verified", Options{SkipVerifyPush: true, ClientCerts: map[string]ClientCert{"example.com": own}}, ErrNotFound},
		{"none", Options{Certificates: map[string]string{"example.com": ca}}, ErrUnavailable},
		{"for_another", Options{Certificates: map[string]string{"example.com": ca}, ClientCerts: map[string]ClientCert{"other.example.com": own}}, ErrUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newClient(t, tc.o)
			dialBy(c, func(hostport string) string {
				if hostport == "store.example.com:443" {
					return store
				}
				return addr
			})
			_, err := c.Blob(t.Context(), Ref{Registry: "example.com", Repository: "a"}, desc)
			assert.Assert(t, errors.Is(err, tc.want), "%v", err)
			assert.Equal(t, shown, 0, "the store got it, too")
		})
	}
}

func TestBadCertificates(t *testing.T) {
	t.Parallel()
	own, empty := clientCert(t), filepath.Join(t.TempDir(), "empty")
	assert.NilError(t, os.WriteFile(empty, nil, 0o600))
	for _, tc := range []struct {
		name string
		o    Options
		want string
	}{
		{"no_such_file", Options{Certificates: map[string]string{"reg.test": "/no/such"}}, "certificate for registry reg.test: open /no/such"},
		{"no_pem", Options{Certificates: map[string]string{"reg.test": empty}}, "empty holds no certificate in PEM"},
		{"no_host", Options{Certificates: map[string]string{"https://reg.test": empty}}, "give HOST or HOST:PORT"},
		{"no_key", Options{ClientCerts: map[string]ClientCert{"reg.test": {Cert: own.Cert}}}, "client certificate for registry reg.test: give the file of the certificate and that of its key"},
		{"wrong_key", Options{ClientCerts: map[string]ClientCert{"reg.test": {Cert: own.Cert, Key: empty}}}, "client certificate for registry reg.test: "},
		{"skip_verify", Options{SkipVerifyRegistries: []string{"https://reg.test"}}, "give HOST or HOST:PORT"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.o.Getenv = env()
			_, err := New(tc.o)
			assert.ErrorContains(t, err, tc.want)
		})
	}
}
