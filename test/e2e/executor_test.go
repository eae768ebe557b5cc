package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// executor runs the program under kaniko's name.
func executor(t *testing.T, args ...string) result {
	t.Helper()
	link := filepath.Join(t.TempDir(), "executor")
	assert.NilError(t, os.Symlink(binary, link))
	cmd := exec.CommandContext(t.Context(), link, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// What kaniko's users type works under its name.
func TestExecutor(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases, list := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES"), platforms(t)
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nARG X\nRUN echo $X > /x\n"})
	image := registry + "/executor/app"
	digest := filepath.Join(t.TempDir(), "digest")
	named := filepath.Join(t.TempDir(), "named")
	r := executor(t, "--dockerfile="+dir+"/Dockerfile", "--context=dir://"+dir, "--destination="+image+":1", "--destination="+registry+"/executor/other",
		"--platform="+list, "--driver=local", "--publish-index=true", "--build-arg=X=1", "--cache=true", "--cache-repo="+registry+"/executor/cache",
		"--cache-ttl=336h", "--compression=zstd", "--compression-level=3", "--push-retry=3", "--push-retry-initial-delay=1000", "--push-retry-max-delay=30000",
		"--verbosity=info", "--snapshot-mode=redo", "--digest-file="+digest, "--image-name-tag-with-digest-file="+named)
	assert.Equal(t, r.code, 0, r.stderr)
	got := rawIndex(t, image+":1")
	assert.Check(t, is.Len(got.Manifests, 2))
	written, err := os.ReadFile(digest)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(string(written), descriptor(t, image+":1").Digest.String()))
	assert.Check(t, is.Equal(string(written), descriptor(t, registry+"/executor/other:latest").Digest.String()))
	lines, err := os.ReadFile(named)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(string(lines), image+":1@"+string(written)+"\n"+registry+"/executor/other:latest@"+string(written)+"\n"))

	// The guide's --driver=ci: platforms built apart, digests in files.
	digests := t.TempDir()
	for arch := range strings.SplitSeq(list, ",") {
		r := executor(t, "--context="+dir, "--destination="+image, "--platform="+arch, "--digests-to="+digests)
		assert.Equal(t, r.code, 0, r.stderr)
		assert.NilError(t, os.Remove(filepath.Join(digests, strings.ReplaceAll(arch, "/", "-")+".json")))
	}
	r = executor(t, "--driver=ci", "--digests-from="+digests, "--destination="+image+":ci", "--platform="+list, "--index-annotations=a=b")
	assert.Equal(t, r.code, 0, r.stderr)
	assert.Check(t, is.Equal(rawIndex(t, image+":ci").Annotations["a"], "b"))

	// A failing step's exit code is the executor's.
	failing := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nRUN exit 42\n"})
	r = executor(t, "--context="+failing, "--no-push")
	assert.Check(t, is.Equal(r.code, 42), r.stderr)
	r = executor(t, "--context="+failing)
	assert.Check(t, is.Equal(r.code, 2), r.stderr)
	assert.Check(t, is.Contains(r.stderr, "--destination"))
	r = executor(t, "version")
	assert.Check(t, is.Equal(r.code, 0), r.stderr)
}
