package engine

import (
	"context"

	"github.com/org/kaniko-multiarch/internal/graph"
)

// ahead begins with what will be needed: a step that runs probably changes
// something, so what stands on it will run, too, and needs the other trees that
// it is made of. An error here is none: whoever needs the files gets it.
func (b *build) ahead(ctx context.Context, v *graph.Vertex) {
	visited := map[*graph.Vertex]bool{}
	var visit func(v *graph.Vertex)
	visit = func(v *graph.Vertex) {
		for _, user := range b.users[v] {
			if visited[user] {
				continue
			}
			visited[user] = true
			if _, ok := layered(user); ok {
				b.unpackInputs(ctx, user)
			}
			visit(user)
		}
	}
	visit(v)
}

// unpackInputs brings the inputs of a vertex into the store that are there.
func (b *build) unpackInputs(ctx context.Context, v *graph.Vertex) {
	for _, in := range v.Inputs {
		if isSource(in.Vertex) {
			continue
		}
		t, ok := b.finished(in)
		if !ok {
			continue
		}
		b.mu.Lock()
		started := b.begun[*in]
		b.begun[*in] = true
		b.mu.Unlock()
		if started {
			continue
		}
		b.early.Go(func() error {
			_, _ = b.layers(ctx, b.stages[in.Vertex].store, t)
			return nil
		})
	}
}

// finished returns the tree of an edge, if it is there.
func (b *build) finished(e *graph.Edge) (tree, bool) {
	t := b.tasks[e.Vertex]
	select {
	case <-t.done:
	default:
		return nil, false
	}
	if t.outputs == nil {
		return nil, false // nobody needs it
	}
	return t.outputs[e.Output], true
}

// preload copies the contexts that the tasks use, as far as they are not.
func (b *build) preload(tasks []*task) {
	for _, t := range tasks {
		for _, in := range t.vertex.Inputs {
			files, ok := b.finished(in)
			if !ok || !isSource(in.Vertex) {
				continue
			}
			for _, l := range files {
				if l.source != nil {
					b.early.Go(func() error {
						_, _ = l.source.load()
						return nil
					})
				}
			}
		}
	}
}

// usersOf are the vertices that use each vertex.
func usersOf(g *graph.Graph) map[*graph.Vertex][]*graph.Vertex {
	users := map[*graph.Vertex][]*graph.Vertex{}
	for _, v := range g.Vertices {
		for _, in := range v.Inputs {
			users[in.Vertex] = append(users[in.Vertex], v)
		}
	}
	return users
}
