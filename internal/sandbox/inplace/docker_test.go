package inplace_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// All tests of this package again, in a default container: root, 14
// capabilities, the default seccomp profile.
func TestInDocker(t *testing.T) {
	client := os.Getenv("KMA_TEST_DOCKER")
	if client == "" {
		t.Skip("KMA_TEST_DOCKER is not set: run `make test` as root on Debian, which starts a docker daemon")
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("needs the go command")
	}
	docker := func(t *testing.T, stdin []byte, args ...string) string {
		t.Helper()
		cmd := exec.Command(client, args...)
		cmd.Stdin = bytes.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		assert.NilError(t, err, "docker %s: %s", args[0], out)
		return string(out)
	}
	dir := t.TempDir()
	cmd := exec.Command(goTool, "test", "-c", "-o", filepath.Join(dir, "test"), ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	image := fmt.Sprintf("kma-inplace-test:%d", os.Getpid())
	docker(t, imageTar(t, filepath.Join(dir, "test")), "import", "-", image)
	t.Cleanup(func() { docker(t, nil, "rmi", "-f", image) })

	for name, volumes := range map[string][]string{
		"volume":         nil,
		"github_actions": {"/github/workspace", "/var/run/docker.sock"},
		"kubernetes":     {"/var/run/secrets/token", "/kaniko/.docker"},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"run", "--rm", "--network=none", "-e", containerVar + "=" + name, "-e", "TMPDIR=/kaniko/tmp"}
			for _, v := range append(volumes, "/volume") {
				source := filepath.Join(t.TempDir(), filepath.Base(v))
				if strings.HasSuffix(v, ".sock") {
					write(t, filepath.Dir(source), filepath.Base(source), "", 0o600)
				} else {
					write(t, source, "mine", "keep\n", 0o600)
				}
				args = append(args, "-v", source+":"+v)
			}
			out := docker(t, nil, append(args, image, "/kaniko/test", "-test.v", "-test.timeout=3m")...)
			t.Log(summary(out))
			assert.Assert(t, strings.Contains(out, "--- PASS: TestRun_deletes_what_it_can"), out)
		})
	}
	t.Run("doomed", func(t *testing.T) {
		out := docker(t, nil, "run", "--rm", "--network=none", "-v", t.TempDir()+":/volume", "-e", containerVar+"=doomed", "-e", "TMPDIR=/volume",
			image, "/kaniko/test", "-test.v", "-test.timeout=3m", "-test.run=TestRun_deletes_the_builder")
		assert.Assert(t, strings.Contains(out, "--- PASS: TestRun_deletes_the_builder"), out)
	})
}

// summary is what the tests in a container logged and skipped.
func summary(out string) string {
	var b strings.Builder
	for line := range strings.Lines(out) {
		if strings.Contains(line, "_test.go:") || strings.Contains(line, "SKIP") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// imageTar is an image as ours is: nothing but /kaniko and /busybox.
func imageTar(t *testing.T, test string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, dir := range []string{"kaniko/", "kaniko/tmp/", "busybox/"} {
		assert.NilError(t, w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}))
	}
	for name, source := range map[string]string{"kaniko/test": test, "kaniko/busybox": busybox(), "busybox/sh": busybox()} {
		content, err := os.ReadFile(source)
		assert.NilError(t, err)
		assert.NilError(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))}))
		_, err = w.Write(content)
		assert.NilError(t, err)
	}
	assert.NilError(t, w.Close())
	return buf.Bytes()
}
