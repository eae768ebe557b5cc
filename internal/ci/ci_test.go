package ci

import (
	"os/exec"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// repository is a new one with one commit.
func repository(t *testing.T) (dir, revision string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	dir = t.TempDir()
	git := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = dir
		cmd.Env = append(cmd.Environ(),
			"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_AUTHOR_DATE=2020-01-02T03:04:05+02:00",
			"GIT_COMMITTER_NAME=c", "GIT_COMMITTER_EMAIL=c@example.com", "GIT_COMMITTER_DATE=2021-02-03T04:05:06+02:00",
		)
		out, err := cmd.CombinedOutput()
		assert.NilError(t, err, string(out))
		return string(out)
	}
	git("init", "-q")
	git("commit", "-q", "--allow-empty", "-m", "one")
	return dir, git("rev-parse", "HEAD")[:40]
}

func TestDetect_run(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		env  map[string]string
		want Run
	}{
		{"plain_machine", nil, Run{Attempt: 1}},
		{"github", map[string]string{"GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": "3", "GITHUB_SHA": "abc"}, Run{ID: "7", Attempt: 3, Revision: "abc"}},
		{"gitlab", map[string]string{"CI_PIPELINE_ID": "8", "CI_COMMIT_SHA": "def", "CI_COMMIT_TIMESTAMP": "2022-01-31T16:47:55Z"}, Run{ID: "8", Attempt: 1, Revision: "def", Committed: time.Date(2022, 1, 31, 16, 47, 55, 0, time.UTC)}},
		{"gitlab_child", map[string]string{"PARENT_PIPELINE_ID": "8", "CI_PIPELINE_ID": "9"}, Run{ID: "8", Attempt: 1}},
		{"jenkins", map[string]string{"BUILD_TAG": "jenkins-app-4", "GIT_COMMIT": "fed"}, Run{ID: "jenkins-app-4", Attempt: 1, Revision: "fed"}},
		{"github_tag", map[string]string{"GITHUB_RUN_ID": "7", "GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": "v1", "GITHUB_SERVER_URL": "https://ghes.example/", "GITHUB_REPOSITORY": "Acme/app"}, Run{ID: "7", Attempt: 1, Version: "v1", Source: "https://ghes.example/Acme/app", URL: "https://ghes.example/Acme/app"}},
		{"github_branch", map[string]string{"GITHUB_RUN_ID": "7", "GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "main"}, Run{ID: "7", Attempt: 1}},
		{"gitlab_tag", map[string]string{"CI_PIPELINE_ID": "8", "CI_COMMIT_TAG": "v1", "CI_PROJECT_URL": "https://gitlab.example/a/b"}, Run{ID: "8", Attempt: 1, Version: "v1", Source: "https://gitlab.example/a/b", URL: "https://gitlab.example/a/b"}},
		{"jenkins_password", map[string]string{"GIT_URL": "https://me:secret@git.example/a/b.git?x=y"}, Run{Attempt: 1, Source: "https://git.example/a/b", URL: "https://git.example/a/b"}},
		{"jenkins_scp", map[string]string{"GIT_URL": "git@git.example:a/b.git"}, Run{Attempt: 1, Source: "https://git.example/a/b", URL: "https://git.example/a/b"}},
		{"jenkins_ssh", map[string]string{"GIT_URL": "ssh://git@git.example:2222/a/b.git"}, Run{Attempt: 1, Source: "https://git.example/a/b", URL: "https://git.example/a/b"}},
		{"jenkins_directory", map[string]string{"GIT_URL": "/srv/git/b.git"}, Run{Attempt: 1}},
		{"empty_variables", map[string]string{"GITHUB_RUN_ID": "", "CI_PIPELINE_ID": "8", "GITHUB_RUN_ATTEMPT": ""}, Run{ID: "8", Attempt: 1}},
		{"attempt_is_no_number", map[string]string{"GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": "x"}, Run{ID: "7", Attempt: 1}},
		{"attempt_counts_from_1", map[string]string{"GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": "0"}, Run{ID: "7", Attempt: 1}},
		{"time_is_no_time", map[string]string{"CI_COMMIT_SHA": "def", "CI_COMMIT_TIMESTAMP": "today"}, Run{Attempt: 1, Revision: "def"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			getenv := func(name string) string { return tc.env[name] }
			assert.Check(t, is.DeepEqual(Detect(t.Context(), getenv, t.TempDir()), tc.want))
		})
	}
}

// What is checked out counts, not what the variables say: a job can check out
// something else.
func TestDetect_asks_git(t *testing.T) {
	t.Parallel()
	dir, revision := repository(t)
	env := map[string]string{"GITHUB_RUN_ID": "7", "GITHUB_SHA": "abc", "CI_COMMIT_TIMESTAMP": "2022-01-31T16:47:55Z"}
	got := Detect(t.Context(), func(name string) string { return env[name] }, dir)
	assert.Check(t, is.DeepEqual(got, Run{ID: "7", Attempt: 1, Revision: revision, Committed: time.Date(2021, 2, 3, 2, 5, 6, 0, time.UTC)}))
	assert.Check(t, is.Equal(got.Committed.Location(), time.UTC))
}

func TestDetect_missing_directory(t *testing.T) {
	t.Parallel()
	got := Detect(t.Context(), func(string) string { return "" }, t.TempDir()+"/missing")
	assert.Check(t, is.DeepEqual(got, Run{Attempt: 1}))
}

func TestAnnotations(t *testing.T) {
	t.Parallel()
	r := Run{Revision: "abc", Committed: time.Date(2021, 2, 3, 4, 5, 6, 0, time.FixedZone("x", 7200)), Source: "https://x", URL: "https://x"}
	assert.Check(t, is.Len(r.Annotations(), 0))
	r.ID = "7"
	const prefix = "org.opencontainers.image."
	assert.Check(t, is.DeepEqual(r.Annotations(), map[string]string{
		prefix + "revision": "abc", prefix + "created": "2021-02-03T02:05:06Z", prefix + "source": "https://x", prefix + "url": "https://x",
	}))
	r.Version = "v1"
	assert.Check(t, is.Equal(r.Annotations()[prefix+"version"], "v1"))
	assert.Check(t, is.Len(Run{ID: "7"}.Annotations(), 0))
}
