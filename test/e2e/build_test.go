package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// everything is all bytes of an image: manifest, config, uncompressed layers.
func everything(t *testing.T, d *remote.Descriptor) string {
	t.Helper()
	img, err := d.Image()
	assert.NilError(t, err)
	config, err := img.RawConfigFile()
	assert.NilError(t, err)
	all := string(d.Manifest) + string(config)
	layers, err := img.Layers()
	assert.NilError(t, err)
	for _, l := range layers {
		r, err := l.Uncompressed()
		assert.NilError(t, err)
		data, err := io.ReadAll(r)
		assert.NilError(t, err)
		all += string(data)
	}
	return all
}

func TestSecrets_stay_secret(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	const value = "correct-horse-battery"
	dir := contextDir(t, map[string]string{
		"token": value,
		"Dockerfile": "FROM " + bases + `/busybox:1
RUN --mount=type=secret,id=a,mode=0440,uid=7 [ "$(wc -c < /run/secrets/a)" = 21 ] && ls -ln /run/secrets/a && cat /run/secrets/a
RUN --mount=type=secret,id=b,env=B [ -n "$B" ] && echo "it is $B"
RUN [ ! -e /run/secrets ] && [ -z "$B" ]
`,
	})
	image := registry + "/secret/app:1"
	state := t.TempDir()
	r := runWith(t, []string{"TOKEN=" + value}, "build", "--context", dir, "--destination", image, "--state-dir", state, "--progress", "plain",
		"--secret", "id=a,src="+filepath.Join(dir, "token"), "--secret", "id=b,env=TOKEN")
	assert.Equal(t, r.code, 0, r.stderr)
	assert.Check(t, !strings.Contains(r.stderr+r.stdout, value), r.stderr)
	assert.Check(t, is.Contains(r.stderr, "it is ***"))
	assert.Check(t, is.Contains(r.stderr, "-r--r-----"))
	assert.Check(t, !strings.Contains(everything(t, descriptor(t, image)), value), "the image has the secret")

	assert.NilError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+bases+"/busybox:1\nRUN echo "+value+"; false\n"), 0o644))
	r = run(t, "build", "--context", dir, "--no-push", "--state-dir", state, "--secret", "id=a,src="+filepath.Join(dir, "token"))
	assert.Check(t, is.Equal(r.code, 1))
	assert.Check(t, !strings.Contains(r.stderr, value), r.stderr)

	assert.NilError(t, filepath.WalkDir(state, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		assert.Check(t, !bytes.Contains(data, []byte(value)), "%s has the secret", p)
		return err
	}))
}

func TestCacheMount_outlives_the_build(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	state := t.TempDir()
	build := func(step string) result {
		dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nRUN --mount=type=cache,target=/c " + step + "\n"})
		return run(t, "build", "--context", dir, "--no-push", "--state-dir", state, "--progress", "plain")
	}
	r := build("echo kept > /c/file")
	assert.Equal(t, r.code, 0, r.stderr)
	r = build("cat /c/file")
	assert.Equal(t, r.code, 0, r.stderr)
	assert.Check(t, is.Contains(r.stderr, "kept"))
}

// Ctrl-C in the middle of a step: code 130, nothing left, the base layers kept.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nRUN echo begun; sleep 4711\n"})
	state := t.TempDir()
	r := start(t, nil, "build", "--context", dir, "--no-push", "--state-dir", state, "--progress", "plain")
	r.says(t, begun)
	assert.NilError(t, r.Process.Signal(syscall.SIGINT))
	ended := r.end(t)
	assert.Check(t, is.Equal(ended.code, 130), ended.stderr)
	assert.Check(t, is.Contains(ended.stderr, "cancelled"))
	nothingLeft(t, state, "4711")
}

// nothingLeft looks for mounts, processes and files of a build, whose step has
// argument in its command line.
func nothingLeft(t *testing.T, state, argument string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	assert.NilError(t, err)
	assert.Check(t, !strings.Contains(string(mounts), state), "a mount is left")
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	assert.NilError(t, err)
	for _, c := range commands {
		line, _ := os.ReadFile(c) // it may have ended
		assert.Check(t, !strings.Contains(string(line), argument), "a process is left: %q", line)
		assert.Check(t, !strings.Contains(string(line), state), "a process is left: %q", line)
	}
	builds, err := os.ReadDir(filepath.Join(state, "builds"))
	assert.NilError(t, err)
	assert.Check(t, is.Len(builds, 0))
	spools, err := filepath.Glob(filepath.Join(state, "spool-*"))
	assert.NilError(t, err)
	assert.Check(t, is.Len(spools, 0))
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nRUN sleep 4713\n"})
	state := t.TempDir()
	r := run(t, "build", "--context", dir, "--no-push", "--state-dir", state, "--timeout", "2s")
	assert.Check(t, is.Equal(r.code, 1))
	assert.Check(t, is.Contains(r.stderr, "longer than --timeout=2s"))
	nothingLeft(t, state, "4713")
}

// A builder that is killed takes its step and its mounts along.
func TestKill(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nRUN touch /mnt/started; sleep 4712\n"})
	state := t.TempDir()
	cmd := command(t, t.Context(), nil, "build", "--context", dir, "--no-push", "--state-dir", state)
	assert.NilError(t, cmd.Start())
	sleeping := func() bool {
		commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, c := range commands {
			if line, _ := os.ReadFile(c); strings.Contains(string(line), "sleep\x004712") {
				return true
			}
		}
		return false
	}
	for !sleeping() {
		time.Sleep(10 * time.Millisecond)
	}
	assert.NilError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	for sleeping() { // hangs, and so fails, when the step lives on
		time.Sleep(10 * time.Millisecond)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	assert.NilError(t, err)
	assert.Check(t, !strings.Contains(string(mounts), state), "a mount is left")
	// The next build clears up after it.
	dir = contextDir(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	ok(t, "build", "--context", dir, "--no-push", "--state-dir", state)
	builds, err := os.ReadDir(filepath.Join(state, "builds"))
	assert.NilError(t, err)
	assert.Check(t, is.Len(builds, 0))
}

func TestFlags_inputs_environment(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry := service(t, "KMA_TEST_REGISTRY")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM scratch\nLABEL a=1\nCOPY Dockerfile /x\n"})
	digests := filepath.Join(t.TempDir(), "made", "digest")
	metadata := filepath.Join(t.TempDir(), "metadata.json")
	r := runWith(t, []string{
		"INPUT_TAGS=" + registry + "/input/app:1\n" + registry + "/input/other:2",
		"INPUT_LABELS=b=x,y\nc=z",
		"INPUT_PLATFORM=",
		"KANIKO_MULTIARCH_PLATFORM=linux/amd64",
		"KANIKO_MULTIARCH_PUSH=false",
		"INPUT_PUSH=True",
	}, "build", "--context", dir, "--state-dir", t.TempDir(), "--digest-file", digests, "--metadata-file", metadata, "--annotation", "who=me")
	assert.Equal(t, r.code, 0, r.stderr)
	one, other := descriptor(t, registry+"/input/app:1"), descriptor(t, registry+"/input/other:2")
	assert.Check(t, is.Equal(one.Digest, other.Digest))
	data, err := os.ReadFile(digests)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(string(data), one.Digest.String()))
	assert.Check(t, is.Contains(r.stdout, registry+"/input/other:2@"+one.Digest.String()))
	data, err = os.ReadFile(metadata)
	assert.NilError(t, err)
	assert.Check(t, is.Contains(string(data), one.Digest.String()))
	img, err := one.Image()
	assert.NilError(t, err)
	config, err := img.ConfigFile()
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(config.Config.Labels, map[string]string{"a": "1", "b": "x,y", "c": "z"}))
	manifest, err := img.Manifest()
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(manifest.Annotations, map[string]string{"who": "me"}))

	r = runWith(t, []string{"INPUT_TAG=a:1", "INPUT_TAGS=b:1"}, "build", "--context", dir)
	assert.Check(t, is.Equal(r.code, 2))
	assert.Check(t, is.Contains(r.stderr, "INPUT_TAG"))
}

// A layer that holds one large file goes through without being held in memory.
// The figure is taken by hand; here it is shown that the bytes are right.
func TestADD_archive_and_large_file(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry := service(t, "KMA_TEST_REGISTRY")
	var archive bytes.Buffer
	z := gzip.NewWriter(&archive)
	w := tar.NewWriter(z)
	assert.NilError(t, w.WriteHeader(&tar.Header{Name: "in/side", Size: 2, Mode: 0o640, Uid: 7}))
	_, err := w.Write([]byte("hi"))
	assert.NilError(t, err)
	assert.NilError(t, errors.Join(w.Close(), z.Close()))
	large := strings.Repeat("0123456789abcdef", 4<<20) // 64 MiB
	dir := contextDir(t, map[string]string{"a.tar.gz": archive.String(), "large": large, "Dockerfile": "FROM scratch\nADD a.tar.gz /x/\nCOPY large /\n"})
	image := registry + "/large/app:1"
	ok(t, "build", "--context", dir, "--destination", image, "--state-dir", t.TempDir())
	img, err := descriptor(t, image).Image()
	assert.NilError(t, err)
	layers, err := img.Layers()
	assert.NilError(t, err)
	assert.Assert(t, is.Len(layers, 2))
	r, err := layers[0].Uncompressed()
	assert.NilError(t, err)
	tr, found := tar.NewReader(r), false
	for h, err := tr.Next(); err == nil; h, err = tr.Next() {
		if h.Name == "x/in/side" {
			found = true
			assert.Check(t, is.Equal(h.Uid, 7))
			assert.Check(t, is.Equal(h.Mode, int64(0o640)))
		}
	}
	assert.Check(t, found)
	r, err = layers[1].Uncompressed()
	assert.NilError(t, err)
	tr = tar.NewReader(r)
	_, err = tr.Next()
	assert.NilError(t, err)
	data, err := io.ReadAll(tr)
	assert.NilError(t, err)
	assert.Check(t, string(data) == large)
}

// One cache under two mounts of a step, and two caches in two orders: whoever
// waits gets on.
func TestCacheMount_locks(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	const a, b = "--mount=type=cache,id=a,target=/a,sharing=locked", "--mount=type=cache,id=b,target=/b,sharing=locked"
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1 AS one\nRUN " + a + " " + b + " sleep 0.1; echo > /one\n" +
		"FROM " + bases + "/busybox:1 AS two\nRUN " + b + " " + a + " sleep 0.1; echo > /two\n" +
		"FROM " + bases + "/busybox:1\nRUN " + a + " --mount=type=cache,id=a,target=/again,sharing=locked echo x > /a/f && cat /again/f\n" +
		"COPY --from=one /one /\nCOPY --from=two /two /\n"})
	for range 3 {
		ok(t, "build", "--context", dir, "--no-push", "--no-cache", "--state-dir", t.TempDir(), "--timeout", "2m")
	}
}

func TestDestinations(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry := service(t, "KMA_TEST_REGISTRY")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /x\n"})
	// Tagged and untagged names, several repositories, several platforms.
	out := ok(t, "build", "--context", dir, "--platform", "linux/amd64,linux/arm64", "--state-dir", t.TempDir(), "--destination", registry+"/dest/b", "--destination", registry+"/dest/A:1,"+registry+"/dest/c:2")
	_, digest, found := strings.Cut(out, "@")
	assert.Assert(t, found, out)
	digest, _, _ = strings.Cut(digest, "\n")
	for _, ref := range []string{"/dest/b@" + digest, "/dest/a:1", "/dest/a@" + digest, "/dest/c:2"} {
		assert.Check(t, is.Equal(descriptor(t, registry+ref).Digest.String(), digest), ref)
	}
	// The digest does not depend on whether and where it is pushed.
	assert.Check(t, is.Equal(ok(t, "build", "--context", dir, "--platform", "linux/amd64,linux/arm64", "--state-dir", t.TempDir(), "--no-push", "--reproducible"),
		ok(t, "build", "--context", dir, "--platform", "linux/amd64,linux/arm64", "--state-dir", t.TempDir(), "--no-push", "--reproducible", "--destination", "example.com/a:1")))
	// A leg of a matrix moves no tag.
	records := t.TempDir()
	ok(t, "build", "--context", dir, "--platform", "linux/amd64", "--state-dir", t.TempDir(), "--destination", registry+"/dest/leg:1", "--digests-to", records)
	_, err := exec.Command("skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+registry+"/dest/leg:1").Output()
	assert.Check(t, err != nil, "the tag has moved")
}

func TestDockerfile_behind_a_link(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := contextDir(t, map[string]string{"common/Dockerfile": "FROM scratch\nCOPY . /\n", "app/kept": "", "app/skipped": "", "app/Dockerfile.dockerignore": "skipped\n"})
	assert.NilError(t, os.Symlink("../common/Dockerfile", filepath.Join(dir, "app/Dockerfile")))
	layout := t.TempDir()
	ok(t, "build", "--context", filepath.Join(dir, "app"), "--no-push", "--state-dir", t.TempDir(), "--tar-path", filepath.Join(layout, "x.tar"), "--oci-layout-path", filepath.Join(layout, "l"))
	blobs, err := filepath.Glob(filepath.Join(layout, "l/blobs/sha256/*"))
	assert.NilError(t, err)
	names := ""
	for _, b := range blobs {
		f, err := os.Open(b)
		assert.NilError(t, err)
		if z, err := gzip.NewReader(f); err == nil {
			tr := tar.NewReader(z)
			for h, err := tr.Next(); err == nil; h, err = tr.Next() {
				names += h.Name + " "
			}
		}
		assert.NilError(t, f.Close())
	}
	assert.Check(t, is.Contains(names, "kept"))
	assert.Check(t, !strings.Contains(names, "skipped"), names)
}

func TestMatrix_refuses(t *testing.T) {
	t.Parallel()
	dir := contextDir(t, map[string]string{"Dockerfile": "RUNN\n"})
	r := run(t, "matrix", "--platform", "linux/s390x", "--image", "example.com/a", "--context", dir)
	assert.Check(t, is.Equal(r.code, 3), r.stderr)
	r = run(t, "matrix", "--platform", "linux/s390x", "--image", "example.com/a", "--context", dir, "--dockerfile", "Nope")
	assert.Check(t, is.Equal(r.code, 3), r.stderr)
	// Without a checkout the safe guess is taken.
	r = run(t, "matrix", "--platform", "linux/s390x", "--image", "example.com/a", "--context", t.TempDir())
	assert.Check(t, is.Equal(r.code, 0), r.stderr)
	assert.Check(t, is.Contains(r.stdout, `"mode": "qemu"`))
}
