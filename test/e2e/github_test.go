package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/test/gitserver"
)

// githubStep is a container action's step, started as the runner starts it: a
// default container, the workspace and the runner's directories mounted, and
// all that it says in variables.
type githubStep struct {
	workspace, home, files string
	run                    string
	env                    map[string]string
}

func newGitHubStep(t *testing.T, files map[string]string) *githubStep {
	t.Helper()
	s := &githubStep{workspace: contextDir(t, files), home: t.TempDir(), files: t.TempDir(), run: rand.Text(), env: map[string]string{}}
	return s
}

// start runs `action COMMAND` and returns the outputs by their names in lower case.
func (s *githubStep) start(t *testing.T, command string, inputs map[string]string) (result, map[string]string) {
	t.Helper()
	docker := service(t, "KMA_TEST_DOCKER")
	image, err := toolImage()
	assert.NilError(t, err)
	output := filepath.Join(s.files, "set_output_"+rand.Text())
	summary := filepath.Join(s.files, "step_summary_"+rand.Text())
	for _, name := range []string{output, summary} {
		assert.NilError(t, os.WriteFile(name, nil, 0o644))
	}
	env := map[string]string{
		"HOME": "/github/home", "GITHUB_ACTIONS": "true", "CI": "true", "RUNNER_OS": "Linux",
		"GITHUB_WORKSPACE": "/github/workspace", "GITHUB_OUTPUT": "/github/file_commands/" + filepath.Base(output),
		"GITHUB_STEP_SUMMARY": "/github/file_commands/" + filepath.Base(summary),
		"GITHUB_RUN_ID":       s.run, "GITHUB_RUN_ATTEMPT": "1", "GITHUB_SHA": strings.Repeat("a", 40),
		"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "acme/app",
	}
	for name, value := range s.env {
		env[name] = value
	}
	for name, value := range inputs {
		env["INPUT_"+strings.ToUpper(strings.ReplaceAll(name, " ", "_"))] = value
	}
	args := []string{
		"run", "--rm", "--network=host", "--workdir", "/github/workspace", "--entrypoint", "/kaniko/kaniko-multiarch",
		"-v", "/var/run/docker.sock:/var/run/docker.sock", "-v", s.home + ":/github/home",
		"-v", s.files + ":/github/file_commands", "-v", s.workspace + ":/github/workspace",
	}
	cmd := exec.CommandContext(t.Context(), docker)
	cmd.Env = os.Environ()
	for name, value := range env {
		// By name, as the runner does: values have newlines.
		args = append(args, "-e", name)
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	// The client has its own home.
	cmd.Args = append(cmd.Args, slices.Concat(args, []string{image, "action", command})...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	data, err := os.ReadFile(output)
	assert.NilError(t, err)
	text, err := os.ReadFile(summary)
	assert.NilError(t, err)
	outputs := fileCommands(t, string(data))
	outputs["(summary)"] = string(text)
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}, outputs
}

// fileCommands reads NAME<<DELIMITER as the runner does.
func fileCommands(t *testing.T, text string) map[string]string {
	t.Helper()
	out := map[string]string{}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i := 0; i < len(lines) && text != ""; i++ {
		name, delimiter, ok := strings.Cut(lines[i], "<<")
		assert.Assert(t, ok, lines[i])
		var value []string
		for i++; ; i++ {
			assert.Assert(t, i < len(lines), "the delimiter of %s is missing", name)
			if lines[i] == delimiter {
				break
			}
			value = append(value, lines[i])
		}
		out[strings.ToLower(name)] = strings.Join(value, "\n")
	}
	return out
}

// A step's output cannot be a command of the runner, hyphens of inputs count,
// and what comes out can go into the next job.
func TestGitHub_action(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases, list := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES"), platforms(t)
	s := newGitHubStep(t, map[string]string{"app/Containerfile": "FROM " + bases + `/busybox:1
ARG GREETING
RUN --mount=type=secret,id=TOKEN echo "::set-output name=x::y"; echo "::add-mask::b"; echo "##[add-mask]b"; cat /run/secrets/TOKEN; echo "::error::no" >&2; echo "$GREETING" > /greeting
RUN printf 'no newline'
COPY app /app
`})
	image := registry + "/github/action"
	r, plan := s.start(t, "matrix", map[string]string{"platforms": list, "tags": image + ":1,\n" + image + ":2", "file": "app/Containerfile"})
	assert.Equal(t, r.code, 0, r.stderr)
	var matrix, merges struct{ Include []json.RawMessage }
	assert.NilError(t, json.Unmarshal([]byte(plan["matrix"]), &matrix), plan["matrix"])
	assert.NilError(t, json.Unmarshal([]byte(plan["merges"]), &merges))
	assert.Equal(t, len(matrix.Include), 2)
	assert.Equal(t, len(merges.Include), 1)
	labels := "one=100% of it\n\"two=a\n::set-output name=evil::1\n_GitHubActionsFileCommandDelimeter_\nb\"\n"
	for _, row := range matrix.Include {
		r, outputs := s.start(t, "build", map[string]string{
			"row": string(row), "push": "true", "digests-to": "digests", "labels": labels, "build-args": "GREETING=a,b=c",
			"secrets": "TOKEN=very-secret-token\n", "github-token": "ghs_of_the_job", "no-cache": "false", "provenance": "false",
		})
		assert.Equal(t, r.code, 0, r.stderr)
		assert.Check(t, is.Equal(outputs["image"], image+"@"+outputs["digest"]))
		assert.Check(t, is.Contains(outputs["metadata"], outputs["digest"]))
		assert.Check(t, is.Contains(outputs["(summary)"], outputs["digest"]))
		checkFence(t, r.stderr, []string{"::add-mask::very-secret-token", "::add-mask::ghs_of_the_job"})
		assert.Check(t, is.Equal(strings.Count(r.stderr, "very-secret-token"), strings.Count(r.stderr, "::add-mask::very-secret-token")))
	}
	r, merged := s.start(t, "merge", map[string]string{"row": string(merges.Include[0]), "digests-from": "digests"})
	assert.Equal(t, r.code, 0, r.stderr)
	assert.Check(t, is.Equal(merged["published"], "true"))
	assert.Check(t, is.Equal(merged["tags"], image+":1\n"+image+":2"))
	assert.Check(t, is.Contains(merged["(summary)"], merged["digest"]))
	for _, m := range rawIndex(t, image+":2").Manifests {
		config := tool(t, "skopeo", "inspect", "--config", "--tls-verify=false", "docker://"+image+"@"+m.Digest)
		var labels struct {
			Config struct{ Labels map[string]string }
		}
		assert.NilError(t, json.Unmarshal([]byte(config), &labels))
		assert.Check(t, is.Equal(labels.Config.Labels["one"], "100% of it"))
		assert.Check(t, is.Equal(labels.Config.Labels["two"], "a\n::set-output name=evil::1\n_GitHubActionsFileCommandDelimeter_\nb"))
	}
}

// checkFence reads a log as the runner does, and checks which commands it would
// carry out.
func checkFence(t *testing.T, log string, want []string) {
	t.Helper()
	stopped := ""
	var commands []string
	for line := range strings.Lines(log) {
		line = strings.TrimSpace(line)
		switch token, stop := strings.CutPrefix(line, "::stop-commands::"); {
		case stopped != "":
			if line == "::"+stopped+"::" {
				stopped = ""
			}
		case stop:
			stopped = token
		case strings.HasPrefix(line, "::group::#"), line == "::endgroup::":
		case strings.HasPrefix(line, "::") || strings.Contains(line, "##["):
			commands = append(commands, line)
		}
	}
	slices.Sort(commands)
	slices.Sort(want)
	assert.Check(t, is.DeepEqual(slices.Compact(commands), want))
	assert.Check(t, is.Equal(stopped, ""), "commands stay stopped")
}

// docker/login-action in a directory of the workspace, which a container action
// does see: the login is used, and in no image.
func TestGitHub_login_in_the_workspace(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	s := newGitHubStep(t, map[string]string{
		"Dockerfile":          "FROM " + bases + "/busybox:1\nCOPY . /all\n",
		".docker/config.json": `{"auths":{"registry.example":{"auth":"dXNlcjp2ZXJ5LXNlY3JldA=="}}}`,
	})
	s.env["DOCKER_CONFIG"] = "/github/workspace/.docker"
	r, outputs := s.start(t, "build", map[string]string{"tags": registry + "/github/login:1", "push": "true"})
	assert.Equal(t, r.code, 0, r.stderr)
	all := everything(t, descriptor(t, outputs["image"]))
	assert.Check(t, is.Contains(all, "COPY"))
	assert.Check(t, !strings.Contains(all, "dXNlcjp2ZXJ5LXNlY3JldA"))
}

// Without actions/checkout the commit of the run is the context, as in
// build-push-action; the job's token fetches it.
func TestGitHub_without_checkout(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry := service(t, "KMA_TEST_REGISTRY")
	repositories, _ := gitserver.Repositories(t)
	work := filepath.Join(repositories, "checkout", "main")
	commit := func(dockerfile string) string {
		assert.NilError(t, os.WriteFile(filepath.Join(work, "Dockerfile"), []byte(dockerfile), 0o644))
		gitserver.Run(t, work, "add", ".")
		gitserver.Run(t, work, "commit", "-qm", "app")
		return strings.TrimSpace(gitserver.Run(t, work, "rev-parse", "HEAD"))
	}
	sha := commit("FROM scratch\nLABEL is=wanted\nCOPY . /\n")
	commit("FROM scratch\nLABEL is=later\n")
	gitserver.Run(t, repositories, "clone", "-q", "--bare", "checkout/main", "app.git")
	s := newGitHubStep(t, nil)
	s.env["GITHUB_SERVER_URL"], s.env["GITHUB_REPOSITORY"], s.env["GITHUB_SHA"] = gitserver.Serve(t, repositories, "letmein"), "app", sha
	r, outputs := s.start(t, "build", map[string]string{"tags": registry + "/github/git:1", "push": "true", "github-token": "letmein", "context": ""})
	assert.Equal(t, r.code, 0, r.stderr)
	all := everything(t, descriptor(t, outputs["image"]))
	assert.Check(t, is.Contains(all, "wanted"))
	assert.Check(t, !strings.Contains(all, "letmein"))
	checkFence(t, r.stderr, []string{"::add-mask::letmein"})
}

// Records in the registry need no store and no shared directory; they belong to
// one run and one key.
func TestGitHub_handover_in_the_registry(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases, list := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES"), platforms(t)
	image := registry + "/github/handover"
	var s *githubStep
	for _, platform := range strings.Split(list, ",") {
		before := s
		s = newGitHubStep(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nRUN true\n"})
		if before != nil {
			s.run = before.run
		}
		r, _ := s.start(t, "build", map[string]string{"image": image, "platforms": platform, "key": "app-000000", "push": "true", "handover": "registry"})
		assert.Equal(t, r.code, 0, r.stderr)
	}
	merge := map[string]string{"tags": image + ":1", "platforms": list, "key": "app-000000", "handover": "registry"}
	r, outputs := s.start(t, "merge", merge)
	assert.Equal(t, r.code, 0, r.stderr)
	assert.Check(t, is.Equal(outputs["platforms"], list))
	assert.Check(t, is.Len(rawIndex(t, image+":1").Manifests, 2))

	merge["platforms"] = list + ",linux/s390x"
	r, _ = s.start(t, "merge", merge)
	assert.Check(t, is.Equal(r.code, 7), r.stderr)
	assert.Check(t, is.Contains(r.stderr, "linux/s390x"))
	merge["platforms"], s.run = list, "another"
	r, _ = s.start(t, "merge", merge)
	assert.Check(t, is.Equal(r.code, 7), r.stderr)
	s.run = ""
	merge["platforms"] = ""
	r, _ = s.start(t, "merge", merge)
	assert.Check(t, is.Equal(r.code, 2), r.stderr)
}

// A pull request of a fork has no credentials and pushes nothing: it builds, its
// records say so, and merge verifies and moves nothing.
func TestGitHub_fork(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	s := newGitHubStep(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nRUN true\n"})
	image := registry + "/github/fork"
	auth := "- registry: ghcr.io\n  username: ''\n  password: ''\n"
	r, outputs := s.start(t, "build", map[string]string{"image": image, "digests-to": "digests", "push": "false", "registry-auth": auth, "secrets": "", "github-token": ""})
	assert.Equal(t, r.code, 0, r.stderr)
	assert.Check(t, is.Equal(outputs["image"], ""))
	r, outputs = s.start(t, "merge", map[string]string{"tags": image + ":1", "digests-from": "digests", "registry-auth": auth})
	assert.Equal(t, r.code, 0, r.stderr)
	assert.Check(t, is.Equal(outputs["published"], "false"))
	assert.Check(t, is.Contains(r.stderr+r.stdout, "warning"))
	r, _ = s.start(t, "merge", map[string]string{"tags": image + ":1", "digests-from": "digests", "push": "true"})
	assert.Equal(t, r.code, 7, r.stderr)
}

func TestGitHub_bad_input(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	for _, tc := range []struct {
		name, command, dockerfile string
		inputs                    map[string]string
		code                      int
		want                      string
	}{
		{"command", "upload", "", nil, 2, "build, matrix, merge, doctor"},
		{"boolean", "build", "", map[string]string{"no-cache": "yes"}, 2, "use true or false"},
		{"gha_cache", "build", "", map[string]string{"cache-from": "type=gha"}, 2, "type=registry,ref="},
		{"provenance", "build", "", map[string]string{"provenance": "mode=max"}, 2, "actions/attest-build-provenance"},
		{"row", "build", "", map[string]string{"row": "{"}, 2, "toJSON(matrix)"},
		{"both_spellings", "build", "", map[string]string{"tags": "a:1", "destination": "a:2"}, 2, "::error::--destination: INPUT_DESTINATION and INPUT_TAGS are both set"},
		{"auth", "build", "", map[string]string{"registry-auth": "- registry: x\n  password: very-secret\n"}, 2, "no username"},
		{"handover", "build", "", map[string]string{"handover": "pigeon"}, 2, "--handover must be one of"},
		{"no_artifacts", "merge", "", map[string]string{"handover": "artifact", "tags": "a:1"}, 6, "handover: files"},
		{"dockerfile", "build", "FROM scratch\nRUN --no-such-flag true\n", nil, 3, "::error file=Dockerfile,line=2"},
		{"step", "build", "FROM " + bases + "/busybox:1\nRUN exit 9\n", nil, 1, "::error file=Dockerfile,line=2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newGitHubStep(t, map[string]string{"Dockerfile": tc.dockerfile})
			r, _ := s.start(t, tc.command, tc.inputs)
			all := r.stdout + r.stderr
			assert.Check(t, is.Equal(r.code, tc.code), all)
			assert.Check(t, is.Contains(all, tc.want))
			assert.Check(t, is.Equal(strings.Count(all, "very-secret"), strings.Count(all, "::add-mask::very-secret")), all)
			assert.Check(t, !strings.Contains(all, "panic"), fmt.Sprint(all))
		})
	}
}
