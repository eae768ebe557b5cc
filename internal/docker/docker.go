// Package docker talks to a Docker engine as far as loading an image goes, over
// its HTTP API.
//
// It must not know where the image comes from.
package docker

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// DefaultHost is where the engine listens when DOCKER_HOST is not set.
const DefaultHost = "unix:///var/run/docker.sock"

// Engine is a Docker engine.
type Engine struct {
	client *http.Client
	host   string
	base   string
}

// New returns the engine that the variables DOCKER_HOST, DOCKER_TLS_VERIFY and
// DOCKER_CERT_PATH name, as docker reads them; certificates are in DOCKER_CONFIG or
// ~/.docker when it says nothing of them. Nothing is asked yet.
func New(getenv func(string) string) (*Engine, error) {
	host := getenv("DOCKER_HOST")
	if host == "" {
		host = DefaultHost
	}
	u, err := url.Parse(host)
	if err != nil {
		return nil, errors.New("DOCKER_HOST is no URL: want unix:///path/to/socket or tcp://host:port")
	}
	t := &http.Transport{}
	e := &Engine{client: &http.Client{Transport: t}, host: u.Redacted(), base: "http://docker"}
	switch u.Scheme {
	case "unix":
		path := u.Path
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
	case "tcp", "http", "https":
		e.base = "http://" + u.Host
		if getenv("DOCKER_TLS_VERIFY") != "" || u.Scheme == "https" {
			e.base = "https://" + u.Host
			dir := cmp.Or(getenv("DOCKER_CERT_PATH"), getenv("DOCKER_CONFIG"))
			if dir == "" && getenv("HOME") != "" {
				dir = filepath.Join(getenv("HOME"), ".docker")
			}
			if t.TLSClientConfig, err = certificates(dir); err != nil {
				return nil, err
			}
		}
	default:
		return nil, fmt.Errorf("DOCKER_HOST=%s: %s is not supported: use unix:///path/to/socket or tcp://host:port", e.host, u.Scheme)
	}
	return e, nil
}

// certificates reads ca.pem, cert.pem and key.pem, each of which may be absent.
func certificates(dir string) (*tls.Config, error) {
	c := &tls.Config{}
	if dir == "" {
		return c, nil
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	switch {
	case err == nil:
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("DOCKER_CERT_PATH: %s has no certificate", filepath.Join(dir, "ca.pem"))
		}
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("DOCKER_CERT_PATH: %w", err)
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	switch {
	case err == nil:
		c.Certificates = []tls.Certificate{cert}
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("DOCKER_CERT_PATH: %w", err)
	}
	return c, nil
}

// UnreachableError is an engine that does not answer.
type UnreachableError struct {
	Host string
	Err  error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no Docker engine answers at %s: %v: start it, name it with DOCKER_HOST, or write a file: --output type=docker,dest=FILE", e.Host, e.Err)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

func (e *Engine) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, e.base+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-tar")
	}
	resp, err := e.client.Do(req)
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // its URL means nothing to the user
	}
	if err != nil {
		return nil, &UnreachableError{Host: e.host, Err: err}
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var told struct{ Message string }
	_ = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&told)
	if told.Message == "" {
		told.Message = resp.Status
	}
	return nil, fmt.Errorf("the Docker engine at %s answered: %s", e.host, told.Message)
}

// Platforms reports whether the engine keeps images of several platforms under
// one name, which it does with containerd's image store.
func (e *Engine) Platforms(ctx context.Context) (bool, error) {
	resp, err := e.do(ctx, http.MethodGet, "/info", nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	var info struct{ DriverStatus [][]string }
	if err := json.NewDecoder(resp.Body).Decode(&info); err != nil {
		return false, fmt.Errorf("reading what the Docker engine at %s tells of itself: %w", e.host, err)
	}
	return slices.ContainsFunc(info.DriverStatus, func(pair []string) bool {
		return len(pair) == 2 && pair[0] == "driver-type" && strings.HasPrefix(pair[1], "io.containerd.snapshotter")
	}), nil
}

// Load sends an archive of images, which write writes.
func (e *Engine) Load(ctx context.Context, write func(io.Writer) error) error {
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := write(w)
		w.CloseWithError(err)
		written <- err
	}()
	err := e.load(ctx, r)
	r.Close()
	// What could not be written is no fault of the engine's, which may end the
	// reading itself.
	if werr := <-written; werr != nil && !errors.Is(werr, io.ErrClosedPipe) {
		return fmt.Errorf("writing the image for the Docker engine at %s: %w", e.host, werr)
	}
	return err
}

func (e *Engine) load(ctx context.Context, archive io.Reader) error {
	resp, err := e.do(ctx, http.MethodPost, "/images/load?quiet=1", archive)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var line struct{ Error string }
		switch err := dec.Decode(&line); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading the answer of the Docker engine at %s: %w", e.host, err)
		case line.Error != "":
			return fmt.Errorf("the Docker engine at %s did not load the image: %s", e.host, line.Error)
		}
	}
}
