package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/alecthomas/kong"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/doctor"
	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/emulation"
)

// anyPlatform runs here, natively.
type anyPlatform struct{}

func (anyPlatform) Probe(ocispecs.Platform) (emulation.Support, error) { return emulation.Native, nil }
func (anyPlatform) Require(ocispecs.Platform) error                    { return nil }

// examined runs doctor on what its flags say, with an isolation that gives err.
func examined(t *testing.T, isolation error, args ...string) outcome {
	t.Helper()
	var c doctorCommand
	k, err := kong.New(&c, kong.KindMapper(boolKind, strictBool{}))
	assert.NilError(t, err)
	_, err = k.Parse(args)
	assert.NilError(t, err)
	var stdout, stderr bytes.Buffer
	w := World{Stdout: &stdout, Stderr: &stderr, LookupEnv: variables{"HOME": "/nonexistent"}.lookup}
	o, err := c.options(&w)
	if err == nil {
		o.Isolations = []doctor.Isolation{{Name: "trial", Detail: "works", Try: func(context.Context) error { return isolation }}}
		o.Emulator = anyPlatform{}
		err = c.examine(t.Context(), &w, o)
	}
	return outcome{report(w, err), stdout.String(), stderr.String()}
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	missing := &sandbox.UnsupportedError{What: "no namespaces", Fix: "allow them"}
	for _, tc := range []struct {
		name      string
		isolation error
		args      []string
		code      int
		stdout    []string
		stderr    string
	}{
		{"ready", nil, nil, exitOK, []string{"isolation  trial", "emulation  linux/s390x", "memory "}, ""},
		{"platforms_and_destination", nil, []string{"--platform=linux/arm64,linux/amd64", "--destination=" + host + "/a/b:1"}, exitOK,
			[]string{"emulation  linux/arm64", "registry   " + host, "push       " + host + "/a/b"}, ""},
		{"not_ready", missing, nil, exitEnvironment, []string{"lack  isolation  trial", "no namespaces. Fix: allow them"},
			"error: a build cannot work here, it lacks: isolation trial: see the fixes above\n"},
		{"no_registry", nil, []string{"--destination=127.0.0.1:1/a", "--push-retry=0"}, exitEnvironment, []string{"lack  registry   127.0.0.1:1"},
			"error: a build cannot work here, it lacks: registry 127.0.0.1:1: see the fixes above\n"},
		{"bad_platform", nil, []string{"--platform=linux/amd65"}, exitUsage, nil, "linux/amd65"},
		{"bad_destination", nil, []string{"--destination=A B"}, exitUsage, nil, "--destination"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := examined(t, tc.isolation, append(tc.args, "--state-dir="+t.TempDir())...)
			assert.Equal(t, r.code, tc.code, r.stderr)
			assert.Check(t, is.Contains(r.stderr, tc.stderr))
			assert.Equal(t, r.stderr == "", tc.stderr == "")
			for _, want := range tc.stdout {
				assert.Check(t, is.Contains(r.stdout, want))
			}
		})
	}
}

func TestDoctor_json(t *testing.T) {
	t.Parallel()
	r := examined(t, &sandbox.UnsupportedError{What: "a < b", Fix: "c"}, "--format=json", "--platform=linux/amd64", "--state-dir="+t.TempDir())
	assert.Equal(t, r.code, exitEnvironment)
	assert.Check(t, is.Contains(r.stdout, "a < b"))
	var got doctor.Report
	assert.NilError(t, json.Unmarshal([]byte(r.stdout), &got))
	assert.Check(t, !got.Ready)
	assert.DeepEqual(t, got.Checks[0], doctor.Check{Kind: "isolation", Subject: "trial", Status: doctor.Lack, Detail: "a < b", Fix: "c"})
	assert.Check(t, is.Contains(r.stdout, `"ready": false`))
}

func TestDoctor_does_not_wait(t *testing.T) {
	t.Parallel()
	var tries atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tries.Add(1); r.URL.Path == "/v2/" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	r := examined(t, nil, "--destination="+strings.TrimPrefix(server.URL, "http://")+"/a",
		"--push-retry=7", "--push-retry-initial-delay=1", "--push-retry-max-delay=1")
	assert.Equal(t, r.code, exitEnvironment)
	assert.Equal(t, tries.Load(), int32(2), "one retry")
}

func TestTryOverlay_makes_nothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_ = tryOverlay(filepath.Join(dir, "state", "of"))
	left, err := os.ReadDir(dir)
	assert.NilError(t, err)
	assert.Equal(t, len(left), 0, "%v", left)

	file := filepath.Join(dir, "file")
	assert.NilError(t, os.WriteFile(file, nil, 0o644))
	err = tryOverlay(filepath.Join(file, "state"))
	assert.ErrorContains(t, err, "--state-dir")
}
