package git

import (
	"context"
	"strings"

	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/index"

	"github.com/org/kaniko-multiarch/internal/graph"
)

// History is how much of a repository a clone has beside the files of a commit.
// The zero value is all of it.
type History struct {
	// Depth is the number of commits; 0 is all.
	Depth int
	// OneRef leaves out all branches and tags but the one that was asked for.
	OneRef bool
}

// Clone is Checkout with .git as git clone makes it. Submodules have none of
// their own. A commit that is asked for may be anywhere, so it brings everything.
func (c *Client) Clone(ctx context.Context, s *graph.GitSource, h History, dir string) error {
	whole := *s
	whole.KeepDir, whole.Subdir = true, ""
	return c.checkout(ctx, &whole, &h, dir)
}

// extend makes a fetch bring the history, too.
func (h *History) extend(opts *gogit.FetchOptions, s *graph.GitSource, refs []*plumbing.Reference) error {
	var named repository
	if err := named.resolve(&graph.GitSource{Ref: s.Ref}, refs); err != nil {
		return err
	}
	opts.RefSpecs, opts.Depth = []config.RefSpec{named.refSpec(refs)}, h.Depth
	if s.ByCommit {
		opts.Depth = 0
	}
	if s.ByCommit || !h.OneRef && h.Depth == 0 {
		opts.RefSpecs, opts.Tags = append(opts.RefSpecs, "+refs/heads/*:refs/remotes/origin/*"), gogit.AllTags
	}
	return nil
}

// finish makes the directory that was fetched into the .git of the files: HEAD
// is the commit, or its branch when attached; the index has all files.
func (r *repository) finish(entries []*index.Entry, attached bool) error {
	name := r.ref
	if name == "" || name == plumbing.HEAD {
		name = "refs/kept/commit"
	} else if err := r.storage.RemoveReference("refs/kept/commit"); err != nil {
		return err
	}
	made := []*plumbing.Reference{plumbing.NewHashReference(name, r.hash), plumbing.NewHashReference(plumbing.HEAD, r.commit.Hash)}
	if branch, ok := strings.CutPrefix(name.String(), "refs/heads/"); ok && attached {
		made[1] = plumbing.NewSymbolicReference(plumbing.HEAD, name)
		made = append(made, plumbing.NewHashReference(plumbing.NewRemoteReferenceName("origin", branch), r.hash))
	}
	for _, ref := range made {
		if err := r.storage.SetReference(ref); err != nil {
			return err
		}
	}
	c := config.NewConfig()
	c.Remotes["origin"] = &config.RemoteConfig{
		Name: "origin", URLs: []string{public(r.remote)}, Fetch: []config.RefSpec{"+refs/heads/*:refs/remotes/origin/*"},
	}
	if err := r.storage.SetConfig(c); err != nil {
		return err
	}
	return r.storage.SetIndex(&index.Index{Version: 2, Entries: entries})
}
