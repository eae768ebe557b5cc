package local

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/test/gitserver"
)

// gitServer serves a repository with two commits: "one", which is tagged v1 and
// on branch old, and "two" on main. Only the token "letmein" may read it.
func gitServer(t *testing.T) (address, first string) {
	t.Helper()
	root := t.TempDir()
	url := gitserver.Serve(t, root, "letmein")
	gitserver.Run(t, root, "init", "-q", "r.git")
	repo := filepath.Join(root, "r.git")
	assert.NilError(t, os.Mkdir(filepath.Join(repo, "sub"), 0o755))
	for _, text := range []string{"one", "two"} {
		assert.NilError(t, os.WriteFile(filepath.Join(repo, "sub", "file"), []byte(text), 0o644))
		gitserver.Run(t, repo, "add", ".")
		gitserver.Run(t, repo, "commit", "-q", "-m", text)
		if text == "one" {
			gitserver.Run(t, repo, "tag", "-a", "v1", "-m", "v1")
			gitserver.Run(t, repo, "branch", "old")
			first = gitserver.Run(t, repo, "rev-parse", "HEAD")
			gitserver.Run(t, repo, "update-ref", "refs/pull/1/head", "HEAD")
		}
	}
	return strings.TrimPrefix(url, "http://") + "/r.git", first
}

func TestCloneContext(t *testing.T) {
	t.Parallel()
	address, first := gitServer(t)
	env := func(name string) string {
		return map[string]string{"GIT_PULL_METHOD": "http", "GIT_TOKEN": "letmein"}[name]
	}
	for _, tc := range []struct {
		name, fragment string
		options        build.Git
		want, err      string
	}{
		{"default_branch", "", build.Git{}, "two", ""},
		{"branch", "#old", build.Git{}, "one", ""},
		{"full_name", "#refs/heads/old", build.Git{}, "one", ""},
		{"tag", "#v1", build.Git{}, "one", ""},
		{"pull_request", "#refs/pull/1/head", build.Git{}, "one", ""},
		{"commit", "#" + first, build.Git{}, "one", ""},
		{"commit_of_branch", "#refs/heads/main#" + first, build.Git{SingleBranch: true, Depth: 1}, "one", ""},
		{"option", "", build.Git{Branch: "old"}, "one", ""},
		{"location_before_option", "#main", build.Git{Branch: "old"}, "two", ""},
		{"shallow", "", build.Git{Depth: 1, SingleBranch: true, RecurseSubmodules: true}, "two", ""},
		{"unknown", "#nope", build.Git{}, "", `no branch or tag "nope"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l, err := buildcontext.Parse("git://" + address + tc.fragment)
			assert.NilError(t, err)
			dir := t.TempDir()
			err = cloneContext(t.Context(), l, dir, tc.options, env)
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
				return
			}
			assert.NilError(t, err)
			data, err := os.ReadFile(filepath.Join(dir, "sub", "file"))
			assert.NilError(t, err)
			assert.Check(t, is.Equal(string(data), tc.want))
			// The history is what versions are made of.
			out, err := exec.Command("git", "-C", dir, "-c", "safe.directory=*", "rev-list", "--count", "HEAD").Output()
			assert.NilError(t, err)
			commits := map[string]string{"one": "1", "two": "2"}[tc.want]
			if tc.options.Depth == 1 {
				commits = "1"
			}
			assert.Check(t, is.Equal(strings.TrimSpace(string(out)), commits))
		})
	}
	t.Run("no_token", func(t *testing.T) {
		t.Parallel()
		l, err := buildcontext.Parse("git://user:hunter2@" + address)
		assert.NilError(t, err)
		err = cloneContext(t.Context(), l, t.TempDir(), build.Git{}, func(name string) string { return map[string]string{"GIT_PULL_METHOD": "http"}[name] })
		assert.ErrorContains(t, err, "GIT_TOKEN")
		assert.Check(t, !strings.Contains(err.Error(), "hunter2"), err)
	})
}

// A password in the URL is used, and is not in the context.
func TestCloneContext_password_in_URL(t *testing.T) {
	t.Parallel()
	address, _ := gitServer(t)
	l, err := buildcontext.Parse("git://user:letmein@" + address)
	assert.NilError(t, err)
	dir := t.TempDir()
	assert.NilError(t, cloneContext(t.Context(), l, dir, build.Git{}, func(name string) string { return map[string]string{"GIT_PULL_METHOD": "http"}[name] }))
	config, err := os.ReadFile(filepath.Join(dir, ".git", "config"))
	assert.NilError(t, err)
	assert.Check(t, !strings.Contains(string(config), "letmein"), string(config))
}

// Submodules come along; the login goes to the repository's own server alone, and
// none of them is a directory of this machine.
func TestCloneContext_submodules(t *testing.T) {
	t.Parallel()
	dir, _ := gitserver.Repositories(t)
	url := gitserver.Serve(t, dir, "secret")
	env := func(name string) string {
		return map[string]string{"GIT_PULL_METHOD": "http", "GIT_USERNAME": "x-access-token", "GIT_TOKEN": "secret"}[name]
	}
	clone := func(repo string) (string, error) {
		l, err := buildcontext.Parse("git://" + strings.TrimPrefix(url, "http://") + "/" + repo)
		assert.NilError(t, err)
		out := t.TempDir()
		return out, cloneContext(t.Context(), l, out, build.Git{RecurseSubmodules: true}, env)
	}
	out, err := clone("main.git")
	assert.NilError(t, err)
	data, err := os.ReadFile(filepath.Join(out, "modules/sub/in/side"))
	assert.NilError(t, err)
	assert.Check(t, is.Equal(string(data), "sub"))

	var told atomic.Value
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told.Store("login: " + r.Header.Get("Authorization"))
		http.NotFound(w, r)
	}))
	defer other.Close()
	for address, want := range map[string]string{
		strings.Replace(other.URL, "127.0.0.1", "localhost", 1) + "/sub.git": "not found",
		dir + "/sub.git": "file is no way to reach a repository",
	} {
		gitserver.Run(t, dir+"/checkout/main", "config", "-f", ".gitmodules", "submodule.modules/sub.url", address)
		gitserver.Run(t, dir+"/checkout/main", "commit", "-qam", "moved")
		gitserver.Run(t, dir+"/main.git", "fetch", "-q", dir+"/checkout/main", "+main:main")
		_, err := clone("main.git")
		assert.Check(t, is.ErrorContains(err, want))
	}
	assert.Check(t, is.Equal(told.Load(), "login: "))
}

// What versions are made of is there: the branch, tags, other branches; and git
// finds nothing to complain of.
func TestCloneContext_is_a_clone(t *testing.T) {
	t.Parallel()
	address, first := gitServer(t)
	for _, tc := range []struct {
		fragment, branch, refs string
		options                build.Git
	}{
		{"", "main", "refs/heads/main refs/remotes/origin/main refs/remotes/origin/old refs/tags/v1", build.Git{}},
		{"#old", "old", "refs/heads/old refs/remotes/origin/old", build.Git{SingleBranch: true}},
		{"#v1", "HEAD", "refs/tags/v1", build.Git{Depth: 1}},
		{"#" + first, "HEAD", "refs/kept/commit refs/remotes/origin/main refs/remotes/origin/old refs/tags/v1", build.Git{SingleBranch: true, Depth: 1}},
	} {
		l, err := buildcontext.Parse("git://x:letmein@" + address + tc.fragment)
		assert.NilError(t, err)
		out := t.TempDir()
		assert.NilError(t, cloneContext(t.Context(), l, out, tc.options, func(name string) string { return map[string]string{"GIT_PULL_METHOD": "http"}[name] }))
		run := func(args ...string) string {
			return strings.ReplaceAll(gitserver.Run(t, out, append([]string{"-c", "safe.directory=*"}, args...)...), "\n", " ")
		}
		assert.Check(t, is.Equal(run("rev-parse", "--abbrev-ref", "HEAD"), tc.branch))
		assert.Check(t, is.Equal(run("for-each-ref", "--format=%(refname)"), tc.refs))
		assert.Check(t, is.Equal(run("status", "--porcelain"), ""))
		run("fsck")
	}
}
