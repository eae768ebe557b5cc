package fileop

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/org/kaniko-multiarch/internal/filetree"
	"github.com/org/kaniko-multiarch/internal/graph"
)

// Reads returns the names in a tree that Copy would read of its source: all that
// is copied, the directories above, and links with what they lead to. A tree of
// these names alone gives the same copy. Directories without a match of
// c.Include are not among them. Names are absolute, clean and sorted, without
// "/". The error is a *NotFoundError, as Copy's, when the source does not exist.
func Reads(ctx context.Context, tree filetree.Tree, c *graph.Copy) ([]string, error) {
	way := &trail{Tree: tree}
	sources, err := findSources(way, c)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, from := range sources {
		way.listing = false
		way.look(from.file)
		if c.FollowSymlink || c.Unpack {
			// Even a link that is not followed may lead to an archive.
			way.find(path.Join("/", from.name))
		}
		walk, err := newSourceWalk(ctx, tree, c)
		if err != nil {
			return nil, err
		}
		walk.visit = func(file, _ string, _ *filetree.Stat) error {
			names = append(names, file)
			return nil
		}
		if err := walk.walk(from); err != nil {
			return nil, fmt.Errorf("listing what is read of %s: %w", from.name, err)
		}
	}
	return way.sorted(names)
}

// Touches returns the names in a tree that a change to it may look at or replace,
// as Reads does. dst is the tree before the change, src what a Copy copies from.
// ok is false when only the whole tree will do. When the change fails for a name
// in dst, it fails so with these names alone, and that is no error here; a
// source that does not exist is a *NotFoundError.
func Touches(ctx context.Context, dst, src filetree.Tree, change graph.FileChange) (names []string, ok bool, err error) {
	way := &trail{Tree: dst}
	switch do := change.(type) {
	case *graph.Copy:
		return copyTouches(ctx, way, src, do)
	case *graph.Mkdir:
		way.find(do.Path)
	case *graph.Mkfile:
		way.find(path.Join("/", do.Path))
	case *graph.Symlink:
		way.find(path.Join("/", do.Path))
	default:
		return nil, false, nil
	}
	names, err = way.sorted(nil)
	return names, err == nil, err
}

func copyTouches(ctx context.Context, way *trail, src filetree.Tree, c *graph.Copy) (names []string, ok bool, err error) {
	if c.Replace || c.Unpack {
		return nil, false, nil
	}
	sources, err := findSources(src, c)
	if err != nil {
		return nil, false, err
	}
	at, there := way.find(path.Join("/", c.Dest))
	if (there == nil || !there.IsDir()) && !namesDir(c.Dest) && len(sources) > 1 && slices.ContainsFunc(sources, source.isLink) {
		// The copy of the link is the destination of the sources behind it.
		return nil, false, nil
	}
	for _, from := range sources {
		if there == nil {
			break
		}
		landing := at
		if isDir := from.stat.IsDir(); isDir && !c.ContentsOnly || !isDir && there.IsDir() {
			landing = path.Join(at, path.Base(from.name))
		}
		if err := landings(ctx, way, landing, src, c, from); err != nil {
			return nil, false, fmt.Errorf("listing what %s replaces: %w", from.name, err)
		}
	}
	names, err = way.sorted(nil)
	return names, err == nil, err
}

// landings looks at what stands where a source's files will. Links there are
// replaced, not followed.
func landings(ctx context.Context, way *trail, landing string, src filetree.Tree, c *graph.Copy, from source) error {
	walk, err := newSourceWalk(ctx, src, c)
	if err != nil {
		return err
	}
	way.look(landing)
	walk.visit = func(_, name string, _ *filetree.Stat) error {
		// The directories above are real and were visited.
		way.lstat(path.Join(landing, name))
		return way.err
	}
	walk.enter = func(name string) (bool, error) {
		at := path.Join(landing, name)
		st, err := way.Tree.Lstat(at)
		switch {
		case isMissing(err):
			return false, nil
		case err == nil && !st.IsDir():
			// It is in the way, and what it leads to says how the copier fails.
			way.find(at)
			return false, nil
		}
		return err == nil, err
	}
	return walk.walk(from)
}

func (s source) isLink() bool { return s.stat.IsLink() }

// namesDir reports whether a destination says that it is a directory.
func namesDir(dest string) bool {
	clean := cleanPath(dest)
	return clean == "/" || strings.HasSuffix(clean, "/") || strings.HasSuffix(clean, "/.")
}

// OwnerNames returns the names in a tree that ResolveOwner would read of it for o,
// as Reads does.
func OwnerNames(tree filetree.Tree, o *graph.Owner) []string {
	way := &trail{Tree: tree}
	if o != nil && o.User != nil && o.User.Name != "" {
		way.find(passwdFile)
	}
	if o != nil && o.Group != nil && o.Group.Name != "" {
		way.find(groupFile)
	}
	// A file that cannot be looked at is ResolveOwner's error.
	names, _ := way.sorted(nil)
	return names
}

// trail is a tree that remembers which files were looked at on the way to a
// name, until a directory is read: what is in one is not on the way to it.
type trail struct {
	filetree.Tree
	names []string
	// listing is set once a directory was read.
	listing bool
	// err is the first error other than that of a missing file.
	err error
}

// Lstat implements filetree.Tree. It goes through links on its own, so that
// their names are seen, too.
func (t *trail) Lstat(name string) (*filetree.Stat, error) {
	if t.listing {
		return t.Tree.Lstat(name)
	}
	return t.follow(name)
}

// ReadDir implements filetree.Tree.
func (t *trail) ReadDir(name string) ([]string, error) {
	t.listing = true
	return t.Tree.ReadDir(name)
}

func (t *trail) follow(name string) (*filetree.Stat, error) {
	st, err := filetree.Follow(name, t.lstat)
	if t.err != nil {
		return nil, t.err
	}
	return st, err
}

func (t *trail) lstat(real string) (*filetree.Stat, bool) {
	st, err := t.Tree.Lstat(real)
	switch {
	case err == nil:
		t.names = append(t.names, real)
	case !isMissing(err) && t.err == nil:
		t.err = err
	}
	return st, err == nil
}

// look remembers a name whose directory is real, with all above it.
func (t *trail) look(name string) *filetree.Stat {
	st, _ := t.follow(name)
	return st
}

// find is where a name leads to; nil is what is not there, or in a way that is
// none.
func (t *trail) find(name string) (string, *filetree.Stat) {
	at, err := filetree.Resolve(t, name)
	if err != nil {
		return "", nil
	}
	return at, t.look(at)
}

// sorted returns all names, others too.
func (t *trail) sorted(others []string) ([]string, error) {
	all := slices.Concat(t.names, others)
	slices.Sort(all)
	all = slices.Compact(all)
	return slices.DeleteFunc(all, func(name string) bool { return name == "/" }), t.err
}
