package e2e

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// closedPort is an address that nobody listens at.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// denied is a registry that lets everybody read and nobody write.
func denied(t *testing.T) string {
	t.Helper()
	inner := registry.New()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// Each mistake has a clear error, in one last line, and the contract's code.
func TestBadInput(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	good := "FROM " + bases + "/busybox:1\nRUN true\n"
	for _, tc := range []struct {
		name       string
		dockerfile string
		args       []string
		code       int
		want       []string
	}{
		{"unknown_flag", good, []string{"--no-push", "--plattform=linux/amd64"}, 2, []string{"unknown flag --plattform", "--platform"}},
		{"unknown_command", good, []string{"extra", "--no-push"}, 2, []string{"unexpected argument extra"}},
		{"bad_platform", good, []string{"--no-push", "--platform", "linux/amd46"}, 2, []string{"linux/amd46"}},
		{"windows", good, []string{"--no-push", "--platform", "windows/amd64"}, 2, []string{"windows/amd64", "only linux"}},
		{"bad_boolean", good, []string{"--no-push=ja"}, 2, []string{`"ja" is not a boolean`}},
		{"bad_reference", good, []string{"--destination", "127.0.0.1:1/a b"}, 2, []string{"127.0.0.1:1/a b"}},
		{"nowhere_to_push", good, nil, 2, []string{"nowhere to push to", "--destination"}},
		{"tag_of_image", good, []string{"--image", "127.0.0.1:1/a:1"}, 2, []string{"--image", "without tag"}},
		{"build_arg", good, []string{"--no-push", "--build-arg", "=x"}, 2, []string{"--build-arg"}},
		{"secret_file", good, []string{"--no-push", "--secret", "id=x,src=/nope"}, 2, []string{`secret "x"`, "/nope"}},
		{"secret_variable", good, []string{"--no-push", "--secret", "id=x,env=NOPE"}, 2, []string{"NOPE is not set"}},
		{"secret_form", good, []string{"--no-push", "--secret", "hunter2"}, 2, []string{"id=NAME,src=FILE"}},
		{"annotation", good, []string{"--no-push", "--annotation", "layer:a=b"}, 2, []string{`"layer" is no place`}},
		{"isolation", good, []string{"--no-push", "--isolation", "magic"}, 2, []string{"--isolation"}},
		{"timeout", good, []string{"--no-push", "--timeout", "soon"}, 2, []string{"--timeout"}},

		{"syntax_error", "FROM scratch\nRUNN true\n", []string{"--no-push"}, 3, []string{"   2 | RUNN true\n     | ^^^^", "Dockerfile:2: unknown instruction: RUNN (did you mean RUN?)"}},
		{"empty_dockerfile", "", []string{"--no-push"}, 3, []string{"Dockerfile"}},
		{"unknown_target", good, []string{"--no-push", "--target", "nope"}, 3, []string{"nope"}},
		{"missing_context", good, []string{"--no-push", "--context", "/no/such/dir"}, 3, []string{"/no/such/dir does not exist"}},
		{"missing_dockerfile", good, []string{"--no-push", "--dockerfile", "Nope"}, 3, []string{"there is no Dockerfile Nope", "--dockerfile"}},
		{"missing_source", "FROM " + bases + "/busybox:1\nCOPY nope /\n", []string{"--no-push"}, 3, []string{"Dockerfile:2", `"/nope": not found`, ".dockerignore"}},
		{"missing_named_context", good, []string{"--no-push", "--build-context", "x=/no/such/dir"}, 3, []string{"named context x", "/no/such/dir does not exist"}},
		{"unknown_base", "FROM " + bases + "/nothing:1\n", []string{"--no-push"}, 3, []string{"Dockerfile:1", bases + "/nothing:1"}},
		{"base_without_platform", "FROM " + bases + "/busybox:1\n", []string{"--no-push", "--platform", "linux/s390x"}, 3, []string{"linux/s390x", "linux/amd64", "linux/arm64"}},
		{"front_end", "# syntax=example.com/mine:1\n" + good, []string{"--no-push"}, 3, []string{"example.com/mine:1", "not supported"}},
		{"unknown_owner", "FROM scratch\nCOPY --chown=nope Dockerfile /\n", []string{"--no-push"}, 3, []string{`user "nope"`, "Dockerfile:2"}},
		{"git_source_out_of_reach", "FROM scratch\nADD https://" + closedPort(t) + "/b.git /\n", []string{"--no-push"}, 5, []string{"Dockerfile:2", "/b.git"}},

		{"s3_context", good, []string{"--no-push", "--context", "s3://bucket/key.tar.gz"}, 2, []string{"s3://", "not supported", "download"}},
		{"git_context_out_of_reach", good, []string{"--no-push", "--context", "https://" + closedPort(t) + "/x.git"}, 5, []string{"git repository", "/x.git"}},
		{"context_name", good, []string{"--no-push", "--build-context", "context=."}, 2, []string{"--build-context context"}},
		{"add_host", good, []string{"--no-push", "--add-host", "foo"}, 2, []string{`--add-host "foo"`}},
		{"annotation_of_no_platform", good, []string{"--no-push", "--platform", "linux/amd64", "--annotation", "manifest[linux/s390x]:a=b"}, 2, []string{"linux/s390x, which is not built"}},
		{"annotation_without_index", good, []string{"--no-push", "--platform", "linux/amd64", "--annotation", "manifest-descriptor:a=b"}, 2, []string{"--publish-index"}},
		{"two_spellings", good, []string{"--no-push", "--tag", "a:1", "--destination", "b:1"}, 2, []string{"--tag and --destination"}},
		{"unwritable_file", good, []string{"--no-push", "--digest-file", "/proc/nope/digest"}, 2, []string{"--digest-file"}},
		{"ssh", "FROM " + bases + "/busybox:1\nRUN echo this must not run\nRUN --mount=type=ssh,required=true true\n", []string{"--no-push"}, 2, []string{"Dockerfile:3", `ssh agent "default" is required`, "--ssh default"}},
		{"insecure", "FROM " + bases + "/busybox:1\nRUN --security=insecure true\n", []string{"--no-push"}, 3, []string{"Dockerfile:2", "--security=insecure is not allowed", "--allow security.insecure"}},
		{"url_not_found", "FROM scratch\nADD http://" + denied(t) + "/nope /\n", []string{"--no-push"}, 3, []string{"Dockerfile:2", "404"}},
		{"url_unreachable", "FROM scratch\nADD http://" + closedPort(t) + "/nope /\n", []string{"--no-push", "--push-retry", "0"}, 5, []string{"Dockerfile:2"}},

		{"failing_step", "FROM " + bases + "/busybox:1\nRUN echo so it is; exit 3\n", []string{"--no-push"}, 1, []string{"so it is", "Dockerfile:2", "exit code: 3"}},
		{"missing_command", "FROM " + bases + "/busybox:1\nRUN [\"/nope\"]\n", []string{"--no-push"}, 1, []string{"/nope", "exit code: 127"}},
		{"required_secret", "FROM " + bases + "/busybox:1\nRUN --mount=type=secret,id=x,required=true true\n", []string{"--no-push"}, 2, []string{`secret "x" is required`, "--secret id=x"}},

		{"denied_push", good, []string{"--destination", denied(t) + "/a:1"}, 4, []string{"docker login"}},
		{"unreachable", good, []string{"--destination", closedPort(t) + "/a:1", "--push-retry", "1", "--push-retry-initial-delay", "1"}, 5, []string{"127.0.0.1:"}},
		{"unreachable_base", "FROM " + closedPort(t) + "/a:1\n", []string{"--no-push", "--push-retry", "0"}, 5, []string{"Dockerfile:1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := contextDir(t, map[string]string{"Dockerfile": tc.dockerfile})
			args := append([]string{"build", "--state-dir", t.TempDir(), "--progress", "plain"}, tc.args...)
			if !strings.Contains(strings.Join(tc.args, " "), "--context") {
				args = append(args, "--context", dir)
			}
			r := run(t, args...)
			assert.Check(t, is.Equal(r.code, tc.code), r.stderr)
			for _, want := range tc.want {
				assert.Check(t, is.Contains(r.stderr, want))
			}
			lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
			assert.Check(t, strings.HasPrefix(lines[len(lines)-1], "error: "), r.stderr)
			assert.Check(t, is.Equal(r.stdout, ""))
		})
	}
}

// A platform that nothing emulates is refused before anything runs.
func TestNoEmulation(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	// An s390x image without a file is enough to ask for a step on it.
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	ok(t, "build", "--context", dir, "--platform", "linux/s390x", "--destination", registry+"/empty/s390x:1", "--state-dir", t.TempDir())
	dir = contextDir(t, map[string]string{"Dockerfile": "FROM --platform=$BUILDPLATFORM " + bases + "/busybox:1 AS b\nRUN echo this must not run\nFROM " + registry + "/empty/s390x:1\nCOPY --from=b /bin/busybox /bin/sh\nRUN true\n"})
	r := run(t, "build", "--context", dir, "--platform", "linux/s390x", "--no-push", "--state-dir", t.TempDir())
	assert.Check(t, is.Equal(r.code, 6), r.stderr)
	assert.Check(t, is.Contains(r.stderr, "linux/s390x"))
	assert.Check(t, is.Contains(r.stderr, "binfmt"))
	assert.Check(t, !strings.Contains(r.stderr, "DONE"), r.stderr)

	// Without a step on the target, no emulation is needed.
	dir = contextDir(t, map[string]string{"Dockerfile": "FROM --platform=$BUILDPLATFORM " + bases + "/busybox:1 AS b\nRUN echo x > /x\nFROM " + registry + "/empty/s390x:1\nCOPY --from=b /x /x\n"})
	ok(t, "build", "--context", dir, "--platform", "linux/s390x", "--no-push", "--state-dir", t.TempDir())
}

// A failed build leaves no file that claims success.
func TestFailure_writes_no_record(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nRUN true\n"})
	out := t.TempDir()
	r := run(t, "build", "--context", dir, "--state-dir", t.TempDir(), "--image", denied(t)+"/a", "--digests-to", out, "--digest-file", filepath.Join(out, "digest"))
	assert.Check(t, is.Equal(r.code, 4), r.stderr)
	left, err := os.ReadDir(out)
	assert.NilError(t, err)
	assert.Check(t, is.Len(left, 0))
}
