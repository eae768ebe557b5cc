package fileop

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"

	cfs "github.com/containerd/continuity/fs"
	"github.com/moby/patternmatcher"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/layer"
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

// Copy returns the digest of all that Copy would read of the tree at src. Trees
// with equal digests give the same copies, times aside. The error is a
// *NotFoundError when the source does not exist.
func (s *Sums) Copy(ctx context.Context, src string, c *graph.Copy) (digest.Digest, error) {
	job := copyJob{Copy: c, src: filepath.Clean(src)}
	names, err := job.sources()
	if err != nil {
		return "", err
	}
	sum := digest.SHA256.Digester()
	for _, name := range names {
		if _, err := job.stat(name); isMissing(err) {
			return "", &NotFoundError{Path: name}
		} else if err != nil {
			return "", inTree(err, job.src)
		}
		w, err := s.walker(ctx, job.src, sum.Hash(), c.Include, c.Exclude)
		if err != nil {
			return "", err
		}
		from, err := job.root(name)
		if err != nil {
			return "", inTree(err, job.src)
		}
		w.add("source", path.Clean(name))
		if err := w.walk(from, "", matches{}); err != nil {
			return "", fmt.Errorf("hashing %s: %w", name, inTree(err, job.src))
		}
	}
	return sum.Digest(), nil
}

// Tree returns the digest of name, symbolic links resolved, and all below it in
// the tree at root.
func (s *Sums) Tree(ctx context.Context, root, name string) (digest.Digest, error) {
	return s.Copy(ctx, root, &graph.Copy{Src: name, FollowSymlink: true})
}

// root is where a source is, as the copier finds it.
func (j *copyJob) root(name string) (string, error) {
	name = filepath.Join("/", name)
	if j.FollowSymlink || name == "/" {
		return cfs.RootPath(j.src, name)
	}
	dir, err := cfs.RootPath(j.src, filepath.Dir(name))
	return filepath.Join(dir, filepath.Base(name)), err
}

// sumWalk goes through one source as the copier does.
type sumWalk struct {
	*Sums
	ctx              context.Context
	tree             string
	out              hash.Hash
	include, exclude *patternmatcher.PatternMatcher
	// pending are directories of which nothing was included yet.
	pending []pendingDir
	// links are the first names of files that have several.
	links map[[2]uint64]string
}

type pendingDir struct{ file, name string }

// matches are what the patterns said about the directory above.
type matches struct{ include, exclude patternmatcher.MatchInfo }

func (s *Sums) walker(ctx context.Context, tree string, out hash.Hash, include, exclude []string) (_ *sumWalk, err error) {
	w := &sumWalk{Sums: s, ctx: ctx, tree: tree, out: out, links: map[[2]uint64]string{}}
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
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: file, Err: err}
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !included && !isDir {
		return nil
	}
	if included {
		if err := w.entry(file, name, &st); err != nil {
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
	list, err := os.ReadDir(file)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := w.walk(filepath.Join(file, e.Name()), path.Join(name, e.Name()), here); err != nil {
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
func (w *sumWalk) entry(file, name string, st *unix.Stat_t) error {
	for _, dir := range w.pending {
		var above unix.Stat_t
		if err := unix.Lstat(dir.file, &above); err != nil {
			return &os.PathError{Op: "lstat", Path: dir.file, Err: err}
		}
		if err := w.one(dir.file, dir.name, &above); err != nil {
			return err
		}
	}
	w.pending = w.pending[:0]
	return w.one(file, name, st)
}

func (w *sumWalk) one(file, name string, st *unix.Stat_t) error {
	d, err := w.file(file, st)
	if err != nil {
		return err
	}
	w.add("entry", name, d.String())
	if st.Mode&unix.S_IFMT == unix.S_IFDIR || st.Nlink < 2 {
		return nil
	}
	id := [2]uint64{uint64(st.Dev), st.Ino}
	if first, ok := w.links[id]; ok {
		w.add("link", first)
	} else {
		w.links[id] = name
	}
	return nil
}

// add frames what it adds.
func (w *sumWalk) add(parts ...string) { addParts(w.out, parts...) }

func addParts(h hash.Hash, parts ...string) {
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write([]byte(p))
	}
}

// file is the digest of one file: of all that a copy keeps of it.
func (w *sumWalk) file(file string, st *unix.Stat_t) (digest.Digest, error) {
	key := file[len(w.tree):]
	w.mu.Lock()
	d, ok := w.known[key]
	w.mu.Unlock()
	if ok {
		return d, nil
	}
	sum := digest.SHA256.Digester()
	h := sum.Hash()
	kind := st.Mode & unix.S_IFMT
	rdev := uint64(0)
	if kind == unix.S_IFCHR || kind == unix.S_IFBLK {
		rdev = uint64(st.Rdev)
	}
	addParts(h, fmt.Sprintf("%o %d %d %d", st.Mode, st.Uid, st.Gid, rdev))
	xattrs, err := layer.Xattrs(file, nil)
	if err != nil {
		return "", err
	}
	names := make([]string, 0, len(xattrs))
	for name := range xattrs {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		addParts(h, "xattr", name, xattrs[name])
	}
	switch kind {
	case unix.S_IFLNK:
		target, err := os.Readlink(file)
		if err != nil {
			return "", err
		}
		addParts(h, "target", target)
	case unix.S_IFREG:
		addParts(h, "content")
		if err := readAll(w.ctx, h, file); err != nil {
			return "", err
		}
	}
	d = sum.Digest()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known[key] = d
	return d, nil
}

func readAll(ctx context.Context, h hash.Hash, name string) (err error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, 256<<10)
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
