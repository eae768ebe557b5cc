package engine

import (
	"slices"

	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// tops says which trees stay as they were made: a store need not keep their top
// layers twice.
type tops struct {
	// changed are the trees that a work is made of, or that are stacked with
	// others. read are those that anybody opens.
	changed, read map[graph.Edge]bool
	// users are how often each tree is opened, stacked those that merges have.
	users   map[graph.Edge]int
	stacked map[graph.Edge]bool
	// written says whether the layers of a vertex may be written.
	written func(*graph.Vertex) bool
	// steps are how many vertices run a process.
	steps int
}

// topsOf looks at who uses each tree. opened says that the images' are opened.
func topsOf(g *graph.Graph, opened bool, written func(*graph.Vertex) bool) tops {
	t := tops{
		changed: map[graph.Edge]bool{}, read: map[graph.Edge]bool{}, stacked: map[graph.Edge]bool{},
		users: map[graph.Edge]int{}, written: written,
	}
	if opened {
		for _, img := range g.Images {
			if img.Root != nil {
				t.read[*img.Root] = true
			}
		}
	}
	// Users come before what they use.
	for _, v := range slices.Backward(g.Vertices) {
		t.add(v)
	}
	return t
}

func (t *tops) add(v *graph.Vertex) {
	use := func(i int) bool {
		if i < 0 || i >= len(v.Inputs) {
			return false
		}
		t.users[*v.Inputs[i]]++
		return true
	}
	change := func(i int) {
		if use(i) {
			t.changed[*v.Inputs[i]] = true
		}
	}
	switch op := v.Op.(type) {
	case *graph.Merge:
		// It is nothing by itself: layers of an image need no tree.
		if e := (graph.Edge{Vertex: v}); !t.changed[e] && !t.read[e] {
			return
		}
		for i, in := range v.Inputs {
			change(i)
			t.stacked[*in] = true
		}
	case *graph.Exec:
		t.steps++
		for _, m := range op.Mounts {
			if readOnly(m) {
				use(m.Input)
			} else {
				change(m.Input)
			}
		}
	case *graph.File:
		for _, a := range op.Actions {
			change(a.Input)
			use(a.Source)
			for _, i := range lookups(owner(a.Do)) {
				use(i)
			}
		}
	}
	for _, in := range v.Inputs {
		t.read[*in] = true
	}
}

// hints are those of tops, but none when layers were lost by such.
func (b *build) hints(e graph.Edge, below tree) []rootfs.Hint {
	if b.keepAll {
		return nil
	}
	return b.tops.hints(e, below)
}

// hints are those for the top layer of the tree of e, which is on below. A tree of
// several layers is made again for who reads it.
func (t *tops) hints(e graph.Edge, below tree) []rootfs.Hint {
	if t.passing(e) {
		return []rootfs.Hint{rootfs.Passing}
	}
	if t.changed[e] || t.read[e] && len(below) > 0 || !isSource(e.Vertex) && !t.last(e.Vertex) {
		return nil
	}
	return []rootfs.Hint{rootfs.Top}
}

// passing reports whether a tree is that of a stage which is thrown away, and goes
// straight from each step to the next.
func (t *tops) passing(e graph.Edge) bool {
	return !isSource(e.Vertex) && !t.written(e.Vertex) && !t.stacked[e] && (!t.changed[e] || t.users[e] == 1)
}

// last reports whether no process can run after v, or beside it, that could get at
// its files in place. Sources can be made again.
func (t *tops) last(v *graph.Vertex) bool {
	before := map[*graph.Vertex]bool{}
	steps := 0
	var visit func(v *graph.Vertex)
	visit = func(v *graph.Vertex) {
		if before[v] {
			return
		}
		before[v] = true
		if _, ok := v.Op.(*graph.Exec); ok {
			steps++
		}
		for _, in := range v.Inputs {
			visit(in.Vertex)
		}
	}
	visit(v)
	return steps == t.steps
}
