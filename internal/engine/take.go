package engine

import (
	"context"
	"slices"

	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// take opens an input whose files one action of this vertex copies, and nothing
// else in the build needs: they can be moved. It returns nil for others.
func (r *fileRun) take(ctx context.Context, i int) (rootfs.View, error) {
	taker, ok := r.stageOf(r.vertex, i).store.(rootfs.Taker)
	if !ok || !r.spareable(i) {
		return nil, nil
	}
	t, store, files := r.tasks[r.vertex.Inputs[i].Vertex], r.stageOf(r.vertex, i).store, r.build.input(r.vertex, i)
	layers, err := r.layers(ctx, store, files)
	if err == nil && t.taken {
		// This is not the first try: the files have to come again.
		r.remake(files, layers)
		layers, err = r.layers(ctx, store, files)
	}
	if err != nil {
		return nil, err
	}
	v, err := taker.Take(ctx, layers[0])
	t.taken = v != nil
	r.spare[i] = t.taken
	return v, err
}

// spareable reports whether input i is a source that only one copy of r reads.
func (r *fileRun) spareable(i int) bool {
	if i == graph.None || !isSource(r.vertex.Inputs[i].Vertex) {
		return false
	}
	from := r.vertex.Inputs[i].Vertex
	if r.exported[from] || len(r.users[from]) != 1 {
		return false
	}
	readers := 0
	for _, a := range r.op.Actions {
		if _, ok := a.Do.(*graph.Copy); ok && a.Source == i {
			readers++
		}
		if a.Input == i || slices.Contains(lookups(owner(a.Do)), i) {
			return false
		}
	}
	return readers == 1
}
