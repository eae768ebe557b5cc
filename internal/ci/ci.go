// Package ci is what the CI system told us about the run (which run it is, which
// commit it works on) and what it wants back: outputs and a summary.
//
// It must not know what is built.
package ci

import (
	"context"
	"maps"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Run describes one CI run. Everything is empty or zero on a plain machine.
type Run struct {
	// ID is the same in all jobs of a run, Attempt counts re-runs from 1.
	ID      string
	Attempt int
	// Revision is a commit, Committed its time.
	Revision  string
	Committed time.Time
	// Version is the git tag that the run is for; Source is where the code is,
	// URL where people read about it.
	Version, Source, URL string
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
	r.Version = first("CI_COMMIT_TAG", "TAG_NAME")
	if getenv("GITHUB_REF_TYPE") == "tag" {
		r.Version = getenv("GITHUB_REF_NAME")
	}
	r.Source = source(getenv)
	r.URL = r.Source
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

// source is where the code is, as a URL without credentials. On GitHub it is not
// always github.com.
func source(getenv func(string) string) string {
	if repo := getenv("GITHUB_REPOSITORY"); repo != "" && getenv("GITHUB_SERVER_URL") != "" {
		return strings.TrimSuffix(getenv("GITHUB_SERVER_URL"), "/") + "/" + repo
	}
	if project := getenv("CI_PROJECT_URL"); project != "" {
		return project
	}
	return webURL(getenv("GIT_URL"))
}

// webURL makes one of git@host:owner/name.git, and of what Jenkins clones with
// a password in it.
func webURL(remote string) string {
	remote = strings.TrimSpace(remote)
	if !strings.Contains(remote, "://") {
		host, path, ok := strings.Cut(remote, ":")
		if !ok {
			return "" // a directory, or nothing
		}
		remote = "https://" + host + "/" + strings.TrimPrefix(path, "/")
	}
	u, err := url.Parse(remote)
	if err != nil || u.Host == "" {
		return ""
	}
	if u.Scheme == "ssh" || u.Scheme == "git" {
		u.Scheme, u.Host = "https", u.Hostname()
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	u.Path = strings.TrimSuffix(u.Path, ".git")
	return u.String()
}

// Annotations are those that image-spec defines and the run knows. There are
// none outside of CI: a checkout in the working directory need not have to do
// with the image.
func (r Run) Annotations() map[string]string {
	if r.ID == "" {
		return nil
	}
	all := map[string]string{
		ocispecs.AnnotationRevision: r.Revision, ocispecs.AnnotationVersion: r.Version,
		ocispecs.AnnotationSource: r.Source, ocispecs.AnnotationURL: r.URL,
	}
	if !r.Committed.IsZero() {
		// Not the clock: the same commit gives the same index.
		all[ocispecs.AnnotationCreated] = r.Committed.UTC().Format(time.RFC3339)
	}
	maps.DeleteFunc(all, func(_, value string) bool { return value == "" })
	return all
}
