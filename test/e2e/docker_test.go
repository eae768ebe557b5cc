package e2e

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// toolImage is the image of the program under test. It is made once.
var toolImage = sync.OnceValues(func() (string, error) {
	return importTool(binary, "kaniko-multiarch:test")
})

// importTool makes an image that holds the program and nothing else, as the
// released one does.
func importTool(path, name string) (string, error) {
	program, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var root bytes.Buffer
	w := tar.NewWriter(&root)
	for _, h := range []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "kaniko/", Mode: 0o755},
		{Name: "kaniko/kaniko-multiarch", Mode: 0o755, Size: int64(len(program))},
		{Typeflag: tar.TypeSymlink, Name: "kaniko/executor", Linkname: "kaniko-multiarch"},
	} {
		if err := w.WriteHeader(h); err != nil {
			return "", err
		}
		if h.Size > 0 {
			if _, err := w.Write(program); err != nil {
				return "", err
			}
		}
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	cmd := exec.Command(os.Getenv("KMA_TEST_DOCKER"), "import",
		"-c", `ENTRYPOINT ["/kaniko/executor"]`, "-c", "ENV PATH=/kaniko HOME=/root", "-", name)
	cmd.Stdin = &root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return name, nil
}

// inContainer runs the program under kaniko's name in a default container: no
// privilege, no seccomp option. flags are docker's.
func inContainer(t *testing.T, flags []string, args ...string) result {
	t.Helper()
	service(t, "KMA_TEST_DOCKER")
	image, err := toolImage()
	assert.NilError(t, err)
	return inContainerOf(t, image, flags, args...)
}

func inContainerOf(t *testing.T, image string, flags []string, args ...string) result {
	t.Helper()
	docker := service(t, "KMA_TEST_DOCKER")
	cmd := exec.CommandContext(t.Context(), docker, slices.Concat([]string{"run", "--rm", "--network=host"}, flags, []string{image}, args)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// The places that a CI system mounts into a container are not seen by a step,
// are in no layer, and are there afterwards.
func TestInPlace_mounts_of_CI(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases, list := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES"), platforms(t)
	service(t, "KMA_TEST_DOCKER")
	work := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + `/busybox:1
RUN [ ! -e /github ] && [ ! -e /var/run/docker.sock ] && [ ! -e /run/docker.sock ] && [ ! -e /var/run/secrets/kubernetes.io ] && [ ! -e /run/secrets/kubernetes.io ]
RUN mkdir -p /github/workspace /var/run && echo mine > /github/workspace/file && uname -m > /machine
COPY --chown=1:1 kept /kept
`, "kept": "kept"})
	token := contextDir(t, map[string]string{"token": "very-secret-token"})
	image := registry + "/inplace/ci:1"
	r := inContainer(t, []string{
		"-v", "/var/run/docker.sock:/var/run/docker.sock", "-v", work + ":/github/workspace", "-w", "/github/workspace",
		"-v", token + ":/var/run/secrets/kubernetes.io/serviceaccount:ro",
	}, "--context=dir:///github/workspace", "--destination="+image, "--platform="+list)
	assert.Equal(t, r.code, 0, r.stderr)
	for _, m := range rawIndex(t, image).Manifests {
		all := everything(t, descriptor(t, registry+"/inplace/ci@"+m.Digest))
		assert.Check(t, !strings.Contains(all, "very-secret-token"))
		assert.Check(t, is.Contains(all, "mine"))
	}
	left, err := os.ReadDir(work)
	assert.NilError(t, err)
	assert.Check(t, is.Len(left, 2), "the workspace has changed: %v", left)
}

// What a step does to "/" stays in its tree.
func TestInPlace_steps(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	service(t, "KMA_TEST_DOCKER")
	for _, tc := range []struct {
		name, steps string
		code        int
		want        string
	}{
		{"exit_code", "RUN exit 42", 42, "exit code: 42"},
		{"deletes_the_system", "RUN rm -rf /bin /usr /home /root /var /tmp\nCOPY Dockerfile /left\n", 0, ""},
		{"deletes_the_builder", "RUN rm -rf /kaniko", 1, "start the next build in a fresh container"},
		{"daemon", "RUN (sleep 4714 &) ; echo started\nRUN ! ps | grep -v grep | grep 4714", 0, ""},
		{"no_shell", "FROM scratch\nRUN true", 127, "no such file"},
		{"network_none", "RUN --network=none true", 6, "network"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\n" + tc.steps + "\n"})
			r := inContainer(t, []string{"-v", dir + ":/workspace"}, "--context=/workspace", "--no-push")
			assert.Check(t, is.Equal(r.code, tc.code), r.stderr)
			assert.Check(t, is.Contains(r.stderr, tc.want))
		})
	}
}

// A machine that is nobody's to throw away is refused and left alone.
func TestInPlace_refuses_a_machine(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /x\n"})
	before, err := os.ReadDir("/")
	assert.NilError(t, err)
	r := run(t, "build", "--isolation", "inplace", "--context", dir, "--no-push")
	assert.Check(t, is.Equal(r.code, 6), r.stderr)
	assert.Check(t, is.Contains(r.stderr, "--force"))
	after, err := os.ReadDir("/")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(len(before), len(after)))
	_, err = os.Stat(filepath.Join("/kaniko", "state"))
	assert.Check(t, errors.Is(err, os.ErrNotExist))
}

func TestInPlace_not_root(t *testing.T) {
	t.Parallel()
	needRoot(t)
	service(t, "KMA_TEST_DOCKER")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	r := inContainer(t, []string{"-v", dir + ":/workspace", "-u", "1000"}, "--context=/workspace", "--no-push")
	assert.Check(t, is.Equal(r.code, 6), r.stderr)
	assert.Check(t, is.Contains(r.stderr, "root"))
}
