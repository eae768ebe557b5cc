package e2e

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/test/gitserver"
)

// gitlabCI runs the pipeline in dir as GitLab would, each job in a checkout of
// its own by a shell that has the program.
func gitlabCI(t *testing.T, dir string, flags []string, variables ...string) (string, error) {
	t.Helper()
	out, err := gitlabCommand(t, dir, flags, variables...).CombinedOutput()
	return string(out), err
}

func gitlabCommand(t *testing.T, dir string, flags []string, variables ...string) *exec.Cmd {
	t.Helper()
	found := exec.CommandContext(t.Context(), "../gitlab/program.sh")
	found.Stderr = os.Stderr
	program, err := found.Output()
	if err != nil {
		t.Skipf("gitlab-ci-local is not here: %v", err)
	}
	gitserver.Run(t, dir, "init", "-q", "-b", "main")
	gitserver.Run(t, dir, "remote", "add", "origin", "git@gitlab.example:acme/app.git")
	gitserver.Run(t, dir, "add", ".")
	gitserver.Run(t, dir, "commit", "-qm", "one")
	args := append([]string{"--home", t.TempDir(), "--force-shell-executor", "--shell-isolation", "--color=false", "--timestamps=false"}, flags...)
	for _, v := range append(variables, "KANIKO_MULTIARCH_STATE_DIR="+sharedState, "GITLAB_CI=true") {
		args = append(args, "--variable", v)
	}
	cmd := exec.CommandContext(t.Context(), strings.TrimSpace(string(program)), args...)
	cmd.Env = []string{"PATH=" + filepath.Dir(binary) + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	cmd.Dir = dir
	return cmd
}

// yamlBlock is the example in a document that has text.
func yamlBlock(t *testing.T, document, language, text string) string {
	t.Helper()
	data, err := os.ReadFile(document)
	assert.NilError(t, err)
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```").FindAllStringSubmatch(string(data), -1) {
		if strings.Contains(m[1], text) {
			return m[1]
		}
	}
	t.Fatalf("%s: no %s block with %q", document, language, text)
	return ""
}

// templates serves the tree's GitLab files, and makes a pipeline that includes
// published ones include these.
func templates(t *testing.T, pipeline string) string {
	t.Helper()
	server := httptest.NewServer(http.FileServer(http.Dir("../..")))
	t.Cleanup(server.Close)
	published := regexp.MustCompile(`https://[^\s]*/(gitlab/[a-z-]+\.yml)`)
	assert.Assert(t, published.MatchString(pipeline), pipeline)
	return published.ReplaceAllString(pipeline, server.URL+"/$1")
}

const archDockerfile = "/busybox:1\nRUN uname -m > /arch\nCOPY Dockerfile /\n"

// The pipeline of the documents, as printed: with include, a job a platform,
// merge, and a job that gets the digest.
func TestGitLab_include(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	platforms(t)
	pipeline := yamlBlock(t, "../../docs/gitlab.md", "yaml", "include:")
	assert.Check(t, strings.Count(pipeline[:strings.Index(pipeline, "\n\n")], "\n") < 8, "more than 8 lines:\n%s", pipeline)
	dir := contextDir(t, map[string]string{".gitlab-ci.yml": templates(t, pipeline), "Dockerfile": "FROM " + bases + archDockerfile})
	image := registry + "/gitlab/app"
	out, err := gitlabCI(t, dir, nil, "CI_REGISTRY="+registry, "CI_REGISTRY_IMAGE="+image)
	assert.NilError(t, err, out)

	got := rawIndex(t, image+":main")
	assert.Assert(t, is.Len(got.Manifests, 2))
	assert.Check(t, is.Equal(got.Manifests[1].Platform.Architecture, "arm64"))
	assert.Check(t, is.Contains(out, ":kma_1"), "no collapsible sections")
	assert.Check(t, got.Annotations["org.opencontainers.image.revision"] != "")
	assert.Check(t, is.Contains(out, "deploying "+image+"@"+descriptor(t, image+":main").Digest.String()))
	tags := tool(t, "skopeo", "list-tags", "--tls-verify=false", "docker://"+image)
	assert.Check(t, is.Equal(strings.Count(tags, "main"), 1))
	assert.Check(t, !strings.Contains(tags, "arm64"), "a platform got a tag: %s", tags)
}

// The jobs of the template in the image that they name, as a runner starts them:
// a shell in a default container, the project in /builds.
func TestGitLab_in_containers(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	docker := service(t, "KMA_TEST_DOCKER")
	platforms(t)
	withShell, err := debugImage()
	assert.NilError(t, err)
	image := registry + "/gitlab/containers"
	pipeline := "include:\n  - remote: https://example.com/gitlab/multiarch.yml\n    inputs: {tags: \"" + image + ":1\"}\n"
	dir := contextDir(t, map[string]string{".gitlab-ci.yml": templates(t, pipeline), "Dockerfile": "FROM " + bases + archDockerfile})
	preview, err := gitlabCommand(t, dir, []string{"--preview"}).Output()
	assert.NilError(t, err)
	type job struct {
		Image     struct{ Entrypoint []string }
		Variables map[string]string
		Script    []string
	}
	_, text, found := strings.Cut(string(preview), "---\n")
	assert.Assert(t, found, "%s", preview)
	var jobs map[string]yaml.Node
	assert.NilError(t, yaml.Unmarshal([]byte(text), &jobs))
	start := func(name, platform string) string {
		var j job
		node := jobs[name]
		assert.NilError(t, node.Decode(&j))
		assert.Check(t, is.DeepEqual(j.Image.Entrypoint, []string{""}), name)
		args := []string{"run", "--rm", "--network=host", "--entrypoint=", "-v", dir + ":/builds/acme/app", "-w", "/builds/acme/app",
			"-e", "CI=true", "-e", "GITLAB_CI=true", "-e", "CI_PIPELINE_ID=7", "-e", "CI_COMMIT_SHA=" + strings.Repeat("a", 40), "-e", "PLATFORM=" + platform}
		for k, v := range j.Variables {
			args = append(args, "-e", k+"="+v)
		}
		r := finished(t, exec.CommandContext(t.Context(), docker, append(args, withShell, "sh", "-euc", strings.Join(j.Script, "\n"))...))
		assert.Equal(t, r.code, 0, r.stderr)
		return r.stderr
	}
	log := start("build-image", "linux/amd64")
	assert.Check(t, mark(log) > 0 && mark(log)%2 == 0, log)
	start("build-image-arm64", "linux/arm64")
	start("merge-image", "")
	got := rawIndex(t, image+":1")
	assert.Check(t, is.Len(got.Manifests, 2))
	assert.Check(t, is.Equal(got.Annotations["org.opencontainers.image.revision"], strings.Repeat("a", 40)))
	env, err := os.ReadFile(filepath.Join(dir, "merge.env"))
	assert.NilError(t, err)
	assert.Check(t, is.Contains(string(env), "IMAGE_REF="+image+"@"+descriptor(t, image+":1").Digest.String()))
}

// mark counts the marks of GitLab's sections.
func mark(log string) int { return strings.Count(log, "\x1b[0Ksection_") }

// What the inputs say reaches the program; without push nothing is published.
func TestGitLab_inputs(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	pipeline := `include:
  - remote: https://example.com/gitlab/multiarch.yml
    inputs:
      name: one
      tags: $CI_REGISTRY_IMAGE:1,$CI_REGISTRY_IMAGE:2
      platforms: [x86_64]
      context: app
      file: app/Other
      target: wanted
      build-args: |
        A=1, 2
        B=%
      labels: a=b
      annotations: |
        org.opencontainers.image.title=one, two
      secrets: id=token,env=TOKEN
      cache: false
  - remote: https://example.com/gitlab/multiarch.yml
    inputs:
      name: two
      tags: $CI_REGISTRY_IMAGE/two:1
      platforms: [linux/amd64]
      context: app
      file: app/Other
      push: false
`
	dir := contextDir(t, map[string]string{
		".gitlab-ci.yml": templates(t, pipeline),
		"app/Other": "FROM " + bases + "/busybox:1 AS wanted\nARG A B\nRUN --mount=type=secret,id=token test \"$A$B$(cat /run/secrets/token)\" = '1, 2%hidden'\n" +
			"FROM " + bases + "/busybox:1\n",
	})
	image := registry + "/gitlab/inputs"
	out, err := gitlabCI(t, dir, nil, "CI_REGISTRY="+registry, "CI_REGISTRY_IMAGE="+image, "TOKEN=hidden")
	assert.NilError(t, err, out)
	got := rawIndex(t, image+":1")
	assert.Check(t, is.DeepEqual(got, rawIndex(t, image+":2")))
	assert.Check(t, is.Equal(got.Annotations["org.opencontainers.image.title"], "one, two"))
	config := tool(t, "skopeo", "inspect", "--config", "--tls-verify=false", "docker://"+image+":1")
	assert.Check(t, is.Contains(config, `"a": "b"`))
	assert.Check(t, exec.Command("skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+image+"/two:1").Run() != nil, "push: false published")
}

// The examples that need a cloud are pipelines, at least.
func TestGitLab_examples(t *testing.T) {
	t.Parallel()
	pipeline := yamlBlock(t, "../../docs/gitlab.md", "yaml", "id_tokens:")
	dir := contextDir(t, map[string]string{".gitlab-ci.yml": templates(t, pipeline)})
	out, err := gitlabCI(t, dir, []string{"--preview"})
	assert.NilError(t, err, out)
	assert.Check(t, is.Equal(strings.Count(out, "AWS_TOKEN:"), 3), out)
	assert.Check(t, is.Equal(strings.Count(out, "KANIKO_MULTIARCH_TAGS: 123456789012.dkr"), 3), out)
}

// A child pipeline builds the images of a monorepo.
func TestGitLab_child_pipeline(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	platforms(t)
	pipeline := yamlBlock(t, "../../docs/gitlab.md", "yaml", "multiarch-child.yml")
	dir := contextDir(t, map[string]string{
		".gitlab-ci.yml": templates(t, pipeline), "api/Dockerfile": "FROM " + bases + archDockerfile, "web/Dockerfile": "FROM " + bases + archDockerfile,
	})
	image := registry + "/gitlab/child"
	out, err := gitlabCI(t, dir, nil, "CI_REGISTRY="+registry, "CI_REGISTRY_IMAGE="+image)
	assert.NilError(t, err, out)
	assert.Check(t, is.Len(rawIndex(t, image+"/api:main").Manifests, 2), out)
	assert.Check(t, is.Len(rawIndex(t, image+"/web:main").Manifests, 1), out)
}

// The component has the inputs of what it includes, and passes all of them on.
func TestGitLab_component(t *testing.T) {
	t.Parallel()
	type template struct {
		Spec    struct{ Inputs map[string]any }
		Include []struct {
			Local  string
			Inputs map[string]string
		}
	}
	read := func(name string) (out [2]template) {
		data, err := os.ReadFile("../../" + name)
		assert.NilError(t, err)
		dec := yaml.NewDecoder(strings.NewReader(string(data)))
		assert.NilError(t, dec.Decode(&out[0]))
		assert.NilError(t, dec.Decode(&out[1]))
		return out
	}
	for _, name := range []string{"multiarch.yml", "multiarch-child.yml"} {
		component, included := read("templates/"+name), read("gitlab/"+name)
		assert.Check(t, is.DeepEqual(component[0].Spec, included[0].Spec))
		assert.Assert(t, is.Len(component[1].Include, 1))
		assert.Check(t, is.Equal(component[1].Include[0].Local, "/gitlab/"+name))
		want := map[string]string{}
		for input := range included[0].Spec.Inputs {
			want[input] = "$[[ inputs." + input + " ]]"
		}
		assert.Check(t, is.DeepEqual(component[1].Include[0].Inputs, want))
	}
	dir := t.TempDir()
	for _, part := range []string{"gitlab", "templates"} {
		assert.NilError(t, os.CopyFS(filepath.Join(dir, part), os.DirFS("../../"+part)))
	}
	pipeline := "include:\n  - {local: templates/multiarch.yml, inputs: {platforms: [linux/s390x]}}\n  - {local: templates/multiarch-child.yml}\n"
	assert.NilError(t, os.WriteFile(filepath.Join(dir, ".gitlab-ci.yml"), []byte(pipeline), 0o644))
	out, err := gitlabCI(t, dir, []string{"--list-csv-all"})
	assert.NilError(t, err, out)
	for _, job := range []string{"build-image: [linux/s390x];", "merge-image;", "matrix-images;", "build-images;"} {
		assert.Check(t, is.Contains(out, job))
	}
}
