package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/index"
	"github.com/go-git/go-git/v5/plumbing/object"
	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/graph"
)

// maxSubmodules is how deep submodules may lie in submodules.
const maxSubmodules = 32

// worktree writes the files of a commit below root.
type worktree struct {
	client *Client
	source *graph.GitSource
	root   *os.Root
	repo   *repository
	// at is where in root the repository lies, subdir what of it is wanted.
	at, subdir string
	depth      int
	modules    map[string]string
	entries    []*index.Entry
}

func (w *worktree) write(ctx context.Context) error {
	tree, err := w.repo.commit.Tree()
	if err != nil {
		return err
	}
	if w.modules, err = modules(tree); err != nil {
		return err
	}
	from := strings.Trim(path.Clean("/"+w.subdir), "/")
	if from != "" {
		return w.below(ctx, tree, from)
	}
	return w.tree(ctx, tree, "", w.at)
}

// below writes one directory of the repository, which may be in a submodule.
func (w *worktree) below(ctx context.Context, tree *object.Tree, dir string) error {
	for prefix := dir; prefix != "." && prefix != ""; prefix = path.Dir(prefix) {
		if e, err := tree.FindEntry(prefix); err == nil && e.Mode == filemode.Submodule {
			rest := strings.TrimPrefix(strings.TrimPrefix(dir, prefix), "/")
			return w.submodule(ctx, prefix, w.at, rest, e.Hash)
		}
	}
	sub, err := tree.Tree(dir)
	if err != nil {
		return fmt.Errorf("%w: it has no directory %s", ErrNotFound, dir)
	}
	return w.tree(ctx, sub, dir, w.at)
}

// tree writes a directory that is name in the repository and goes to the path to.
func (w *worktree) tree(ctx context.Context, t *object.Tree, name, to string) error {
	for _, e := range t.Entries {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if e.Name == "" || strings.ContainsAny(e.Name, "/\x00") || !fs.ValidPath(e.Name) || e.Name == "." || strings.EqualFold(e.Name, ".git") {
			return fmt.Errorf("it has a file called %q in %q, which nobody may have", e.Name, name)
		}
		full, target := path.Join(name, e.Name), path.Join(to, e.Name)
		if err := w.entry(ctx, t, e, full, target); err != nil {
			return fmt.Errorf("writing %s: %w", full, err)
		}
	}
	return nil
}

func (w *worktree) entry(ctx context.Context, t *object.Tree, e object.TreeEntry, full, target string) error {
	switch e.Mode {
	case filemode.Dir:
		sub, err := object.GetTree(w.repo.storage, e.Hash)
		if err != nil {
			return err
		}
		if err := w.root.Mkdir(target, 0o755); err != nil {
			return err
		}
		return w.tree(ctx, sub, full, target)
	case filemode.Submodule:
		w.note(e, full, 0)
		if err := w.root.Mkdir(target, 0o755); err != nil {
			return err
		}
		if w.source.SkipSubmodules {
			return nil
		}
		return w.submodule(ctx, full, target, "", e.Hash)
	}
	blob, err := object.GetBlob(w.repo.storage, e.Hash)
	if err != nil {
		return err
	}
	w.note(e, full, uint32(blob.Size))
	return w.file(e, blob, target)
}

func (w *worktree) note(e object.TreeEntry, full string, size uint32) {
	if w.depth == 0 {
		w.entries = append(w.entries, &index.Entry{Hash: e.Hash, Name: full, Mode: e.Mode, Size: size})
	}
}

func (w *worktree) file(e object.TreeEntry, blob *object.Blob, target string) error {
	r, err := blob.Reader()
	if err != nil {
		return err
	}
	defer r.Close()
	if e.Mode == filemode.Symlink {
		text, err := io.ReadAll(io.LimitReader(r, unix.PathMax))
		if err != nil {
			return err
		}
		return w.root.Symlink(string(text), target)
	}
	mode := fs.FileMode(0o644)
	if e.Mode == filemode.Executable {
		mode = 0o755
	}
	f, err := w.root.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Chmod(mode), f.Close())
}

// modules are the URLs of the submodules by their path.
func modules(tree *object.Tree) (map[string]string, error) {
	out := map[string]string{}
	f, err := tree.File(".gitmodules")
	if err != nil {
		return out, nil
	}
	text, err := f.Contents()
	if err != nil {
		return nil, err
	}
	m := config.NewModules()
	if err := m.Unmarshal([]byte(text)); err != nil {
		return nil, fmt.Errorf("reading .gitmodules: %w", err)
	}
	for _, s := range m.Submodules {
		out[path.Clean(s.Path)] = s.URL
	}
	return out, nil
}

// submodule writes one commit of another repository.
func (w *worktree) submodule(ctx context.Context, name, to, subdir string, hash plumbing.Hash) error {
	address, ok := w.modules[name]
	if !ok {
		return fmt.Errorf("%w: submodule %s is not in .gitmodules", ErrNotFound, name)
	}
	if w.depth == maxSubmodules {
		return fmt.Errorf("submodules are nested more than %d deep", maxSubmodules)
	}
	remote, err := relative(w.repo.remote, address)
	if err != nil {
		return err
	}
	s := *w.source
	s.Remote, s.Ref, s.Checksum, s.ByCommit, s.Subdir = remote, hash.String(), "", false, subdir
	if !sameHost(remote, w.repo.remote) {
		s.TokenSecret, s.HeaderSecret = hostOnly(s.TokenSecret, remote), hostOnly(s.HeaderSecret, remote)
	}
	dir, err := os.MkdirTemp(w.client.TempDir, "git-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r, err := w.client.fetch(ctx, &s, nil, dir)
	if err != nil {
		return fmt.Errorf("submodule %s, %s: %w", name, public(remote), err)
	}
	in := &worktree{client: w.client, source: &s, root: w.root, repo: r, at: to, subdir: subdir, depth: w.depth + 1}
	return in.write(ctx)
}

// relative resolves a submodule's URL, which may be relative to its repository.
func relative(base, address string) (string, error) {
	if !strings.HasPrefix(address, "./") && !strings.HasPrefix(address, "../") {
		return address, nil
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		// HOST:PATH
		host, dir, ok := strings.Cut(base, ":")
		if !ok {
			return "", errors.New("a submodule has a relative URL, and the repository's URL is malformed")
		}
		return host + ":" + path.Join(dir, address), nil
	}
	u.Path = path.Join(u.Path, address)
	u.RawPath = ""
	return u.String(), nil
}

// sameHost keeps credentials from servers that they are not for.
func sameHost(a, b string) bool {
	ua, errA := url.Parse(a)
	ub, errB := url.Parse(b)
	return errA == nil && errB == nil && ua.Host != "" && ua.Scheme == ub.Scheme && ua.Host == ub.Host
}

// setTimes gives everything below dir one time.
func setTimes(dir string, when time.Time) error {
	ts := unix.NsecToTimespec(when.UnixNano())
	var dirs []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			dirs = append(dirs, p)
			return nil
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	})
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
		err = unix.UtimesNanoAt(unix.AT_FDCWD, dirs[i], []unix.Timespec{ts, ts}, 0)
	}
	return err
}
