package docker

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// engine is one that answers with handler.
func engine(t *testing.T, handler http.HandlerFunc) *Engine {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	e, err := New(func(name string) string {
		if name == "DOCKER_HOST" {
			return "tcp://" + strings.TrimPrefix(s.URL, "http://")
		}
		return ""
	})
	assert.NilError(t, err)
	return e
}

func TestLoad(t *testing.T) {
	t.Parallel()
	got := ""
	e := engine(t, func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		assert.Check(t, err)
		got = r.Method + " " + r.URL.Path + " " + string(data)
		fmt.Fprintln(w, `{"stream":"Loaded image: a:1\n"}`)
	})
	assert.NilError(t, e.Load(t.Context(), func(w io.Writer) error {
		_, err := io.WriteString(w, "archive")
		return err
	}))
	assert.Check(t, is.Equal(got, "POST /images/load archive"))
}

func TestLoad_fails(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, status, body, want string }{
		{"in_the_stream", "200", `{"error":"no space left"}`, "did not load the image: no space left"},
		{"status", "500", `{"message":"broken"}`, "answered: broken"},
		{"no_json", "200", `hello`, "reading the answer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := engine(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if tc.status == "500" {
					w.WriteHeader(http.StatusInternalServerError)
				}
				fmt.Fprintln(w, tc.body)
			})
			err := e.Load(t.Context(), func(io.Writer) error { return nil })
			assert.ErrorContains(t, err, tc.want)
		})
	}
	e := engine(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	err := e.Load(t.Context(), func(io.Writer) error { return errors.New("cannot write") })
	assert.ErrorContains(t, err, "writing the image for")
	assert.ErrorContains(t, err, "cannot write")
	var gone *UnreachableError
	assert.Check(t, !errors.As(err, &gone), "the engine is not to blame")
}

func TestPlatforms(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{
		`{"Driver":"overlay2","DriverStatus":[["Backing Filesystem","extfs"]]}`:                  false,
		`{"Driver":"overlayfs","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}`: true,
		`{"DriverStatus":null}`: false,
	} {
		e := engine(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, body) })
		got, err := e.Platforms(t.Context())
		assert.NilError(t, err)
		assert.Check(t, is.Equal(got, want), body)
	}
}

func TestNew_refuses(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{"ssh://host": "ssh is not supported", "npipe:////./x": "npipe is not supported"} {
		_, err := New(func(string) string { return host })
		assert.Check(t, err != nil)
		assert.Check(t, is.ErrorContains(err, want))
	}
	e, err := New(func(string) string { return "unix:///does/not/exist" })
	assert.NilError(t, err)
	_, err = e.Platforms(t.Context())
	var gone *UnreachableError
	assert.Assert(t, errors.As(err, &gone))
	assert.Check(t, is.ErrorContains(err, "DOCKER_HOST"))
}

func TestNew_certificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	assert.NilError(t, os.Mkdir(filepath.Join(dir, ".docker"), 0o700))
	for _, name := range []string{"ca.pem", ".docker/ca.pem"} {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte("none"), 0o600))
	}
	for _, variable := range []string{"DOCKER_CERT_PATH", "DOCKER_CONFIG", "HOME"} {
		_, err := New(func(name string) string {
			return map[string]string{"DOCKER_HOST": "tcp://h:1", "DOCKER_TLS_VERIFY": "1", variable: dir}[name]
		})
		assert.Check(t, is.ErrorContains(err, "ca.pem has no certificate"), variable)
	}
	_, err := New(func(name string) string {
		return map[string]string{"DOCKER_HOST": "https://h:1", "DOCKER_CERT_PATH": t.TempDir()}[name]
	})
	assert.NilError(t, err, "each of them may be absent")
}
