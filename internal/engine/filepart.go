package engine

import (
	"context"
	"slices"

	"github.com/org/kaniko-multiarch/internal/fileop"
	"github.com/org/kaniko-multiarch/internal/filetree"
	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// workOn opens a tree to write to that has at least what the actions touch of
// base.
func (r *fileRun) workOn(ctx context.Context, base tree) (rootfs.Work, error) {
	s := r.stages[r.vertex]
	parter, ok := s.parts()
	if !r.parts || !ok || len(base) == 0 {
		return r.work(ctx, s.store, base)
	}
	layers, err := r.layers(ctx, s.store, base)
	if err != nil {
		return nil, err
	}
	files, err := parter.List(ctx, layers)
	if err != nil {
		return nil, err
	}
	names, ok, err := r.touched(ctx, files)
	if err != nil {
		return nil, err
	}
	if !ok {
		return s.store.Work(ctx, layers)
	}
	return parter.WorkPart(ctx, layers, names)
}

// touched are the names in base that the actions may look at or replace; without
// ok that may be any.
func (r *fileRun) touched(ctx context.Context, base filetree.Tree) (names []string, ok bool, err error) {
	for _, a := range r.op.Actions {
		var src filetree.Tree
		if _, ok := a.Do.(*graph.Copy); ok {
			if a.Source >= len(r.vertex.Inputs) {
				return nil, false, nil
			}
			dir, err := r.dir(ctx, a.Source)
			if err != nil {
				return nil, false, err
			}
			src = filetree.Dir(dir)
		}
		more, ok, err := fileop.Touches(ctx, base, src, a.Do)
		if !ok || err != nil {
			return nil, false, err
		}
		names = append(names, more...)
	}
	return names, true, nil
}

// readsParts reports whether an input is of a stage that can be made in part.
func (b *build) readsParts(v *graph.Vertex) bool {
	return slices.ContainsFunc(v.Inputs, func(in *graph.Edge) bool {
		_, ok := b.stages[in.Vertex].parts()
		return ok
	})
}

// viewOf opens an input with at least what the actions read of it.
func (r *fileRun) viewOf(ctx context.Context, i int) (rootfs.View, error) {
	s, from := r.stageOf(r.vertex, i), r.build.input(r.vertex, i)
	if v, err := r.take(ctx, i); v != nil || err != nil {
		return v, err
	}
	parter, ok := s.parts()
	if !r.parts || !ok || len(from) == 0 {
		return r.view(ctx, s.store, from)
	}
	layers, err := r.layers(ctx, s.store, from)
	if err != nil {
		return nil, err
	}
	files, err := parter.List(ctx, layers)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, a := range r.op.Actions {
		names = append(names, fileop.OwnerNames(files, owner(a.Do))...)
		c, ok := a.Do.(*graph.Copy)
		if !ok || a.Source != i {
			continue
		}
		more, err := fileop.Reads(ctx, files, c)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	return parter.ViewPart(ctx, layers, names)
}
