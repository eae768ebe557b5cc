package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/org/kaniko-multiarch/internal/fileop"
	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/progress"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// fileRun is one File vertex while it runs.
type fileRun struct {
	*build
	vertex *graph.Vertex
	op     *graph.File
	// parts says that parts of trees will do where stages have them.
	parts bool
	// inputs are the views of the vertex's inputs, opened when first read; spare are
	// those whose files may be taken.
	inputs map[int]rootfs.View
	spare  map[int]bool
	// works are the trees of the actions; an action that continues another
	// takes its tree.
	works []rootfs.Work
	bases []tree
}

// file does the actions on a part of the tree where that may be enough, or on all
// of it. What is wrong with them is for the whole tree to say.
func (b *build) file(ctx context.Context, v *graph.Vertex, op *graph.File) ([]tree, error) {
	if _, ok := b.stages[v].parts(); ok || b.readsParts(v) {
		if out, err := b.fileOn(ctx, v, op, true); err == nil || context.Cause(ctx) != nil {
			return out, err
		}
	}
	return b.fileOn(ctx, v, op, false)
}

func (b *build) fileOn(ctx context.Context, v *graph.Vertex, op *graph.File, parts bool) (_ []tree, err error) {
	r := &fileRun{build: b, vertex: v, op: op, parts: parts, inputs: map[int]rootfs.View{}, spare: map[int]bool{}}
	defer func() { err = errors.Join(err, r.release()) }()
	outputs := map[int]int{}
	for i, a := range op.Actions {
		if err := r.begin(ctx, a); err != nil {
			return nil, err
		}
		if err := r.apply(ctx, a); err != nil {
			return nil, err
		}
		if a.Output != graph.None {
			outputs[a.Output] = i
		}
	}
	out := make([]tree, len(outputs))
	for n := range out {
		i, ok := outputs[n]
		if !ok || r.works[i] == nil {
			return nil, fmt.Errorf("output %d of a file operation has no tree of its own", n)
		}
		w := r.works[i]
		r.works[i] = nil
		if out[n], err = b.commit(ctx, w, r.bases[i], graph.Edge{Vertex: v, Output: n}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// begin gives the action the tree that it changes.
func (r *fileRun) begin(ctx context.Context, a graph.Action) error {
	n := len(r.vertex.Inputs)
	if a.Input >= n {
		before := a.Input - n
		w := r.works[before]
		if w == nil {
			return fmt.Errorf("two actions continue action %d, which is not supported", before)
		}
		r.works[before] = nil
		r.works = append(r.works, w)
		r.bases = append(r.bases, r.bases[before])
		return nil
	}
	base := r.build.input(r.vertex, a.Input)
	w, err := r.workOn(ctx, base)
	if err != nil {
		return err
	}
	r.works = append(r.works, w)
	r.bases = append(r.bases, base)
	return nil
}

// dir is where the files of an input or of an earlier action are.
func (r *fileRun) dir(ctx context.Context, i int) (string, error) {
	n := len(r.vertex.Inputs)
	if i >= n {
		w := r.works[i-n]
		if w == nil {
			return "", fmt.Errorf("action %d was changed since, which is not supported", i-n)
		}
		return w.Path(), nil
	}
	if v, ok := r.inputs[i]; ok {
		return v.Path(), nil
	}
	v, err := r.viewOf(ctx, i)
	if err != nil {
		return "", err
	}
	r.inputs[i] = v
	return v.Path(), nil
}

func (r *fileRun) apply(ctx context.Context, a graph.Action) error {
	dst := r.works[len(r.works)-1].Path()
	tree := func(i int) (string, error) { return r.dir(ctx, i) }
	var src fileop.Source
	if _, ok := a.Do.(*graph.Copy); ok {
		var err error
		if src.Dir, err = r.dir(ctx, a.Source); err != nil {
			return err
		}
		src.Spare = r.spare[a.Source]
	}
	return fileop.Apply(ctx, dst, src, a.Do, tree, func(text string) {
		r.Progress.Warn(progress.Warning{Text: fmt.Sprintf("%s: %s", r.vertex.Name, text)})
	})
}

// release ends what is open: all views, and the works of a failed run.
func (r *fileRun) release() error {
	var errs []error
	for _, v := range r.inputs {
		errs = append(errs, v.Release())
	}
	for _, w := range r.works {
		if w != nil {
			errs = append(errs, w.Discard())
		}
	}
	return errors.Join(errs...)
}
