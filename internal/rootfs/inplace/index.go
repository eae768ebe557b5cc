package inplace

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/layer"
)

// entry is one name in a tree: what the layers say should be there, and what is.
type entry struct {
	node *layer.Node
	from *change
	// children is nil for what is no directory.
	children map[string]*entry
	// is is what was found after the file was made; its inode is 0 before.
	is unix.Stat_t
	// xattrs are those that the file got. The file system may refuse some.
	xattrs map[string]string
	// dirty says of a directory that its attributes are to be set.
	dirty bool
	// wanted says that a tree which is only a part has the name.
	wanted bool
}

func (e *entry) exists() bool { return e.is.Ino != 0 }

func (e *entry) lookup(name string) *entry {
	if name == "." {
		return e
	}
	for step := range strings.SplitSeq(name, "/") {
		if e == nil {
			return nil
		}
		e = e.children[step]
	}
	return e
}

// want marks a name, which begins with "/", and what is above it.
func (e *entry) want(name string) {
	e.wanted = true
	for step := range strings.SplitSeq(strings.TrimPrefix(name, "/"), "/") {
		if e = e.children[step]; e == nil {
			return
		}
		e.wanted = true
	}
}

// index is the entries of a tree.
type index struct {
	root *entry
	// stale are the paths of files that the index has no more.
	stale []string
}

func newIndex() index {
	return index{root: &entry{node: emptyRoot(), children: map[string]*entry{}}}
}

// apply puts a layer on top.
func (x *index) apply(c *change) {
	x.directory(x.root, ".", c.root, c)
	for name, node := range c.sockets {
		dir, base := path.Dir(name), path.Base(name)
		if e := x.root.lookup(dir); e != nil && e.children != nil {
			x.put(e, dir, base, node, c)
		}
	}
}

func (x *index) directory(e *entry, name string, n *layer.Node, c *change) {
	e.node, e.from, e.dirty = n, c, true
	if n.Opaque {
		for base := range e.children {
			x.drop(e, name, base)
		}
	}
	for _, base := range n.Whiteouts {
		x.drop(e, name, base)
	}
	for base, child := range n.Children {
		x.put(e, name, base, child, c)
	}
}

func (x *index) put(e *entry, name, base string, n *layer.Node, c *change) {
	old := e.children[base]
	if n.IsDir() && old != nil && old.children != nil {
		x.directory(old, path.Join(name, base), n, c)
		return
	}
	x.drop(e, name, base)
	e.dirty = true
	made := &entry{node: n, from: c}
	if n.IsDir() {
		made.children = make(map[string]*entry, len(n.Children))
		x.directory(made, path.Join(name, base), n, c)
	}
	e.children[base] = made
}

func (x *index) drop(e *entry, name, base string) {
	old := e.children[base]
	if old == nil {
		return
	}
	delete(e.children, base)
	e.dirty = true
	if old.exists() {
		x.stale = append(x.stale, path.Join(name, base))
	}
}

// unmake marks a file, which is no directory, to be made again.
func (x *index) unmake(name string) {
	e := x.root.lookup(name)
	if e == nil || !e.exists() {
		return
	}
	x.root.lookup(path.Dir(name)).dirty = true
	e.is = unix.Stat_t{}
	x.stale = append(x.stale, name)
}
