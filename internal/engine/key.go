package engine

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/org/kaniko-multiarch/internal/fileop"
	"github.com/org/kaniko-multiarch/internal/filetree"
	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// cacheVersion is part of every key: raise it when the same vertex makes
// another layer than before.
const cacheVersion = 2

// use is what a vertex takes of one of its inputs: all of it, or only files.
type use struct {
	whole bool
	picks []*graph.Copy
}

// uses says what a vertex takes of each of its inputs.
func uses(v *graph.Vertex) []use {
	list := make([]use, len(v.Inputs))
	switch op := v.Op.(type) {
	case *graph.Exec:
		for _, m := range op.Mounts {
			if m.Input == graph.None {
				continue
			}
			in := &list[m.Input]
			if m.Type == graph.MountBind && m.Output == graph.None && m.Dest != "/" {
				in.picks = append(in.picks, &graph.Copy{Src: m.Selector, FollowSymlink: true})
			} else {
				in.whole = true
			}
		}
	case *graph.File:
		for _, a := range op.Actions {
			whole(list, a.Input)
			if c, ok := a.Do.(*graph.Copy); ok && a.Source >= 0 && a.Source < len(list) {
				list[a.Source].picks = append(list[a.Source].picks, c)
			}
			for _, i := range lookups(owner(a.Do)) {
				whole(list, i)
			}
		}
	}
	for i := range list {
		if len(list[i].picks) == 0 {
			list[i].whole = true
		}
	}
	return list
}

func whole(list []use, i int) {
	if i >= 0 && i < len(list) {
		list[i].whole = true
	}
}

// lookups are the inputs in which the names of an owner are looked up.
func lookups(o *graph.Owner) (inputs []int) {
	if o == nil {
		return nil
	}
	for _, id := range []*graph.Identity{o.User, o.Group} {
		if id != nil && id.Name != "" {
			inputs = append(inputs, id.Input)
		}
	}
	return inputs
}

func owner(do graph.FileChange) *graph.Owner {
	switch do := do.(type) {
	case *graph.Copy:
		return do.Owner
	case *graph.Mkfile:
		return do.Owner
	case *graph.Mkdir:
		return do.Owner
	case *graph.Symlink:
		return do.Owner
	}
	return nil
}

// keyOf is the key of what a vertex does to inputs that are identified by ids.
func (b *build) keyOf(v *graph.Vertex, ids []digest.Digest) (digest.Digest, error) {
	k := struct {
		Version      int
		Platform     *ocispecs.Platform
		Op           graph.Op
		Inputs       []digest.Digest
		Epoch        *int64
		RewriteTimes bool
	}{Version: cacheVersion, Platform: v.Platform, Op: v.Op, Inputs: ids}
	if b.RewriteTimes {
		k.Epoch, k.RewriteTimes = b.Epoch, true
	}
	d, err := hashOf(k)
	if err != nil {
		return "", fmt.Errorf("computing the cache key of %s: %w", v.Name, err)
	}
	return d, nil
}

func hashOf(v any) (digest.Digest, error) {
	sum := digest.SHA256.Digester()
	err := graph.Hash(sum.Hash(), v)
	return sum.Digest(), err
}

// A vertex has up to three keys, which differ in what stands for its inputs:
// how they are made, what they are, or which files of them are used. Kinds keep
// one from being taken for another.
type identity struct {
	Kind   string
	Value  digest.Digest
	Output int
}

func (i identity) digest() (digest.Digest, error) { return hashOf(i) }

// isSource says that a vertex's files are at hand before anything is looked up.
func isSource(v *graph.Vertex) bool {
	switch v.Op.(type) {
	case *graph.LocalSource, *graph.HTTPSource, *graph.GitSource:
		return true
	}
	return false
}

// define computes the definition keys of all vertices once the sources are
// there.
func (b *build) define(ctx context.Context) error {
	if err := b.pickSources(ctx); err != nil {
		return err
	}
	for _, v := range b.graph.Vertices {
		t := b.tasks[v]
		var err error
		switch v.Op.(type) {
		case *graph.LocalSource, *graph.HTTPSource, *graph.GitSource:
			continue // whoever needs it asks for the tree's
		case *graph.ImageSource:
			t.key, err = b.treeID(ctx, t.outputs[0])
		default:
			t.key, err = b.definition(ctx, t)
		}
		if err != nil {
			return err
		}
		t.noCache = v.NoCache
		for _, in := range v.Inputs {
			t.noCache = t.noCache || b.tasks[in.Vertex].noCache
		}
	}
	return nil
}

// pickSources hashes the files that vertices use of sources.
func (b *build) pickSources(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for _, v := range b.graph.Vertices {
		t := b.tasks[v]
		t.uses = uses(v)
		t.picked = make([]digest.Digest, len(v.Inputs))
		for i, in := range v.Inputs {
			if !isSource(in.Vertex) || t.uses[i].whole {
				continue
			}
			group.Go(func() (err error) {
				t.picked[i], err = b.pick(ctx, t, i)
				return err
			})
		}
	}
	return group.Wait()
}

// definition is the key of a vertex by how its inputs are made; empty when one
// has none. Of sources it is what is used.
func (b *build) definition(ctx context.Context, t *task) (digest.Digest, error) {
	if _, ok := layered(t.vertex); !ok {
		if _, ok := t.vertex.Op.(*graph.Merge); !ok {
			return "", nil
		}
	}
	ids := make([]digest.Digest, len(t.vertex.Inputs))
	for i, in := range t.vertex.Inputs {
		id := identity{Kind: "definition", Value: b.tasks[in.Vertex].key, Output: in.Output}
		switch {
		case t.picked[i] != "":
			id = identity{Kind: "files", Value: t.picked[i]}
		case isSource(in.Vertex) && t.uses[i].whole:
			tree, err := b.treeID(ctx, b.input(t.vertex, i))
			if err != nil {
				return "", err
			}
			id = identity{Kind: "tree", Value: tree}
		}
		if id.Value == "" {
			return "", nil
		}
		var err error
		if ids[i], err = id.digest(); err != nil {
			return "", err
		}
	}
	return b.keyOf(t.vertex, ids)
}

// result is the key of a vertex by what its inputs are. With files, the used
// files stand for an input of which not all is used; it is empty when those are
// not known.
func (b *build) result(ctx context.Context, t *task, files bool) (digest.Digest, error) {
	ids := make([]digest.Digest, len(t.vertex.Inputs))
	for i := range ids {
		id := identity{Kind: "files", Value: t.picked[i]}
		if t.uses[i].whole || !files && !isSource(t.vertex.Inputs[i].Vertex) {
			tree, err := b.treeID(ctx, b.input(t.vertex, i))
			if err != nil {
				return "", err
			}
			id = identity{Kind: "tree", Value: tree}
		}
		if id.Value == "" {
			return "", nil
		}
		var err error
		if ids[i], err = id.digest(); err != nil {
			return "", err
		}
	}
	return b.keyOf(t.vertex, ids)
}

// pick hashes the files that a vertex uses of input i; the result is empty when
// one is missing, which the vertex then says better.
func (b *build) pick(ctx context.Context, t *task, i int) (_ digest.Digest, err error) {
	from, sums := b.input(t.vertex, i), fileop.NewSums()
	if len(from) == 1 && from[0].sums != nil {
		sums = from[0].sums
	}
	if len(from) == 1 && from[0].listing != nil {
		return sumAll(ctx, sums, from[0].listing, t.uses[i].picks)
	}
	s := b.stageOf(t.vertex, i)
	if parter, ok := s.parts(); ok {
		files, err := b.list(ctx, s, parter, from)
		if err != nil {
			return "", err
		}
		return sumAll(ctx, sums, files, t.uses[i].picks)
	}
	v, err := b.view(ctx, s.store, from)
	if err != nil {
		return "", err
	}
	defer func() {
		if rerr := v.Release(); err == nil {
			err = rerr
		}
	}()
	return sumAll(ctx, sums, filetree.Dir(v.Path()), t.uses[i].picks)
}

func sumAll(ctx context.Context, sums *fileop.Sums, files filetree.Tree, picks []*graph.Copy) (digest.Digest, error) {
	var all []digest.Digest
	for _, c := range picks {
		d, err := sums.Copy(ctx, files, c)
		if err != nil && context.Cause(ctx) == nil {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		all = append(all, d)
	}
	return hashOf(all)
}

// treeID identifies a tree by its layers: those of sources by their files, all
// others by their diff IDs.
func (b *build) treeID(ctx context.Context, t tree) (digest.Digest, error) {
	ids := make([]digest.Digest, len(t))
	for i, l := range t {
		var err error
		if ids[i], err = b.layerID(ctx, l); err != nil {
			return "", err
		}
	}
	return chainID(ids)
}

func chainID(layers []digest.Digest) (digest.Digest, error) { return hashOf(layers) }

func (b *build) layerID(ctx context.Context, l *treeLayer) (digest.Digest, error) {
	switch {
	case l.base != nil:
		return l.base.diffID, nil
	case l.sums != nil:
		l.identifying.Do(func() { l.id, l.idErr = sourceID(ctx, l) })
		return l.id, l.idErr
	}
	blob, err := b.compressed(ctx, l)
	if err != nil {
		return "", err
	}
	return blob.DiffID, nil
}

// sourceID identifies a source by its files. Times do not count: a checkout
// gives every file a new one.
func sourceID(ctx context.Context, l *treeLayer) (digest.Digest, error) {
	sum := digest.SHA256.Digester()
	made := l.made
	if l.source != nil {
		var err error
		if made, err = l.source.load(); err != nil {
			return "", err
		}
	}
	if err := made.WriteTar(ctx, sum.Hash(), rootfs.TarOptions{MaxTime: new(int64)}); err != nil {
		return "", fmt.Errorf("hashing a source: %w", err)
	}
	return sum.Digest(), nil
}
