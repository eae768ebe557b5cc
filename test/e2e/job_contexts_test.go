package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/job"
)

// All kinds of contexts travel, and make the image that they make here.
func TestJob_contexts(t *testing.T) {
	t.Parallel()
	needRoot(t)
	reg, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	files := map[string]string{"app/Dockerfile": "FROM base\nCOPY --from=files / /copied\nCOPY text /text\nRUN cat /text\n", "app/text": "from afar\n"}
	dir := contextDir(t, files)
	data := archive(t, files)
	tarball := filepath.Join(t.TempDir(), "c.tar.gz")
	assert.NilError(t, os.WriteFile(tarball, data, 0o644))
	layout := filepath.Join(t.TempDir(), "layout")
	base := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nCOPY Dockerfile /from-base\n"})
	ok(t, "build", "--context", base, "--platform", "linux/amd64", "--state-dir", t.TempDir(), "-o", "type=oci,tar=false,dest="+layout+",name=example.com/base:1")
	layouts := map[string]string{"base": "oci-layout://" + layout + ":1", "files": "oci-layout://" + layout}
	image := map[string]string{"base": "docker-image://" + bases + "/busybox:1", "files": base}
	for _, tc := range []struct {
		name, context string
		named         map[string]string
		stdin         []byte
	}{
		{"layout", dir, layouts, nil},
		{"tar", "tar://" + tarball, image, nil},
		{"stdin", "-", image, data},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			to := reg + "/job/" + tc.name
			o := build.Options{Context: tc.context, ContextSubPath: "app", Platforms: []string{"linux/amd64"}, Image: to, BuildContexts: tc.named, Reproducible: true}
			got, r := runJob(t, prepareWith(t, o, nil, bytes.NewReader(tc.stdin))["linux/amd64"])
			assert.Assert(t, is.Equal(r.code, 0), r.stderr)
			args := []string{"build", "--context=" + tc.context, "--context-sub-path=app", "--platform=linux/amd64", "--image=" + to, "--reproducible", "--state-dir=" + t.TempDir()}
			for name, location := range tc.named {
				args = append(args, "--build-context="+name+"="+location)
			}
			cmd := command(t, t.Context(), nil, args...)
			cmd.Stdin = bytes.NewReader(tc.stdin)
			here := finished(t, cmd)
			assert.Assert(t, is.Equal(here.code, 0), here.stderr)
			assert.Check(t, is.Equal(to+"@"+got.Record.Digest.String(), strings.TrimSpace(here.stdout)))
		})
	}
}

// A pod that is deleted says so.
func TestJob_terminated(t *testing.T) {
	t.Parallel()
	needRoot(t)
	reg, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nRUN echo begun; sleep 4717\n"})
	request, err := prepare(t, build.Options{Context: dir, Platforms: []string{"linux/amd64"}, Image: reg + "/job/terminated"}, nil)["linux/amd64"].Request.Encode()
	assert.NilError(t, err)
	file, state := filepath.Join(t.TempDir(), "result"), t.TempDir()
	// As the kubelet makes it; what an earlier container wrote must not show.
	assert.NilError(t, os.WriteFile(file, bytes.Repeat([]byte("x"), 9000), 0o666))
	r := start(t, nil, "job", "--request="+request, "--result-file="+file, "--state-dir="+state)
	r.says(t, begun)
	assert.NilError(t, r.Process.Signal(syscall.SIGTERM))
	ended := r.end(t)
	assert.Check(t, is.Equal(ended.code, 130), ended.stderr)
	message, err := os.ReadFile(file)
	assert.NilError(t, err)
	got, err := job.ParseResult(string(message))
	assert.NilError(t, err)
	assert.Check(t, is.Equal(got.ExitCode, 130))
	assert.Check(t, is.Contains(got.Error, "cancelled"))
	nothingLeft(t, state, "4717")
}

// In a container without rights, where steps run in place, a request is built from
// its files and its Secret like elsewhere.
func TestJob_container(t *testing.T) {
	t.Parallel()
	needRoot(t)
	reg, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	docker := service(t, "KMA_TEST_DOCKER")
	image, err := toolImage()
	assert.NilError(t, err)
	dir := contextDir(t, map[string]string{
		"other/Dockerfile": "FROM " + bases + "/busybox:1\nCOPY . /app\nRUN --mount=type=secret,id=token cp /run/secrets/token /tmp/t && cat /app/text && touch /tmp/x\n",
		"app/text":         "text\n",
	})
	o := build.Options{
		Context: filepath.Join(dir, "app"), Dockerfile: filepath.Join(dir, "other/Dockerfile"), Platforms: []string{"linux/amd64"}, Image: reg + "/job/container",
		Secrets: []build.Secret{{ID: "token", Env: "T"}}, Reproducible: true,
	}
	p := prepare(t, o, map[string]string{"T": "hunter2"})["linux/amd64"]
	request, err := p.Request.Encode()
	assert.NilError(t, err)
	secrets, file := t.TempDir(), filepath.Join(t.TempDir(), "result")
	for key, value := range p.Secret {
		assert.NilError(t, os.WriteFile(filepath.Join(secrets, key), value, 0o600))
	}
	assert.NilError(t, os.WriteFile(file, nil, 0o666))
	r := finished(t, exec.CommandContext(t.Context(), docker, "run", "--rm", "--network=host", "-v", secrets+":"+job.SecretDir+":ro", "-v", file+":/dev/termination-log",
		"--entrypoint=/kaniko/kaniko-multiarch", image, "job", "--request="+request, "--isolation=inplace"))
	assert.Assert(t, is.Equal(r.code, 0), r.stderr)
	message, err := os.ReadFile(file)
	assert.NilError(t, err)
	got, err := job.ParseResult(string(message))
	assert.NilError(t, err)
	here := ok(t, "build", "--context="+o.Context, "--dockerfile="+o.Dockerfile, "--platform=linux/amd64", "--image="+o.Image, "--reproducible",
		"--secret=id=token,src="+filepath.Join(secrets, filepath.Base(p.Request.Options.Secrets[0].File)), "--state-dir="+t.TempDir())
	assert.Check(t, is.Equal(o.Image+"@"+got.Record.Digest.String(), here))
}
