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
	sources, err := findSources(tree, c)
	if err != nil {
		return "", err
	}
	sum := digest.SHA256.Digester()
	for _, from := range sources {
		if err := s.source(ctx, tree, c, from, sum.Hash()); err != nil {
			return "", fmt.Errorf("hashing %s: %w", from.name, err)
		}
	}
	return sum.Digest(), nil
}

// source adds one source to a hash.
func (s *Sums) source(ctx context.Context, tree filetree.Tree, c *graph.Copy, from source, to hash.Hash) error {
	walk, err := newSourceWalk(ctx, tree, c)
	if err != nil {
		return err
	}
	l := &sumList{Sums: s, tree: tree, links: map[any]string{}}
	walk.visit = l.visit
	l.add("source", path.Clean(from.name))
	if err := walk.walk(from); err != nil {
		return err
	}
	return l.sum(ctx, to)
}

// sumList is what counts of one source, in order.
type sumList struct {
	*Sums
	tree  filetree.Tree
	parts []sumPart
	// links are the first names of files that have several.
	links map[any]string
}

// sumPart is what goes into a digest: texts, and the digest of a file.
type sumPart struct {
	texts []string
	file  string
	stat  *filetree.Stat
}

func (l *sumList) visit(file, name string, st *filetree.Stat) error {
	l.parts = append(l.parts, sumPart{[]string{"entry", name}, file, st})
	if st.Links == nil {
		return nil
	}
	if first, ok := l.links[st.Links]; ok {
		l.add("link", first)
	} else {
		l.links[st.Links] = name
	}
	return nil
}

func (l *sumList) add(texts ...string) { l.parts = append(l.parts, sumPart{texts: texts}) }

// sum adds all parts to a hash. The files are read on all cores.
func (l *sumList) sum(ctx context.Context, to hash.Hash) error {
	digests := make([]digest.Digest, len(l.parts))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for i, p := range l.parts {
		if p.stat == nil {
			continue
		}
		group.Go(func() (err error) {
			digests[i], err = l.file(ctx, p)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, p := range l.parts {
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
func (l *sumList) file(ctx context.Context, p sumPart) (digest.Digest, error) {
	l.mu.Lock()
	d, ok := l.known[p.file]
	l.mu.Unlock()
	if ok {
		return d, nil
	}
	sum := digest.SHA256.Digester()
	h := sum.Hash()
	addParts(h, fmt.Sprintf("%o %d %d %d", p.stat.Mode, p.stat.UID, p.stat.GID, p.stat.Rdev))
	xattrs, err := l.tree.Xattrs(p.file)
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
		if err := l.content(ctx, h, p.file); err != nil {
			return "", err
		}
	}
	d = sum.Digest()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[p.file] = d
	return d, nil
}

func (l *sumList) content(ctx context.Context, h hash.Hash, name string) (err error) {
	f, err := l.tree.Open(name)
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
