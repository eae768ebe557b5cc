package e2e

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/job"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// prepare is what a driver does before it starts a pod.
func prepare(t *testing.T, o build.Options, env map[string]string) map[string]job.Payload {
	t.Helper()
	return prepareWith(t, o, env, nil)
}

func prepareWith(t *testing.T, o build.Options, env map[string]string, stdin io.Reader) map[string]job.Payload {
	t.Helper()
	client, err := registry.New(registry.Options{HomeDir: t.TempDir(), Getenv: func(string) string { return "" }})
	assert.NilError(t, err)
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	secrets, err := local.ReadSecrets(o.Secrets, lookup)
	assert.NilError(t, err)
	payloads, err := job.Prepare(t.Context(), job.From{Registry: client, LookupEnv: lookup, Secrets: secrets, SpoolDir: t.TempDir(), Stdin: stdin}, o)
	assert.NilError(t, err)
	return payloads
}

// runJob does what a pod does, in a process of its own.
func runJob(t *testing.T, p job.Payload, args ...string) (job.Result, result) {
	t.Helper()
	request, err := p.Request.Encode()
	assert.NilError(t, err)
	secrets := t.TempDir()
	for key, value := range p.Secret {
		assert.NilError(t, os.WriteFile(filepath.Join(secrets, key), value, 0o600))
		assert.Check(t, !strings.Contains(request, string(value)))
	}
	file := filepath.Join(t.TempDir(), "result")
	r := run(t, append([]string{"job", "--request=" + request, "--result-file=" + file, "--secret-dir=" + secrets, "--state-dir=" + t.TempDir()}, args...)...)
	message, err := os.ReadFile(file)
	assert.NilError(t, err, r.stderr)
	got, err := job.ParseResult(string(message))
	assert.NilError(t, err, "%s", message)
	return got, r
}

// A build that travels has the digest of one that stays: its context, named ones,
// Dockerfile, arguments and secrets arrive.
func TestJob(t *testing.T) {
	t.Parallel()
	needRoot(t)
	reg, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	dir := contextDir(t, map[string]string{
		"app/Dockerfile": "FROM " + bases + "/busybox:1\nARG who\nLABEL by=$who\nCOPY . /app\nCOPY --from=named . /named\n" +
			"RUN --mount=type=secret,id=token,env=TOKEN [ \"$TOKEN\" = hunter2hunter2 ] && stat -c '%n %a %u %Y' /app/* > /list\n",
		"app/.dockerignore": "*\n!text\n!sub\nsub/secret\n", "app/text": "text\n", "app/ignored": "no\n", "app/sub/a": "a\n", "app/sub/secret": "no\n",
		"named/file": "file\n", "token": "hunter2hunter2",
	})
	old := time.Unix(1234567890, 987654321)
	assert.NilError(t, os.Chtimes(filepath.Join(dir, "app/text"), old, old))
	assert.NilError(t, os.Symlink("text", filepath.Join(dir, "app/sub/link")))
	assert.NilError(t, os.Link(filepath.Join(dir, "app/ignored"), filepath.Join(dir, "app/sub/hard")))
	assert.NilError(t, os.Chmod(filepath.Join(dir, "app/sub"), 0o750))
	o := build.Options{
		Context: dir, ContextSubPath: "app", Platforms: []string{"linux/amd64"}, Destinations: []string{reg + "/job/app:1", reg + "/job/other:1"},
		BuildContexts: map[string]string{"named": filepath.Join(dir, "named")}, BuildArgs: map[string]string{"who": "me"},
		Secrets: []build.Secret{{ID: "token", File: filepath.Join(dir, "token")}}, Annotations: []string{"a=b", "manifest-descriptor:c=d"}, PublishIndex: true,
	}
	payload := prepare(t, o, nil)["linux/amd64"]
	got, r := runJob(t, payload)
	assert.Assert(t, is.Equal(r.code, 0), r.stderr)
	assert.Check(t, is.Equal(got.ExitCode, 0))
	assert.Check(t, is.Equal(got.Record.Image, reg+"/job/app"))
	here := ok(t, "build", "--context="+dir, "--context-sub-path=app", "--platform=linux/amd64", "--destination="+reg+"/job/app:1", "--push-by-digest",
		"--build-context=named="+filepath.Join(dir, "named"), "--build-arg=who=me", "--secret=id=token,src="+filepath.Join(dir, "token"), "--annotation=a=b", "--reproducible", "--state-dir="+t.TempDir())
	// Times are those of the files, so that only limits make two builds equal.
	o.Reproducible = true
	got, r = runJob(t, prepare(t, o, nil)["linux/amd64"])
	assert.Assert(t, is.Equal(r.code, 0), r.stderr)
	assert.Check(t, is.Equal(reg+"/job/app@"+got.Record.Digest.String(), here))

	img, err := descriptor(t, reg+"/job/app@"+got.Record.Digest.String()).Image()
	assert.NilError(t, err)
	list := fileOf(t, img, "list")
	assert.Check(t, is.Contains(list, "/app/text 644 0 1234567890"))
	assert.Check(t, is.Contains(list, "/app/sub 750 0 "))
	assert.Check(t, !strings.Contains(list, "ignored"))
	assert.Check(t, is.Equal(fileOf(t, img, "app/sub/hard"), "no\n"))
}

// Whatever goes wrong, the result says so, without secrets.
func TestJob_failures(t *testing.T) {
	t.Parallel()
	needRoot(t)
	reg, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	for _, tc := range []struct {
		name, dockerfile string
		code, step       int
		want             string
	}{
		{"step", "FROM " + bases + "/busybox:1\nRUN --mount=type=secret,id=token echo hunter2hunter2 && exit 42\n", 1, 42, "exit code: 42"},
		{"dockerfile", "FROM " + bases + "/busybox:1\nRUNN true\n", 3, -1, "deploy/Dockerfile:2"},
		{"denied_base", "FROM " + bases + "/absent:1\n", 3, -1, "absent"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := contextDir(t, map[string]string{"deploy/Dockerfile": tc.dockerfile})
			o := build.Options{
				Context: dir, Dockerfile: "deploy/Dockerfile", Platforms: []string{"linux/amd64"}, Image: reg + "/job/failures",
				Secrets: []build.Secret{{ID: "token", Env: "T"}},
			}
			got, r := runJob(t, prepare(t, o, map[string]string{"T": "hunter2hunter2"})["linux/amd64"])
			assert.Check(t, is.Equal(r.code, tc.code), r.stderr)
			assert.Check(t, is.Equal(got.ExitCode, tc.code))
			assert.Check(t, is.Contains(got.Error, tc.want))
			assert.Check(t, !strings.Contains(got.Error+r.stderr, "hunter2"), "%s\n%s", got.Error, r.stderr)
			assert.Check(t, is.Equal(got.StepCode != nil, tc.step >= 0))
			if tc.step >= 0 {
				assert.Check(t, is.Equal(*got.StepCode, tc.step))
			}
		})
	}
	t.Run("request", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "result")
		r := run(t, "job", "--request=2.x", "--result-file="+file)
		message, err := os.ReadFile(file)
		assert.NilError(t, err, r.stderr)
		got, err := job.ParseResult(string(message))
		assert.NilError(t, err)
		assert.Check(t, is.Equal(got.ExitCode, 2))
		assert.Check(t, is.Contains(got.Error, "version 2"))
	})
}
