package buildcontext

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/org/kaniko-multiarch/internal/git"
	"github.com/org/kaniko-multiarch/internal/graph"
)

// GitOptions say how a repository is cloned; the names are those of kaniko's
// --git. The zero value clones all of it.
type GitOptions struct {
	// Branch is taken where the location names nothing.
	Branch       string
	SingleBranch bool
	// Depth is the number of commits of history; 0 is all.
	Depth             int
	RecurseSubmodules bool
	InsecureSkipTLS   bool
}

// headerSecret is the name of what logs in, among the secrets of the client.
const headerSecret = "header"

// Clone checks a repository out into an empty directory, with its history. It
// logs in with GIT_TOKEN, or with GIT_USERNAME and GIT_PASSWORD;
// GIT_PULL_METHOD=http leaves out TLS. Submodules on other servers get no
// credentials.
func Clone(ctx context.Context, l Location, dir string, o GitOptions, getenv func(string) string) error {
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

// Below is a directory in a context. Links do not lead out of it.
func Below(dir, sub string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	info, err := root.Stat(filepath.Clean(sub))
	if err != nil || !info.IsDir() {
		return "", fmt.Errorf("the context has no directory %s", sub)
	}
	return filepath.EvalSymlinks(filepath.Join(dir, sub))
}
