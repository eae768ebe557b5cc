package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/progress"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// build is one run over a graph.
type build struct {
	*Engine
	graph *graph.Graph
	tasks map[*graph.Vertex]*task
	// exported are the vertices whose layers are part of an image.
	exported map[*graph.Vertex]bool
	tops     tops
	// slots limits running vertices, cores limits compression.
	slots, cores *semaphore.Weighted
	// background are the layers on their way; it is waited for at the end.
	background errgroup.Group
	exporting  sync.Once
	// ran says that all vertices ran.
	ran atomic.Bool
	// early is what is begun before it is needed, by startEarly; begun has the
	// trees. It is waited for before the steps count as done.
	early      errgroup.Group
	startEarly func(*graph.Vertex)
	begun      map[graph.Edge]bool
	users      map[*graph.Vertex][]*graph.Vertex
	stages     map[*graph.Vertex]*stage
	// fail cancels everything with an error, and returns it.
	fail func(error) error

	// keepAll says that no layer is to be lost.
	keepAll bool
	// broken are layers that the cache promised and did not have.
	broken map[digest.Digest]bool

	// changed is set when a context changed while it was read: keys and files may
	// not belong together.
	changed atomic.Bool

	mu     sync.Mutex
	spool  []func() error
	images []*Image
	warned map[string]bool
}

// task is the state of one vertex. All but vertex is set before done closes.
type task struct {
	vertex  *graph.Vertex
	done    chan struct{}
	outputs []tree
	took    time.Duration
	// key is the definition key: what the vertex does, to what, the used files
	// of its sources included. It is empty when nobody can tell, or there is no
	// cache.
	key digest.Digest
	// uses is by input; so is picked, the digests of the files that are used,
	// where that is known.
	uses   []use
	picked []digest.Digest
	// noCache says that something below is to be made again.
	noCache bool
	// taken says that the only user of the outputs has taken their files.
	taken bool
}

func newBuild(e *Engine, g *graph.Graph) *build {
	b := &build{
		Engine:   e,
		graph:    g,
		warned:   map[string]bool{},
		tasks:    make(map[*graph.Vertex]*task, len(g.Vertices)),
		exported: exported(g),
		begun:    map[graph.Edge]bool{},
		users:    usersOf(g),
		stages:   stagesOf(g, e.Store),
		slots:    semaphore.NewWeighted(int64(e.parallel())),
		cores:    semaphore.NewWeighted(int64(runtime.NumCPU())),
	}
	b.tops = topsOf(g, e.Files != nil, func(v *graph.Vertex) bool { return b.exported[v] || b.writesCache() })
	for _, v := range g.Vertices {
		b.tasks[v] = &task{vertex: v, done: make(chan struct{})}
	}
	return b
}

// exported finds the vertices that layers of the images come from: those on the
// way down from each image's root through the tree that each operation changes.
func exported(g *graph.Graph) map[*graph.Vertex]bool {
	found := map[*graph.Vertex]bool{}
	var visit func(e *graph.Edge)
	visit = func(e *graph.Edge) {
		if e == nil || found[e.Vertex] {
			return
		}
		found[e.Vertex] = true
		for _, below := range changed(e.Vertex, e.Output) {
			visit(below)
		}
	}
	for _, img := range g.Images {
		visit(img.Root)
	}
	return found
}

func (b *build) run(ctx context.Context) error {
	b.plan()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The first error is the cause of all others: whatever is cancelled reports
	// the cause. (An errgroup's own context would end with the steps, while
	// their layers are still on the way.)
	fail := func(err error) error {
		if err != nil {
			cancel(err)
		}
		return err
	}
	b.fail = fail
	err := b.steps(ctx)
	if err == nil {
		b.ran.Store(true)
		b.spare(b.unwritten())
	}
	if err := errors.Join(err, b.background.Wait()); err != nil {
		b.Progress.Done(exportID, false, context.Canceled)
		return context.Cause(ctx)
	}
	b.spare(nil)
	return b.export(ctx)
}

// spare tells the store, when all vertices ran, which layers are still to be
// written.
func (b *build) spare(keep []rootfs.Layer) {
	if b.Files != nil {
		return
	}
	b.Store.Settle(keep)
	if b.Plain != nil {
		b.Plain.Settle(keep)
	}
}

// writesCache reports whether all layers are to be kept.
func (b *build) writesCache() bool { return b.Cache != nil && !b.CacheReadOnly }

// unwritten are the layers that have no blob yet and are, or may be, on their way
// into an image or the cache.
func (b *build) unwritten() (keep []rootfs.Layer) {
	all := b.writesCache()
	for v, t := range b.tasks {
		if !all && !b.exported[v] {
			continue
		}
		for _, out := range t.outputs {
			for _, l := range out {
				if l.made != nil && l.pending.Blob() == nil {
					keep = append(keep, l.made)
				}
			}
		}
	}
	return keep
}

// steps runs all vertices, or with a cache what is missing there: then the files
// of the sources must be known first. Images, of which nothing is fetched, are
// known first in any case.
func (b *build) steps(ctx context.Context) error {
	var sources, rest []*task
	for _, v := range b.graph.Vertices {
		if _, ok := v.Op.(*graph.ImageSource); ok || b.Cache != nil && isSource(v) {
			sources = append(sources, b.tasks[v])
		} else {
			rest = append(rest, b.tasks[v])
		}
	}
	if err := b.runTasks(ctx, sources); err != nil {
		return err
	}
	b.choose()
	if b.Cache != nil {
		var err error
		if rest, err = b.lookUp(ctx); err != nil {
			return b.fail(err)
		}
		b.preload(rest)
	}
	early, stop := context.WithCancel(ctx)
	b.startEarly = func(v *graph.Vertex) { b.ahead(early, v) }
	err := b.runTasks(ctx, rest)
	stop()
	return errors.Join(err, b.early.Wait())
}

func (b *build) runTasks(ctx context.Context, tasks []*task) error {
	var group errgroup.Group
	for _, t := range tasks {
		b.prefetch(ctx, t)
		group.Go(func() error { return b.fail(b.runTask(ctx, t)) })
	}
	return group.Wait()
}

// prefetch unpacks the base image that a vertex stands on while the vertex waits
// for its other inputs. With a cache it may turn out that nobody needs it.
func (b *build) prefetch(ctx context.Context, t *task) {
	i, ok := layered(t.vertex)
	if !ok || i == graph.None || b.Cache != nil {
		return
	}
	below := b.tasks[t.vertex.Inputs[i].Vertex]
	if _, ok := below.vertex.Op.(*graph.ImageSource); !ok || len(t.vertex.Inputs) < 2 {
		return
	}
	b.background.Go(func() error {
		select {
		case <-below.done:
			// The vertex will say what is wrong.
			_, _ = b.layers(ctx, b.stageOf(t.vertex, i).store, b.input(t.vertex, i))
		case <-ctx.Done():
		}
		return nil
	})
}

// plan announces the vertices, and the export, whose uploads go on beside them,
// as one more.
func (b *build) plan() {
	var list []progress.Vertex
	for _, v := range b.graph.Vertices {
		p := progress.Vertex{ID: v.Digest, Name: v.Name}
		for _, in := range v.Inputs {
			p.Inputs = append(p.Inputs, in.Vertex.Digest)
		}
		list = append(list, p)
	}
	list = append(list, progress.Vertex{ID: exportID, Name: "exporting images"})
	b.Progress.Plan(list...)
}

func (b *build) runTask(ctx context.Context, t *task) error {
	for _, in := range t.vertex.Inputs {
		select {
		case <-b.tasks[in.Vertex].done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := b.slots.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	defer b.slots.Release(1)

	id, started := t.vertex.Digest, b.Now()
	b.Progress.Start(id)
	outputs, cached, err := b.find(ctx, t)
	if err == nil && !cached {
		if _, ok := layered(t.vertex); ok {
			b.startEarly(t.vertex)
		}
		outputs, err = b.repeat(ctx, t.vertex)
	}
	if cause := context.Cause(ctx); err != nil && cause != nil && (errors.Is(err, cause) || errors.Is(err, context.Canceled)) {
		b.Progress.Done(id, false, context.Canceled)
		return cause
	}
	b.Progress.Done(id, cached, err)
	if err != nil {
		return &StepError{Name: t.vertex.Name, Location: t.vertex.Location, Err: err}
	}
	t.outputs, t.took = outputs, b.Now().Sub(started)
	if b.exported[t.vertex] {
		for _, tree := range outputs {
			b.send(ctx, tree)
		}
	}
	if !cached {
		b.keep(ctx, t)
	}
	close(t.done)
	return nil
}

// repeat runs a vertex, and again when something else has got into its files.
func (b *build) repeat(ctx context.Context, v *graph.Vertex) (outputs []tree, err error) {
	for range maxDisturbed {
		outputs, err = b.runVertex(ctx, v)
		if _, disturbed := errors.AsType[*rootfs.DisturbedError](err); !disturbed {
			return outputs, err
		}
	}
	return nil, err
}

// maxDisturbed is how often a vertex is run whose files another step got into.
const maxDisturbed = 3

func (b *build) runVertex(ctx context.Context, v *graph.Vertex) ([]tree, error) {
	switch op := v.Op.(type) {
	case *graph.ImageSource:
		return b.image(ctx, v, op)
	case *graph.LocalSource:
		return b.local(ctx, v, op)
	case *graph.HTTPSource:
		return b.http(ctx, v, op)
	case *graph.GitSource:
		return b.git(ctx, v, op)
	case *graph.Exec:
		return b.exec(ctx, v, op)
	case *graph.File:
		return b.file(ctx, v, op)
	case *graph.Merge:
		return b.merge(v)
	}
	return nil, fmt.Errorf("operation %T is not supported", v.Op)
}

// input is the tree of a vertex's input; an empty tree for graph.None.
func (b *build) input(v *graph.Vertex, i int) tree {
	if i == graph.None {
		return nil
	}
	e := v.Inputs[i]
	return b.tasks[e.Vertex].outputs[e.Output]
}

// merge stacks the inputs: no bytes are touched.
func (b *build) merge(v *graph.Vertex) ([]tree, error) {
	var t tree
	for i := range v.Inputs {
		t = append(t, b.input(v, i)...)
	}
	return []tree{t}, nil
}

// close gives back what the layers occupy.
func (b *build) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, remove := range b.spool {
		_ = remove()
	}
	b.spool = nil
}

// exportID is the vertex that uploads and manifests are reported under.
var exportID = digest.FromString("export")
