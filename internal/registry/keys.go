package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
)

// key is what the user gave us for one registry.
type key struct {
	// roots are the authorities to trust, nil for the system's.
	roots *x509.CertPool
	// own are certificates to show.
	own []tls.Certificate
}

// loadKeys reads the files of Certificates and ClientCerts by registry.
func loadKeys(o Options) (map[string]key, error) {
	keys := map[string]key{}
	for registry, file := range o.Certificates {
		if err := checkHosts("registry of a certificate", []string{registry}); err != nil {
			return nil, err
		}
		roots, err := readRoots(file)
		if err != nil {
			return nil, fmt.Errorf("certificate for registry %s: %w", registry, err)
		}
		k := keys[canonical(registry)]
		k.roots = roots
		keys[canonical(registry)] = k
	}
	for registry, c := range o.ClientCerts {
		if err := checkHosts("registry of a client certificate", []string{registry}); err != nil {
			return nil, err
		}
		own, err := readPair(c)
		if err != nil {
			return nil, fmt.Errorf("client certificate for registry %s: %w", registry, err)
		}
		k := keys[canonical(registry)]
		k.own = []tls.Certificate{own}
		keys[canonical(registry)] = k
	}
	return keys, nil
}

func readRoots(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		// An image without certificates, such as scratch.
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return roots, nil
}

func readPair(c ClientCert) (tls.Certificate, error) {
	if c.Cert == "" || c.Key == "" {
		return tls.Certificate{}, errors.New("give the file of the certificate and that of its key")
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s with %s: %w", c.Cert, c.Key, err)
	}
	return pair, nil
}

// transports makes those for a registry from one without any keys.
func (k key) transports(from *http.Transport) transports {
	with := func(c *tls.Config) *http.Transport {
		t := from.Clone()
		t.TLSClientConfig = c
		return t
	}
	t := transports{
		verified:   with(&tls.Config{RootCAs: k.roots}),
		unverified: with(&tls.Config{InsecureSkipVerify: true}),
	}
	t.verifiedShowing, t.unverifiedShowing = t.verified, t.unverified
	if k.own != nil {
		t.verifiedShowing = with(&tls.Config{RootCAs: k.roots, Certificates: k.own})
		t.unverifiedShowing = with(&tls.Config{InsecureSkipVerify: true, Certificates: k.own})
	}
	return t
}
