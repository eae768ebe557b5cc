package inplace

import (
	"context"
	"slices"

	"golang.org/x/sys/unix"
)

// tree is a directory that shows some layers. It is mutable and has one owner
// at a time, or any number of readers.
type tree struct {
	index
	dir string
	// twins are groups of names that are one file now. No two groups share a
	// name.
	twins [][]string
	// newest is no older than any ctime that the index has.
	newest unix.Timespec

	// disturbed says that another step may have changed a tree in use, or one that
	// has a layer which is nowhere else. It is guarded by Store.settled.
	disturbed bool

	// What follows is guarded by Store.mu.

	layers []*change
	use    use
	// part says that only wanted names of the layers are made.
	part bool
	// readers counts those that have a view.
	readers int
	// holders counts those that read the files of a layer that is pinned, or was.
	holders int
	// ready is closed when the tree shows its layers, or failed to.
	ready  chan struct{}
	failed error
}

// pinned is the layer whose files are in this tree only, if any. Store.mu is
// locked.
func (t *tree) pinned() *change {
	if n := len(t.layers); n > 0 && t.layers[n-1].pin != nil {
		return t.layers[n-1]
	}
	return nil
}

type use int

const (
	idle use = iota
	writing
	reading
)

func (t *tree) saw(e *entry, st *unix.Stat_t) {
	e.is = *st
	if later(st.Ctim, t.newest) {
		t.newest = st.Ctim
	}
}

// missing is what a tree that was taken lacks.
type missing struct {
	// upper are layers that the index does not have.
	upper []*change
	// names are what the tree is to have, if it is a part.
	names []string
	// rest says that the tree was a part and is to be whole.
	rest bool
}

// show makes the tree what its layers say.
//
// In a tree to write to, all names are files of their own: overlayfs would copy
// a file of a lower layer before it is written to, and leave its other names
// alone. In one to read from, the links are those that the layers have.
func (t *tree) show(ctx context.Context, lacks missing, linked bool) error {
	seen := t.separate(linked)
	for _, c := range lacks.upper {
		t.apply(c)
	}
	for _, name := range lacks.names {
		t.root.want(name)
	}
	groups := t.groups(linked)
	for _, g := range groups {
		seen = append(seen, t.join(g)...)
	}
	if len(lacks.upper)+len(lacks.names)+len(t.stale) > 0 || lacks.rest || !t.root.exists() {
		if err := t.realise(ctx, linked); err != nil {
			return err
		}
	}
	t.twins = groups
	return t.look(seen)
}

// makes reports whether the tree is to have e.
func (t *tree) makes(e *entry) bool { return !t.part || e.wanted || e.exists() }

// separate marks the names that must not be what they are linked to now. It
// returns the names whose inodes change by that.
func (t *tree) separate(linked bool) (changed []string) {
	for _, g := range t.twins {
		stays := t.stays(g)
		first := t.root.lookup(stays)
		for _, name := range g {
			if name == stays || linked && t.root.lookup(name).node == first.node {
				continue
			}
			t.unmake(name)
		}
		changed = append(changed, g...)
	}
	return changed
}

// stays is the name of a group whose file is not made again: one whose content is
// nowhere else, if there is such.
func (t *tree) stays(group []string) string {
	for _, name := range group {
		if e := t.root.lookup(name); e != nil && e.from.tar == nil {
			return name
		}
	}
	return group[0]
}

// groups returns the names that should be linked to each other, each group and
// all groups sorted.
func (t *tree) groups(linked bool) [][]string {
	if !linked {
		return nil
	}
	names := map[any][]string{}
	t.walk(func(name string, e *entry) {
		if e.children == nil && e.node.Links > 1 && t.makes(e) {
			names[e.node] = append(names[e.node], name)
		}
	})
	var groups [][]string
	for _, g := range names {
		if len(g) > 1 {
			slices.Sort(g)
			groups = append(groups, g)
		}
	}
	slices.SortFunc(groups, slices.Compare)
	return groups
}

// join marks the names of a group that exist but are not linked to the first of
// them. It returns the names whose inodes change.
func (t *tree) join(group []string) []string {
	var first *entry
	for _, name := range group {
		e := t.root.lookup(name)
		switch {
		case !e.exists():
		case first == nil:
			first = e
		case e.is.Ino != first.is.Ino || e.is.Dev != first.is.Dev:
			t.unmake(name)
		}
	}
	return group
}

// look updates what the index knows of files that exist.
func (t *tree) look(names []string) error {
	for _, name := range names {
		e := t.root.lookup(name)
		if e == nil {
			continue
		}
		var st unix.Stat_t
		if err := lstat(t.path(name), &st); err != nil {
			return err
		}
		t.saw(e, &st)
	}
	return nil
}
