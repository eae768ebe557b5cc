package e2e

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// The setup action installs what was released and nothing else, from wherever it
// comes.
func TestGitHub_setup(t *testing.T) {
	t.Parallel()
	program, err := os.ReadFile(binary)
	assert.NilError(t, err)
	file := "kaniko-multiarch-linux-" + runtime.GOARCH
	sum := fmt.Sprintf("%x", sha256.Sum256(program))
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/mirror/v1.2.3/" + file:
			_, _ = w.Write(program)
		case "/mirror/v6.6.6/" + file:
			_, _ = w.Write([]byte("#!/bin/sh\necho evil\n"))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(mirror.Close)
	script, err := os.ReadFile(root + "/setup/install.sh")
	assert.NilError(t, err)
	for _, tc := range []struct {
		name, checksums string
		env             []string
		code            int
		want            string
	}{
		{"release", "v1.2.3 " + sum + " " + file + "\n", nil, 0, "kaniko-multiarch "},
		{"other_version", "v1.2.2 0 " + file + "\n", []string{"KMA_VERSION=v1.2.3", "KMA_SHA256=" + sum}, 0, "kaniko-multiarch "},
		{"other_version_without_checksum", "v1.2.2 0 " + file + "\n", []string{"KMA_VERSION=v1.2.3"}, 2, "give the input sha256"},
		{"no_release", "", nil, 2, "is no release"},
		{"changed", "v6.6.6 " + sum + " " + file + "\n", nil, 7, "not what was released"},
		{"missing", "v1.2.4 " + sum + " " + file + "\n", nil, 5, "base-url"},
		{"path", "", []string{"KMA_VERSION=../x", "KMA_SHA256=" + sum}, 2, "want one like v1.2.3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir, temp := t.TempDir(), t.TempDir()
			assert.NilError(t, os.WriteFile(filepath.Join(dir, "install.sh"), script, 0o755))
			if tc.checksums != "" {
				assert.NilError(t, os.WriteFile(filepath.Join(dir, "checksums"), []byte(tc.checksums), 0o644))
			}
			outputs, path := filepath.Join(temp, "output"), filepath.Join(temp, "path")
			cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "install.sh"))
			cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "RUNNER_TEMP=" + temp, "GITHUB_OUTPUT=" + outputs, "GITHUB_PATH=" + path, "KMA_BASE_URL=" + mirror.URL + "/mirror/", "no_proxy=127.0.0.1"}, tc.env...)
			out, _ := cmd.CombinedOutput()
			assert.Check(t, is.Equal(cmd.ProcessState.ExitCode(), tc.code), string(out))
			assert.Check(t, is.Contains(string(out), tc.want))
			assert.Check(t, !strings.Contains(string(out), "evil"), string(out))
			bin := filepath.Join(temp, "kaniko-multiarch", "v1.2.3")
			_, err := os.Stat(filepath.Join(bin, "kaniko-multiarch"))
			assert.Check(t, is.Equal(err == nil, tc.code == 0))
			if tc.code == 0 {
				data, err := os.ReadFile(path)
				assert.NilError(t, err)
				assert.Check(t, is.Equal(string(data), bin+"\n"))
				data, err = os.ReadFile(outputs)
				assert.NilError(t, err)
				assert.Check(t, is.Equal(string(data), "version=v1.2.3\npath="+bin+"/kaniko-multiarch\n"))
			}
		})
	}
}
