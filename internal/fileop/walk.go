package fileop

import (
	"context"
	"fmt"
	"path"

	"github.com/moby/patternmatcher"

	"github.com/org/kaniko-multiarch/internal/filetree"
	"github.com/org/kaniko-multiarch/internal/graph"
)

// source is one of the things that a Copy copies.
type source struct {
	// name is as the copier gets it, file where that leads.
	name, file string
	stat       *filetree.Stat
}

// findSources finds what c.Src stands for in a tree. The error is a
// *NotFoundError when something does not exist.
func findSources(tree filetree.Tree, c *graph.Copy) ([]source, error) {
	from := cleanPath(c.Src)
	names := []string{from}
	if c.Wildcard {
		var err error
		names, err = filetree.Glob(tree, from, c.FollowSymlink)
		if isMissing(err) || err == nil && len(names) == 0 && !c.AllowEmpty {
			return nil, &NotFoundError{Path: path.Clean(from)}
		}
		if err != nil {
			return nil, err
		}
	}
	find := filetree.ResolveParent
	if c.FollowSymlink {
		find = filetree.Resolve
	}
	out := make([]source, len(names))
	for i, name := range names {
		file, err := find(tree, path.Join("/", name))
		var st *filetree.Stat
		if err == nil {
			st, err = tree.Lstat(file)
		}
		if isMissing(err) {
			return nil, &NotFoundError{Path: newRequired(c).first(path.Join("/", name))}
		}
		if err != nil {
			return nil, fmt.Errorf("looking at %s: %w", name, err)
		}
		out[i] = source{name, file, st}
	}
	return out, nil
}

// sourceWalk goes through one source as the copier does, without a file's
// content.
type sourceWalk struct {
	ctx              context.Context
	tree             filetree.Tree
	include, exclude *patternmatcher.PatternMatcher
	// visit gets all that is copied, a directory before what is in it. Names are
	// relative to the source, whose own is "".
	visit func(file, name string, st *filetree.Stat) error
	// enter, if set, says whether to go into a directory, copied or not.
	enter func(name string) (bool, error)
	// pending are directories of which nothing was included yet.
	pending []pendingDir
}

type pendingDir struct {
	file, name string
	stat       *filetree.Stat
}

// matches are what the patterns said about the directory above.
type matches struct{ include, exclude patternmatcher.MatchInfo }

func newSourceWalk(ctx context.Context, tree filetree.Tree, c *graph.Copy) (_ *sourceWalk, err error) {
	w := &sourceWalk{ctx: ctx, tree: tree}
	if len(c.Include) > 0 {
		if w.include, err = patternmatcher.New(c.Include); err != nil {
			return nil, fmt.Errorf("patterns %q: %w", c.Include, err)
		}
	}
	if len(c.Exclude) > 0 {
		if w.exclude, err = patternmatcher.New(c.Exclude); err != nil {
			return nil, fmt.Errorf("patterns %q: %w", c.Exclude, err)
		}
	}
	return w, nil
}

func (w *sourceWalk) walk(s source) error { return w.one(s.file, "", matches{}) }

func (w *sourceWalk) one(file, name string, above matches) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	included, excluded, here, err := w.matches(name, above)
	if err != nil {
		return err
	}
	st, err := w.tree.Lstat(file)
	if err != nil {
		return err
	}
	isDir := st.IsDir()
	if included {
		err = w.entry(file, name, st)
	}
	// No pattern takes anything in an excluded directory back.
	lost := excluded && !w.exclude.Exclusions()
	if err != nil || !isDir || lost {
		return err
	}
	if w.enter != nil {
		if ok, err := w.enter(name); !ok || err != nil {
			return err
		}
	}
	if !included {
		depth := len(w.pending)
		w.pending = append(w.pending, pendingDir{file, name, st})
		defer func() { w.pending = w.pending[:min(depth, len(w.pending))] }()
	}
	list, err := w.tree.ReadDir(file)
	if err != nil {
		return err
	}
	for _, base := range list {
		if err := w.one(path.Join(file, base), path.Join(name, base), here); err != nil {
			return err
		}
	}
	return nil
}

func (w *sourceWalk) matches(name string, above matches) (included, excluded bool, here matches, err error) {
	if name == "" {
		return true, false, here, nil
	}
	included = true
	if w.include != nil {
		if included, here.include, err = w.include.MatchesUsingParentResults(name, above.include); err != nil {
			return false, false, here, err
		}
	}
	if w.exclude != nil {
		if excluded, here.exclude, err = w.exclude.MatchesUsingParentResults(name, above.exclude); err != nil {
			return false, false, here, err
		}
	}
	return included && !excluded, excluded, here, nil
}

// entry visits a file, after the directories above it that only it makes part of
// the copy.
func (w *sourceWalk) entry(file, name string, st *filetree.Stat) error {
	for _, dir := range w.pending {
		if err := w.visit(dir.file, dir.name, dir.stat); err != nil {
			return err
		}
	}
	w.pending = w.pending[:0]
	return w.visit(file, name, st)
}
