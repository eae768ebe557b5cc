package buildcontext

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/http"
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

// Clone checks a repository out into an empty directory, with its history. It
// logs in with GIT_TOKEN, or with GIT_USERNAME and GIT_PASSWORD;
// GIT_PULL_METHOD=http leaves out TLS.
func Clone(ctx context.Context, l Location, dir string, o GitOptions, getenv func(string) string) error {
	u, err := url.Parse(l.URL)
	if err != nil {
		return errors.New("the repository's URL is not one")
	}
	if getenv("GIT_PULL_METHOD") == "http" {
		u.Scheme = "http"
	}
	c := cloner{dir: dir, options: o, auth: gitAuth(u, getenv)}
	// What is in the URL would be in .git/config, and so in the context.
	u.User = nil
	c.url = u.String()
	if err := c.clone(ctx, l); err != nil {
		if errors.Is(err, transport.ErrAuthenticationRequired) || errors.Is(err, transport.ErrAuthorizationFailed) || errors.Is(err, transport.ErrRepositoryNotFound) {
			return fmt.Errorf("cloning %s: %w: check the address; a private repository wants GIT_TOKEN, or GIT_USERNAME and GIT_PASSWORD", c.url, err)
		}
		return fmt.Errorf("cloning %s: %w", c.url, err)
	}
	return nil
}

// gitAuth takes a token as a password, which GitHub, GitLab and Gitea accept
// with any user name.
func gitAuth(u *url.URL, getenv func(string) string) transport.AuthMethod {
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
			return nil
		}
		user = u.User.Username()
		password, _ = u.User.Password()
	}
	return &http.BasicAuth{Username: user, Password: password}
}

type cloner struct {
	url, dir string
	options  GitOptions
	auth     transport.AuthMethod
}

func (c *cloner) clone(ctx context.Context, l Location) error {
	repo, err := git.PlainInit(c.dir, false)
	if err != nil {
		return err
	}
	remote, err := repo.CreateRemote(&config.RemoteConfig{Name: "origin", URLs: []string{c.url}})
	if err != nil {
		return err
	}
	refs, err := remote.ListContext(ctx, &git.ListOptions{Auth: c.auth, InsecureSkipTLS: c.options.InsecureSkipTLS})
	if err != nil {
		return err
	}
	ref, err := find(refs, cmp.Or(l.Ref, c.options.Branch))
	if err != nil {
		return err
	}
	if err := c.fetch(ctx, remote, ref, l.Commit); err != nil {
		return err
	}
	hash := ref.Hash()
	if l.Commit != "" {
		hash = plumbing.NewHash(l.Commit)
	} else if tag, err := repo.TagObject(hash); err == nil {
		hash = tag.Target
	}
	if ref.Name().IsBranch() {
		// HEAD is the branch, as after git clone.
		name := plumbing.NewSymbolicReference(plumbing.HEAD, ref.Name())
		err = errors.Join(repo.Storer.SetReference(plumbing.NewHashReference(ref.Name(), hash)), repo.Storer.SetReference(name))
		if err != nil {
			return err
		}
	}
	tree, err := repo.Worktree()
	if err != nil {
		return err
	}
	checkout := &git.CheckoutOptions{Hash: hash, Force: true}
	if ref.Name().IsBranch() {
		checkout = &git.CheckoutOptions{Branch: ref.Name(), Force: true}
	}
	if err := tree.Checkout(checkout); err != nil {
		return fmt.Errorf("checking %s out: %w", hash, err)
	}
	if !c.options.RecurseSubmodules {
		return nil
	}
	modules, err := tree.Submodules()
	if err != nil {
		return err
	}
	return modules.UpdateContext(ctx, &git.SubmoduleUpdateOptions{Init: true, RecurseSubmodules: git.DefaultSubmoduleRecursionDepth, Auth: c.auth, Depth: c.options.Depth})
}

// fetch gets the history of a reference, and of all branches and tags where
// nobody asked for less.
func (c *cloner) fetch(ctx context.Context, remote *git.Remote, ref *plumbing.Reference, commit string) error {
	short := strings.TrimPrefix(ref.Name().String(), "refs/heads/")
	specs := []config.RefSpec{config.RefSpec(fmt.Sprintf("+%s:refs/remotes/origin/%s", ref.Name(), strings.TrimPrefix(short, "refs/")))}
	tags := git.NoTags
	if !c.options.SingleBranch && c.options.Depth == 0 || commit != "" {
		specs = append(specs, "+refs/heads/*:refs/remotes/origin/*")
		tags = git.AllTags
	}
	depth := c.options.Depth
	if commit != "" {
		depth = 0 // it may be anywhere
	}
	err := remote.FetchContext(ctx, &git.FetchOptions{
		RefSpecs: specs, Tags: tags, Depth: depth, Auth: c.auth, InsecureSkipTLS: c.options.InsecureSkipTLS,
	})
	if errors.Is(err, git.NoErrAlreadyUpToDate) {
		return nil
	}
	return err
}

// find looks a reference up as git does: by its full name, then as a tag, then
// as a branch; HEAD without a name.
func find(refs []*plumbing.Reference, name string) (*plumbing.Reference, error) {
	known := map[plumbing.ReferenceName]*plumbing.Reference{}
	for _, r := range refs {
		known[r.Name()] = r
	}
	if name == "" {
		head, ok := known[plumbing.HEAD]
		if ok && head.Type() == plumbing.SymbolicReference {
			head, ok = known[head.Target()]
		}
		if !ok {
			return nil, errors.New("the repository has no default branch: name one, #refs/heads/main")
		}
		return head, nil
	}
	for _, full := range []string{name, "refs/" + name, "refs/tags/" + name, "refs/heads/" + name} {
		if r, ok := known[plumbing.ReferenceName(full)]; ok {
			return r, nil
		}
	}
	return nil, fmt.Errorf("there is no branch or tag %q", name)
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
