package e2e

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// actProgram runs workflows of GitHub here. It is built from its module, once a
// machine.
func actProgram(t *testing.T) string {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), "../binaries.sh", "act")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	assert.NilError(t, err, stderr.String())
	return filepath.Join(strings.TrimSpace(string(out)), "act")
}

// publishedActions is a directory like the commit that a release tags: the
// actions run an image that is there.
func publishedActions(t *testing.T) string {
	t.Helper()
	image, err := toolImage()
	assert.NilError(t, err)
	dir := t.TempDir()
	for _, name := range []string{"action.yml", "matrix/action.yml", "merge/action.yml"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		assert.NilError(t, err)
		assert.NilError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
	tool(t, root+"/.github/pin.sh", image, dir)
	return dir
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// act runs a workflow in a repository of the given files.
func act(t *testing.T, workflow string, files map[string]string, args ...string) (string, error) {
	t.Helper()
	program, actions := actProgram(t), publishedActions(t)
	job := service(t, "KMA_TEST_BASES") + "/busybox:1"
	tool(t, service(t, "KMA_TEST_DOCKER"), "pull", "-q", job)
	files[".github/workflows/image.yml"] = workflow
	repo, home := contextDir(t, files), t.TempDir()
	assert.NilError(t, os.MkdirAll(filepath.Join(home, ".config", "act"), 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(home, ".config", "act", "actrc"), nil, 0o644))
	tool(t, "git", "init", "-q", "-b", "main", repo)
	tool(t, "git", "-C", repo, "add", ".")
	tool(t, "git", "-C", repo, "-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "-qm", "x")
	cmd := exec.CommandContext(t.Context(), program, append([]string{
		"push", "--pull=false", "--container-daemon-socket", "-", "--action-offline-mode",
		"-P", "ubuntu-24.04=" + job, "-P", "ubuntu-24.04-arm=" + job,
		"--local-repository", "org/kaniko-multiarch@v1=" + actions,
		"--artifact-server-path", t.TempDir(), "--artifact-server-addr", "127.0.0.1", "--artifact-server-port", strconv.Itoa(freePort(t)),
	}, args...)...)
	cmd.Dir = repo
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+filepath.Join(home, ".config"), "XDG_CACHE_HOME="+filepath.Join(home, ".cache"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// The README's workflow, as printed but for the registry: three jobs, each step
// a container of its own, records through the store of artifacts.
func TestGitHub_readme_runs(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	service(t, "KMA_TEST_DOCKER")
	platforms(t)
	workflow := strings.ReplaceAll(readmeWorkflow(t), "ghcr.io/acme", registry+"/readme")
	out, err := act(t, workflow, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nRUN uname -m > /machine\n"})
	assert.NilError(t, err, out)
	image := registry + "/readme/app:1.0"
	var found []string
	index := rawIndex(t, image)
	for _, m := range index.Manifests {
		found = append(found, m.Platform.Architecture)
	}
	assert.Check(t, is.DeepEqual(found, []string{"amd64", "arm64"}))
	raw := tool(t, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+image)
	var annotated struct{ Annotations map[string]string }
	assert.NilError(t, json.Unmarshal([]byte(raw), &annotated))
	assert.Check(t, annotated.Annotations["org.opencontainers.image.revision"] != "", raw)
}

// The reusable workflow, called as its head shows, for two platforms of which
// one has another Dockerfile argument; what comes out goes into the next job.
func TestGitHub_reusable_workflow_runs(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	service(t, "KMA_TEST_DOCKER")
	platforms(t)
	reusable, err := os.ReadFile(root + "/.github/workflows/multiarch.yml")
	assert.NilError(t, err)
	// act fetches what is used, whether its condition holds or not.
	qemu := contextDir(t, map[string]string{"action.yml": "name: none\nruns: {using: composite, steps: []}\n"})
	_, version, ok := strings.Cut(string(reusable), "docker/setup-qemu-action@")
	assert.Assert(t, ok)
	version, _, _ = strings.Cut(version, " ")
	image := registry + "/reusable/app"
	workflow := `
on: {push: {branches: [main]}}
jobs:
  image:
    uses: ./.github/workflows/multiarch.yml
    with: {tags: "` + image + `:1,` + image + `:2", platforms: "linux/amd64,linux/arm64", build-args: "GREETING=a,b", annotations: "index:greeting=a, b"}
    secrets:
      secrets: "TOKEN=very-secret-token"
  after:
    needs: image
    runs-on: ubuntu-24.04
    steps:
      - shell: sh
        run: echo "it is ${{ needs.image.outputs.image }} as ${{ needs.image.outputs.tags }}"
`
	out, err := act(t, workflow, map[string]string{
		".github/workflows/multiarch.yml": string(reusable),
		"Dockerfile":                      "FROM " + bases + "/busybox:1\nARG GREETING\nRUN --mount=type=secret,id=TOKEN [ \"$(cat /run/secrets/TOKEN)\" = very-secret-token ] && [ \"$GREETING\" = a,b ]\n",
	}, "--local-repository", "docker/setup-qemu-action@"+version+"="+qemu, "-W", ".github/workflows/image.yml")
	assert.NilError(t, err, out)
	index := rawIndex(t, image+":2")
	assert.Check(t, is.Len(index.Manifests, 2))
	assert.Check(t, is.Contains(out, "it is "+image+"@sha256:"))
	assert.Check(t, is.Contains(tool(t, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+image+":1"), `"greeting":"a, b"`))
	assert.Check(t, !strings.Contains(out, "very-secret-token"), out)
}

// Two versions of one image in one run: no record and no tag of one gets to the
// other.
func TestGitHub_two_versions(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	service(t, "KMA_TEST_DOCKER")
	platforms(t)
	image := registry + "/versions/app"
	before, after, ok := strings.Cut(readmeWorkflow(t), "        with: {tags:")
	assert.Assert(t, ok)
	_, after, _ = strings.Cut(after, "\n")
	workflow := before + `        with:
          platforms: linux/amd64,linux/arm64
          distribute: never
          builds: |
            - {tags: "` + image + `:3.11", build-args: [VERSION=3.11]}
            - {tags: "` + image + `:3.12", build-args: [VERSION=3.12]}
` + after
	out, err := act(t, workflow, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nARG VERSION\nLABEL version=$VERSION\n"})
	assert.NilError(t, err, out)
	for _, version := range []string{"3.11", "3.12"} {
		index := rawIndex(t, image+":"+version)
		assert.Check(t, is.Len(index.Manifests, 2))
		for _, m := range index.Manifests {
			config := tool(t, "skopeo", "inspect", "--config", "--tls-verify=false", "docker://"+image+"@"+m.Digest)
			assert.Check(t, is.Contains(config, "LABEL version="+version))
		}
	}
}
