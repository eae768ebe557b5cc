package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// tlsRegistry is a registry with a certificate of its own for a name that is
// not this machine's, so that it is verified. It returns its address under that
// name and the certificate. uploaded counts the blobs that it got.
func tlsRegistry(t *testing.T, name string, uploaded *atomic.Int32) (address string, certificate []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NilError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	assert.NilError(t, err)
	quiet := log.New(io.Discard, "", 0)
	blobs := registry.New(registry.Logger(quiet))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		blobs.ServeHTTP(w, r)
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/uploads/") {
			uploaded.Add(1)
		}
	}))
	server.Config.ErrorLog = quiet
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	assert.NilError(t, err)
	return net.JoinHostPort(name, port), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// While a step is in place "/" is not ours. The builder goes on to push to a
// registry whose certificate, name and login it knows from files in there: the
// step does not end before a layer has arrived.
func TestInPlace_goes_on_outside(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	service(t, "KMA_TEST_DOCKER")
	var uploaded atomic.Int32
	const host = "registry.example"
	address, certificate := tlsRegistry(t, host, &uploaded)
	asked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if uploaded.Load() == 0 {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprintln(w, "yes")
	}))
	t.Cleanup(asked.Close)
	files := t.TempDir()
	pemFile := filepath.Join(files, "ca-certificates.crt")
	assert.NilError(t, os.WriteFile(pemFile, certificate, 0o644))
	// The large file is on its way only when the second step has begun. Nothing of
	// a base image: its layer is the first thing that is pushed.
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + `/busybox:1 AS large
RUN head -c 16000000 /dev/urandom > /large
FROM large AS long
RUN [ ! -e /etc/ssl/certs/ca-certificates.crt ] && echo 'hosts: files' > /etc/nsswitch.conf && \
    for i in $(seq 300); do wget -q -O /dev/null ` + asked.URL + ` && exit 0; sleep 0.1; done; exit 1
FROM scratch
COPY --from=large /large /
COPY --from=long /etc/nsswitch.conf /
`})
	run := func(flags ...string) result {
		image := address + "/outside/app:1"
		flags = append(flags, "-v", dir+":/workspace", "--add-host", host+":127.0.0.1", "-v", files+":/var/lib/out")
		return inContainer(t, flags, "--context=/workspace", "--destination="+image,
			"--oci-layout-path=/var/lib/out/layout", "--digest-file=/var/lib/out/digest")
	}
	r := run("-v", pemFile+":/etc/ssl/certs/ca-certificates.crt:ro")
	assert.Equal(t, r.code, 0, r.stderr)
	digest, err := os.ReadFile(filepath.Join(files, "digest"))
	assert.NilError(t, err)
	for _, name := range []string{"index.json", "oci-layout", "blobs/sha256/" + strings.TrimPrefix(string(digest), "sha256:")} {
		_, err := os.Stat(filepath.Join(files, "layout", name))
		assert.Check(t, err, name)
	}
	// The certificate is what makes it work.
	r = run()
	assert.Check(t, is.Equal(r.code, 5), r.stderr)
	assert.Check(t, is.Contains(r.stderr, "certificate"))
}
