// Package git brings the files of a commit into a directory, without a git
// program: there is none in the tool's image.
//
// It must not know what the files are for.
package git

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/org/kaniko-multiarch/internal/graph"
)

// maxInMemory is the size, in bytes, of the largest files that are read as a whole.
const maxInMemory = 8 << 20

// Client fetches repositories. It is safe for concurrent use.
type Client struct {
	// Secrets are the values of the build's secrets by their ID.
	Secrets map[string][]byte
	// Agents are its SSH agents; nil means none.
	Agents Agents
	// TempDir is where repositories are kept while they are read.
	TempDir string
	// Wants says in messages what a private repository wants; empty is the secret
	// that BuildKit looks for.
	Wants string
}

// Errors that a caller tells apart. All of them say which repository is meant.
var (
	// ErrNotFound is a repository, a reference, a commit or a directory that is
	// not there.
	ErrNotFound = errors.New("not found")
	// ErrChecksum is a commit that is not the one that was asked for.
	ErrChecksum = errors.New("the checksum does not match")
	// ErrDenied is a repository that wants other credentials.
	ErrDenied = errors.New("access denied")
	// ErrUnavailable is a server that does not answer, or not as it should.
	ErrUnavailable = errors.New("the server does not answer")
)

// Checkout writes the files of s to the empty directory dir.
func (c *Client) Checkout(ctx context.Context, s *graph.GitSource, dir string) error {
	return c.checkout(ctx, s, nil, dir)
}

func (c *Client) checkout(ctx context.Context, s *graph.GitSource, h *History, dir string) error {
	if err := c.write(ctx, s, h, dir); err != nil {
		return fmt.Errorf("git repository %s: %w", public(s.Remote), c.explain(err))
	}
	return nil
}

func (c *Client) write(ctx context.Context, s *graph.GitSource, h *History, dir string) error {
	keep := s.KeepDir && s.Subdir == "" // the directory belongs to the whole repository
	at := filepath.Join(dir, ".git")
	if !keep {
		var err error
		if at, err = os.MkdirTemp(c.TempDir, "git-"); err != nil {
			return err
		}
		defer os.RemoveAll(at)
	}
	r, err := c.fetch(ctx, s, h, at)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	w := &worktree{client: c, source: s, root: root, repo: r, subdir: s.Subdir}
	if err := w.write(ctx); err != nil {
		return err
	}
	if keep {
		if err := r.finish(w.entries, h != nil); err != nil {
			return err
		}
	}
	if s.CommitTime {
		return setTimes(dir, r.commit.Committer.When)
	}
	return nil
}

// repository is one that has the wanted commit.
type repository struct {
	storage *filesystem.Storage
	// remote is its URL, which may hold credentials.
	remote string
	// ref is what the commit was found by; empty when that was its hash.
	ref plumbing.ReferenceName
	// hash is that of the commit, or of an annotated tag of it.
	hash   plumbing.Hash
	commit *object.Commit
}

// fetch gets the wanted commit, without a History alone where the server gives
// that out.
func (c *Client) fetch(ctx context.Context, s *graph.GitSource, h *History, dir string) (*repository, error) {
	if err := checkRemote(s.Remote); err != nil {
		return nil, err
	}
	auth, release, err := c.auth(s)
	if err != nil {
		return nil, err
	}
	defer release()
	r := &repository{remote: s.Remote}
	r.storage = filesystem.NewStorageWithOptions(osfs.New(dir), cache.NewObjectLRUDefault(), filesystem.Options{LargeObjectThreshold: maxInMemory})
	// auth has what the URL says of the user.
	remote := gogit.NewRemote(r.storage, &config.RemoteConfig{Name: "origin", URLs: []string{public(s.Remote)}})
	refs, err := remote.ListContext(ctx, &gogit.ListOptions{Auth: auth, InsecureSkipTLS: s.InsecureTLS, PeelingOption: gogit.AppendPeeled})
	if err != nil {
		return nil, err
	}
	if err := r.resolve(s, refs); err != nil {
		return nil, err
	}
	opts := &gogit.FetchOptions{Auth: auth, InsecureSkipTLS: s.InsecureTLS, Depth: 1, Tags: gogit.NoTags, RefSpecs: []config.RefSpec{r.refSpec(refs)}}
	if h != nil {
		if err := h.extend(opts, s, refs); err != nil {
			return nil, err
		}
	}
	err = remote.FetchContext(ctx, opts)
	if errors.Is(err, gogit.ErrExactSHA1NotSupported) || errors.Is(err, transport.ErrEmptyUploadPackRequest) {
		// Then the commit is somewhere below what it does give out.
		opts.Depth, opts.RefSpecs = 0, []config.RefSpec{"+refs/heads/*:refs/kept/heads/*", "+refs/tags/*:refs/kept/tags/*"}
		err = remote.FetchContext(ctx, opts)
	}
	if err != nil && !errors.Is(err, gogit.NoErrAlreadyUpToDate) {
		return nil, err
	}
	return r, r.load(s)
}

// resolve finds out which commit is wanted, as BuildKit does: a branch goes
// before a tag of the same name.
func (r *repository) resolve(s *graph.GitSource, refs []*plumbing.Reference) error {
	if s.ByCommit {
		if !plumbing.IsHash(s.Checksum) {
			return fmt.Errorf("%w: fetching by commit takes a full hash, not %q", ErrNotFound, s.Checksum)
		}
		r.hash = plumbing.NewHash(s.Checksum)
		return nil
	}
	if plumbing.IsHash(s.Ref) {
		r.hash = plumbing.NewHash(s.Ref)
		return checksum(s, r.hash)
	}
	known := map[plumbing.ReferenceName]plumbing.Hash{}
	head := plumbing.ReferenceName("")
	for _, ref := range refs {
		if ref.Type() == plumbing.SymbolicReference {
			if ref.Name() == plumbing.HEAD {
				head = ref.Target()
			}
			continue
		}
		known[ref.Name()] = ref.Hash()
	}
	short := strings.TrimPrefix(s.Ref, "refs/")
	candidates := []string{"refs/" + short, "refs/heads/" + strings.TrimPrefix(short, "heads/"), "refs/tags/" + strings.TrimPrefix(short, "tags/")}
	if s.Ref == "" || s.Ref == "HEAD" {
		candidates = []string{cmp.Or(head.String(), "HEAD")}
	}
	for _, name := range candidates {
		hash, ok := known[plumbing.ReferenceName(name)]
		if !ok {
			continue
		}
		r.ref, r.hash = plumbing.ReferenceName(name), hash
		if peeled, ok := known[plumbing.ReferenceName(name+"^{}")]; ok {
			return checksum(s, hash, peeled)
		}
		return checksum(s, hash)
	}
	return fmt.Errorf("%w: it has no branch or tag %q", ErrNotFound, cmp.Or(s.Ref, "HEAD"))
}

// checksum compares what was asked for with a commit and its tag.
func checksum(s *graph.GitSource, got ...plumbing.Hash) error {
	if s.Checksum == "" {
		return nil
	}
	var names []string
	for _, h := range got {
		if strings.HasPrefix(h.String(), strings.ToLower(s.Checksum)) {
			return nil
		}
		names = append(names, h.String())
	}
	return fmt.Errorf("%w: want %s, got %s", ErrChecksum, s.Checksum, strings.Join(names, " or "))
}

// refSpec is what to ask for. A commit that some reference points to can be had
// from every server.
func (r *repository) refSpec(refs []*plumbing.Reference) config.RefSpec {
	from := r.ref.String()
	for _, ref := range refs {
		if from == "" && ref.Type() == plumbing.HashReference && ref.Hash() == r.hash && !strings.HasSuffix(ref.Name().String(), "^{}") {
			from = ref.Name().String()
		}
	}
	if from == "" {
		return config.RefSpec(r.hash.String() + ":refs/kept/commit")
	}
	return config.RefSpec("+" + from + ":refs/kept/commit")
}

// load reads the commit, which must be what the server said a moment ago.
func (r *repository) load(s *graph.GitSource) error {
	if ref, err := r.storage.Reference("refs/kept/commit"); err == nil && r.ref != "" {
		r.hash = ref.Hash()
	}
	hash := r.hash
	if tag, err := object.GetTag(r.storage, hash); err == nil {
		commit, err := tag.Commit()
		if err != nil {
			return fmt.Errorf("%w: tag %s is of no commit", ErrNotFound, hash)
		}
		hash = commit.Hash
	}
	if err := checksum(s, r.hash, hash); err != nil {
		return err
	}
	commit, err := object.GetCommit(r.storage, hash)
	if err != nil {
		return fmt.Errorf("%w: it has no commit %s", ErrNotFound, hash)
	}
	r.commit = commit
	return nil
}

// checkRemote refuses other ways to reach a repository than these. file is none:
// a submodule could name a directory of the builder.
func checkRemote(remote string) error {
	e, err := transport.NewEndpoint(remote)
	if err != nil {
		return errors.New("its URL is malformed")
	}
	switch e.Protocol {
	case "http", "https", "ssh", "git":
		return nil
	}
	return fmt.Errorf("%w: %s is no way to reach a repository: use https, ssh or git", ErrNotFound, e.Protocol)
}

// public is a remote without its credentials: a token can be the user's name, too.
func public(remote string) string {
	u, err := url.Parse(remote)
	switch {
	case err != nil && strings.Contains(remote, "://"):
		return "with a malformed URL"
	case err != nil || u.User == nil:
		return remote // HOST:PATH has none
	case u.Scheme == "ssh":
		u.User = url.User(u.User.Username())
	default:
		u.User = nil
	}
	return u.String()
}

// explain puts the library's errors into our words.
func (c *Client) explain(err error) error {
	wants := cmp.Or(c.Wants, "--secret id=GIT_AUTH_TOKEN,env=NAME")
	switch {
	case errors.Is(err, transport.ErrRepositoryNotFound), errors.Is(err, transport.ErrEmptyRemoteRepository):
		return fmt.Errorf("%w: check its URL; a private one wants %s", ErrNotFound, wants)
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		return fmt.Errorf("%w: give %s", ErrDenied, wants)
	}
	var u *url.Error
	if errors.As(err, &u) {
		return fmt.Errorf("%w: %w", ErrUnavailable, u.Err) // its URL is said already
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}
