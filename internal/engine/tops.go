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
	// steps are how many vertices run a process.
	steps int
}

// topsOf looks at who uses each tree. opened says that the images' are opened.
func topsOf(g *graph.Graph, opened bool) tops {
	t := tops{changed: map[graph.Edge]bool{}, read: map[graph.Edge]bool{}}
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
	change := func(i int) {
		if i != graph.None && i < len(v.Inputs) {
			t.changed[*v.Inputs[i]] = true
		}
	}
	switch op := v.Op.(type) {
	case *graph.Merge:
		// It is nothing by itself: layers of an image need no tree.
		if e := (graph.Edge{Vertex: v}); !t.changed[e] && !t.read[e] {
			return
		}
		for i := range v.Inputs {
			change(i)
		}
	case *graph.Exec:
		t.steps++
		for _, m := range op.Mounts {
			if !readOnly(m) {
				change(m.Input)
			}
		}
	case *graph.File:
		for _, a := range op.Actions {
			change(a.Input)
		}
	}
	for _, in := range v.Inputs {
		t.read[*in] = true
	}
}

// hints are those for the top layer of the tree of e, which is on below. A tree of
// several layers is made again for who reads it.
func (t *tops) hints(e graph.Edge, below tree) []rootfs.Hint {
	if t.changed[e] || t.read[e] && len(below) > 0 || !isSource(e.Vertex) && !t.last(e.Vertex) {
		return nil
	}
	return []rootfs.Hint{rootfs.Top}
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
