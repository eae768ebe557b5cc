package fileop

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"path"
	"runtime"
	"slices"
	"sync"

	"github.com/moby/patternmatcher"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/org/kaniko-multiarch/internal/filetree"
	"github.com/org/kaniko-multiarch/internal/graph"
)

// Sums are digests of files in one tree that nobody changes. All of a file counts
// but its times: a checkout gives every file a new one. It is safe for
// concurrent use.
type Sums struct {
	mu    sync.Mutex
	known map[string]digest.Digest
}

// NewSums returns the Sums of a tree of which nothing is known yet.
func NewSums() *Sums { return &Sums{known: map[string]digest.Digest{}} }

// Copy returns the digest of all that Copy would read of the tree. Trees with
// equal digests give the same copies, times aside. The error is a *NotFoundError
// when the source does not exist.
func (s *Sums) Copy(ctx context.Context, tree filetree.Tree, c *graph.Copy) (digest.Digest, error) {
	names, err := sumSources(tree, c)
	if err != nil {
		return "", err
	}
	sum := digest.SHA256.Digester()
	for _, name := range names {
		find := filetree.ResolveParent
		if c.FollowSymlink {
			find = filetree.Resolve
		}
		from, err := find(tree, name)
		if err == nil {
			_, err = tree.Lstat(from)
		}
		if isMissing(err) {
			return "", &NotFoundError{Path: name}
		}
		if err != nil {
			return "", fmt.Errorf("hashing %s: %w", name, err)
		}
		w, err := s.walker(ctx, tree, c.Include, c.Exclude)
		if err != nil {
			return "", err
		}
		w.add("source", path.Clean(name))
		if err := w.walk(from, "", matches{}); err != nil {
			return "", fmt.Errorf("hashing %s: %w", name, err)
		}
		if err := w.sum(sum.Hash()); err != nil {
			return "", fmt.Errorf("hashing %s: %w", name, err)
		}
	}
	return sum.Digest(), nil
}

// sumSources lists what c.Src stands for.
func sumSources(tree filetree.Tree, c *graph.Copy) ([]string, error) {
	from := cleanPath(c.Src)
	if !c.Wildcard {
		return []string{from}, nil
	}
	found, err := filetree.Glob(tree, from, c.FollowSymlink)
	if isMissing(err) || err == nil && len(found) == 0 && !c.AllowEmpty {
		return nil, &NotFoundError{Path: path.Clean(from)}
	}
	return found, err
}

// sumWalk goes through one source as the copier does.
type sumWalk struct {
	*Sums
	ctx              context.Context
	tree             filetree.Tree
	parts            []sumPart
	include, exclude *patternmatcher.PatternMatcher
	// pending are directories of which nothing was included yet.
	pending []pendingDir
	// links are the first names of files that have several.
	links map[any]string
}

// sumPart is what goes into a digest: texts, and the digest of a file.
type sumPart struct {
	texts []string
	file  string
	stat  *filetree.Stat
}

type pendingDir struct{ file, name string }

// matches are what the patterns said about the directory above.
type matches struct{ include, exclude patternmatcher.MatchInfo }

func (s *Sums) walker(ctx context.Context, tree filetree.Tree, include, exclude []string) (_ *sumWalk, err error) {
	w := &sumWalk{Sums: s, ctx: ctx, tree: tree, links: map[any]string{}}
	if len(include) > 0 {
		if w.include, err = patternmatcher.New(include); err != nil {
			return nil, fmt.Errorf("patterns %q: %w", include, err)
		}
	}
	if len(exclude) > 0 {
		if w.exclude, err = patternmatcher.New(exclude); err != nil {
			return nil, fmt.Errorf("patterns %q: %w", exclude, err)
		}
	}
	return w, nil
}

func (w *sumWalk) walk(file, name string, above matches) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	included, here, err := w.matches(name, above)
	if err != nil {
		return err
	}
	st, err := w.tree.Lstat(file)
	if err != nil {
		return err
	}
	isDir := st.IsDir()
	if !included && !isDir {
		return nil
	}
	if included {
		if err := w.entry(file, name, st); err != nil {
			return err
		}
	}
	if !isDir {
		return nil
	}
	if !included {
		depth := len(w.pending)
		w.pending = append(w.pending, pendingDir{file, name})
		defer func() { w.pending = w.pending[:min(depth, len(w.pending))] }()
	}
	list, err := w.tree.ReadDir(file)
	if err != nil {
		return err
	}
	for _, base := range list {
		if err := w.walk(path.Join(file, base), path.Join(name, base), here); err != nil {
			return err
		}
	}
	return nil
}

func (w *sumWalk) matches(name string, above matches) (included bool, here matches, err error) {
	if name == "" {
		return true, here, nil
	}
	included = true
	if w.include != nil {
		if included, here.include, err = w.include.MatchesUsingParentResults(name, above.include); err != nil {
			return false, here, err
		}
	}
	if w.exclude != nil {
		excluded, info, err := w.exclude.MatchesUsingParentResults(name, above.exclude)
		if err != nil {
			return false, here, err
		}
		here.exclude = info
		included = included && !excluded
	}
	return included, here, nil
}

// entry adds a file, after the directories above it that only it makes part of
// the copy.
func (w *sumWalk) entry(file, name string, st *filetree.Stat) error {
	for _, dir := range w.pending {
		above, err := w.tree.Lstat(dir.file)
		if err != nil {
			return err
		}
		w.one(dir.file, dir.name, above)
	}
	w.pending = w.pending[:0]
	w.one(file, name, st)
	return nil
}

func (w *sumWalk) one(file, name string, st *filetree.Stat) {
	w.parts = append(w.parts, sumPart{[]string{"entry", name}, file, st})
	if st.Links == nil {
		return
	}
	if first, ok := w.links[st.Links]; ok {
		w.add("link", first)
	} else {
		w.links[st.Links] = name
	}
}

func (w *sumWalk) add(texts ...string) { w.parts = append(w.parts, sumPart{texts: texts}) }

// sum adds all parts to a hash. The files are read on all cores.
func (w *sumWalk) sum(to hash.Hash) error {
	digests := make([]digest.Digest, len(w.parts))
	group, ctx := errgroup.WithContext(w.ctx)
	group.SetLimit(runtime.NumCPU())
	for i, p := range w.parts {
		if p.stat == nil {
			continue
		}
		group.Go(func() (err error) {
			digests[i], err = w.file(ctx, p)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, p := range w.parts {
		addParts(to, p.texts...)
		if p.stat != nil {
			addParts(to, digests[i].String())
		}
	}
	return nil
}

// addParts frames what it adds.
func addParts(h hash.Hash, parts ...string) {
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write([]byte(p))
	}
}

// file is the digest of one file: of all that a copy keeps of it.
func (w *sumWalk) file(ctx context.Context, p sumPart) (digest.Digest, error) {
	w.mu.Lock()
	d, ok := w.known[p.file]
	w.mu.Unlock()
	if ok {
		return d, nil
	}
	sum := digest.SHA256.Digester()
	h := sum.Hash()
	addParts(h, fmt.Sprintf("%o %d %d %d", p.stat.Mode, p.stat.UID, p.stat.GID, p.stat.Rdev))
	xattrs, err := w.tree.Xattrs(p.file)
	if err != nil {
		return "", err
	}
	for _, name := range slices.Sorted(maps.Keys(xattrs)) {
		addParts(h, "xattr", name, xattrs[name])
	}
	switch {
	case p.stat.IsLink():
		addParts(h, "target", p.stat.Target)
	case p.stat.IsRegular():
		addParts(h, "content")
		if err := w.content(ctx, h, p.file); err != nil {
			return "", err
		}
	}
	d = sum.Digest()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known[p.file] = d
	return d, nil
}

func (w *sumWalk) content(ctx context.Context, h hash.Hash, name string) (err error) {
	f, err := w.tree.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, 64<<10)
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
