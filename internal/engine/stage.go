package engine

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/org/kaniko-multiarch/internal/filetree"
	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// stage is vertices whose trees are made of each other: what a FROM and the lines
// under it become.
type stage struct {
	vertices []*graph.Vertex
	// runs says that a process works on one of the trees.
	runs bool
	// onImage says that the lowest of the trees is an image's.
	onImage bool
	store   rootfs.Store
}

// parts returns the store of a stage of which parts are enough: of an image that
// nothing runs on few files matter, if any.
func (s *stage) parts() (rootfs.Parter, bool) {
	p, ok := s.store.(rootfs.Parter)
	return p, ok && s.onImage && !s.runs
}

// stagesOf finds the stage of each vertex.
func stagesOf(g *graph.Graph, store rootfs.Store) map[*graph.Vertex]*stage {
	stages := make(map[*graph.Vertex]*stage, len(g.Vertices))
	for _, v := range g.Vertices {
		_, runs := v.Op.(*graph.Exec)
		_, onImage := v.Op.(*graph.ImageSource)
		stages[v] = &stage{vertices: []*graph.Vertex{v}, runs: runs, onImage: onImage, store: store}
	}
	for _, v := range g.Vertices {
		for _, below := range changed(v, anyOutput) {
			a, b := stages[v], stages[below.Vertex]
			if a == b {
				continue
			}
			a.vertices = append(a.vertices, b.vertices...)
			a.runs = a.runs || b.runs
			a.onImage = a.onImage || b.onImage
			for _, w := range b.vertices {
				stages[w] = a
			}
		}
	}
	return stages
}

const anyOutput = -1

// changed are the inputs of v whose trees it changes into its output.
func changed(v *graph.Vertex, output int) []*graph.Edge {
	var list []*graph.Edge
	switch op := v.Op.(type) {
	case *graph.Exec:
		for _, m := range op.Mounts {
			if m.Output != graph.None && m.Input != graph.None && (output == anyOutput || m.Output == output) {
				list = append(list, v.Inputs[m.Input])
			}
		}
	case *graph.File:
		for _, a := range op.Actions {
			if a.Input != graph.None && a.Input < len(v.Inputs) {
				list = append(list, v.Inputs[a.Input])
			}
		}
	case *graph.Merge:
		list = v.Inputs
	}
	return list
}

// choose gives the stages of images that nothing runs on to the plain store, once
// the images are known. A layer that another stage unpacks, or an earlier build
// did, is not fetched again for that.
func (b *build) choose() {
	if b.Plain == nil {
		return
	}
	unpacked := map[digest.Digest]bool{}
	chosen := map[*stage]bool{}
	has, _ := b.Store.(interface{ Has(digest.Digest) bool })
	for again := true; again; {
		again = false
		for _, v := range b.graph.Vertices {
			s := b.stages[v]
			if _, ok := v.Op.(*graph.ImageSource); !ok || chosen[s] {
				continue
			}
			diffIDs := b.diffIDs(s)
			there := func(d digest.Digest) bool { return unpacked[d] || has != nil && has.Has(d) }
			if !s.runs && !slices.ContainsFunc(diffIDs, there) {
				continue
			}
			chosen[s], again = true, true
			for _, d := range diffIDs {
				unpacked[d] = true
			}
		}
	}
	for _, s := range b.stages {
		if s.onImage && !chosen[s] {
			s.store = b.Plain
		}
	}
}

// diffIDs are the layers of the images of a stage.
func (b *build) diffIDs(s *stage) (list []digest.Digest) {
	for _, v := range s.vertices {
		if _, ok := v.Op.(*graph.ImageSource); !ok {
			continue
		}
		for _, l := range b.tasks[v].outputs[0] {
			list = append(list, l.base.diffID)
		}
	}
	return list
}

// stageOf is the stage of a vertex's input; graph.None is an empty tree of its
// own.
func (b *build) stageOf(v *graph.Vertex, input int) *stage {
	if input == graph.None {
		return b.stages[v]
	}
	return b.stages[v.Inputs[input].Vertex]
}

// list lists the files of a tree.
func (b *build) list(ctx context.Context, s *stage, from rootfs.Parter, t tree) (filetree.Tree, error) {
	layers, err := b.layers(ctx, s.store, t)
	if err != nil {
		return nil, err
	}
	return from.List(ctx, layers)
}
