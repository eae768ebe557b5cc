package local

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/git"
	"github.com/org/kaniko-multiarch/internal/graph"
)

// headerSecret is the name of what logs in, among the secrets of the client.
const headerSecret = "header"

// cloneContext checks a repository out into an empty directory, with its history. It
// logs in with GIT_TOKEN, or with GIT_USERNAME and GIT_PASSWORD;
// GIT_PULL_METHOD=http leaves out TLS. Submodules on other servers get no
// credentials.
func cloneContext(ctx context.Context, l buildcontext.Location, dir string, o build.Git, getenv func(string) string) error {
	u, err := url.Parse(l.URL)
	if err != nil {
		return errors.New("the repository's URL is not one")
	}
	if getenv("GIT_PULL_METHOD") == "http" {
		u.Scheme = "http"
	}
	client := &git.Client{TempDir: filepath.Dir(dir), Wants: "GIT_TOKEN, or GIT_USERNAME and GIT_PASSWORD"}
	if login := gitLogin(u, getenv); login != "" {
		client.Secrets = map[string][]byte{headerSecret: []byte("Basic " + base64.StdEncoding.EncodeToString([]byte(login)))}
	}
	u.User = nil
	return client.Clone(ctx, &graph.GitSource{
		Remote: u.String(), Ref: cmp.Or(l.Ref, o.Branch), Checksum: l.Commit, ByCommit: l.Commit != "",
		SkipSubmodules: !o.RecurseSubmodules, InsecureTLS: o.InsecureSkipTLS, HeaderSecret: headerSecret,
	}, git.History{Depth: o.Depth, OneRef: o.SingleBranch}, dir)
}

// gitLogin is USER:PASSWORD, or empty. A token is a password, which GitHub,
// GitLab and Gitea accept with any user name.
func gitLogin(u *url.URL, getenv func(string) string) string {
	user, password := getenv("GIT_USERNAME"), getenv("GIT_PASSWORD")
	if token := getenv("GIT_TOKEN"); token != "" {
		anybody := "oauth2"
		if strings.Contains(u.Hostname(), "bitbucket") {
			anybody = "x-token-auth"
		}
		user, password = cmp.Or(user, anybody), token
	}
	if user == "" && password == "" {
		if u.User == nil {
			return ""
		}
		user = u.User.Username()
		password, _ = u.User.Password()
	}
	return user + ":" + password
}
