// Package gitserver makes repositories and serves them over HTTP, for tests.
package gitserver

import (
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// Run runs git in a directory, with a clock that stands still.
func Run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_AUTHOR_DATE=2020-01-02T03:04:05Z",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com", "GIT_COMMITTER_DATE=2020-01-02T03:04:05Z")
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "git %v\n%s", args, out)
	return strings.TrimSpace(string(out))
}

// Serve serves the repositories below a directory over HTTP. With a token, it
// wants that from a user of any name.
func Serve(t *testing.T, dir, token string) string {
	t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skip("git is not installed: run `make test` as root on Debian")
	}
	backend := &cgi.Handler{
		Stderr: io.Discard, Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"), Root: "/",
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// Repositories makes sub.git, and main.git with branches, tags and a submodule.
// It returns their directory and hashes by name.
func Repositories(t *testing.T) (string, map[string]string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed: run `make test` as root on Debian")
	}
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		p := filepath.Join(dir, name)
		assert.NilError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		assert.NilError(t, os.WriteFile(p, []byte(text), mode))
		assert.NilError(t, os.Chmod(p, mode))
	}
	hashes := map[string]string{}
	Run(t, dir, "init", "-q", "checkout/sub")
	write("checkout/sub/in/side", "sub", 0o644)
	Run(t, dir+"/checkout/sub", "add", ".")
	Run(t, dir+"/checkout/sub", "commit", "-qm", "sub")
	Run(t, dir, "clone", "-q", "--bare", "checkout/sub", "sub.git")

	Run(t, dir, "init", "-q", "checkout/main")
	main := dir + "/checkout/main"
	write("checkout/main/file", "first", 0o644)
	Run(t, main, "add", ".")
	Run(t, main, "commit", "-qm", "first")
	hashes["first"] = Run(t, main, "rev-parse", "HEAD")
	Run(t, main, "tag", "-a", "-m", "annotated", "v1")
	hashes["v1"] = Run(t, main, "rev-parse", "v1")
	write("checkout/main/file", "second", 0o644)
	write("checkout/main/dir/exec", "#!/bin/sh\n", 0o755)
	assert.NilError(t, os.Symlink("../file", main+"/dir/link"))
	Run(t, main, "submodule", "add", "-q", dir+"/sub.git", "modules/sub")
	Run(t, main, "config", "-f", ".gitmodules", "submodule.modules/sub.url", "../sub.git")
	Run(t, main, "add", ".")
	Run(t, main, "commit", "-qm", "second")
	hashes["second"] = Run(t, main, "rev-parse", "HEAD")
	Run(t, main, "tag", "light")
	Run(t, main, "checkout", "-qb", "feature/x")
	write("checkout/main/file", "feature", 0o644)
	Run(t, main, "commit", "-qam", "feature")
	Run(t, main, "checkout", "-q", "main")
	Run(t, dir, "clone", "-q", "--bare", "checkout/main", "main.git")
	return dir, hashes
}
