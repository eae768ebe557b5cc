// Package ci is what the CI system told us about the run: which run it is and
// which commit it works on.
//
// It must not know what is built.
package ci

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Run describes one CI run. Everything is empty or zero on a plain machine.
type Run struct {
	// ID is the same in all jobs of a run, Attempt counts re-runs from 1.
	ID      string
	Attempt int
	// Revision is a commit, Committed its time.
	Revision  string
	Committed time.Time
}

// Detect reads the variables of GitHub Actions, GitLab CI and Jenkins, and asks
// git about dir for what they leave out.
func Detect(ctx context.Context, getenv func(string) string, dir string) Run {
	first := func(names ...string) string {
		for _, n := range names {
			if v := getenv(n); v != "" {
				return v
			}
		}
		return ""
	}
	r := Run{
		// A child pipeline of GitLab has an ID of its own; its records belong
		// to the parent's.
		ID:      first("GITHUB_RUN_ID", "PARENT_PIPELINE_ID", "CI_PIPELINE_ID", "BUILD_TAG"),
		Attempt: 1,
	}
	if n, err := strconv.Atoi(getenv("GITHUB_RUN_ATTEMPT")); err == nil && n > 0 {
		r.Attempt = n
	}
	r.Revision, r.Committed = head(ctx, dir)
	if r.Revision == "" {
		r.Revision = first("GITHUB_SHA", "CI_COMMIT_SHA", "GIT_COMMIT")
		r.Committed, _ = time.Parse(time.RFC3339, first("CI_COMMIT_TIMESTAMP"))
	}
	return r
}

// head asks git for the commit that is checked out, which can differ from what
// the CI variables name. Without git or a repository it is unknown.
func head(ctx context.Context, dir string) (revision string, committed time.Time) {
	// The workspace of a container action belongs to another user.
	cmd := exec.CommandContext(ctx, "git", "-c", "safe.directory=*", "-C", dir, "log", "-1", "--format=%H %cI")
	out, err := cmd.Output()
	if err != nil {
		return "", time.Time{}
	}
	revision, when, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	committed, err = time.Parse(time.RFC3339, when)
	if err != nil {
		return revision, time.Time{}
	}
	return revision, committed.UTC()
}
