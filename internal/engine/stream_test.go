package engine

import (
	"context"
	"io"
	"math/rand"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// streams is a publisher that takes what there is of a layer.
type streams struct {
	*memory
	begun    chan struct{}
	streamed digest.Digest
}

func (s *streams) Stream(ctx context.Context, l *layer.Pending, report func(int64)) error {
	start := make([]byte, 1000)
	if _, err := l.ReadAt(start, 0); err != nil {
		return err
	}
	report(int64(len(start)))
	close(s.begun)
	desc, err := l.Wait(ctx)
	s.streamed = desc.Digest
	return err
}

// slowLayer is complete once then is closed.
type slowLayer struct {
	size int
	then chan struct{}
}

func (l slowLayer) WriteTar(_ context.Context, w io.Writer, _ rootfs.TarOptions) error {
	_, err := io.CopyN(w, rand.New(rand.NewSource(1)), int64(l.size))
	<-l.then
	return err
}

func TestLayers_are_sent_while_they_are_made(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	close(done)
	for _, tc := range []struct {
		name  string
		size  int
		clamp bool
		want  bool
	}{
		{"large", 2 * streamFrom, false, true},
		{"small", 1 << 20, false, false},
		{"reproducible", 2 * streamFrom, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			to := &streams{memory: newMemory(), begun: make(chan struct{})}
			f := newFixture(t, nil)
			f.Publisher, f.RewriteTimes = to, tc.clamp
			b := newBuild(f.Engine, &graph.Graph{})
			defer b.close()
			b.fail = func(err error) error { return err }
			l := madeLayer(slowLayer{tc.size, to.begun}, time.Time{})
			if !tc.want {
				l.made = slowLayer{tc.size, done}
			}

			b.send(t.Context(), tree{l})
			assert.NilError(t, b.background.Wait())
			got, _ := l.describe()
			assert.Equal(t, digest.FromBytes(to.blobs[got.Digest]), got.Digest)
			assert.Equal(t, to.streamed == got.Digest, tc.want)
			<-l.sent
		})
	}
}

// opens is a base whose layer somebody wants.
type opens struct {
	base
	once   sync.Once
	opened chan struct{}
}

func (o *opens) OpenLayer(ctx context.Context, ref string, l ocispecs.Descriptor) (io.ReadCloser, error) {
	o.once.Do(func() { close(o.opened) })
	return o.base.OpenLayer(ctx, ref, l)
}

// lateContext is there once then is closed.
type lateContext struct {
	Context
	then chan struct{}
}

func (c lateContext) Materialize(ctx context.Context, dst string, files buildcontext.Selection) error {
	select {
	case <-c.then:
		return c.Context.Materialize(ctx, dst, files)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func TestBase_is_unpacked_while_the_context_is_copied(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	images := &opens{base: newBase(), opened: make(chan struct{})}
	f.Images = images
	f.Contexts["context"] = lateContext{f.Contexts["context"], images.opened}
	_, err := f.build("FROM debian\nCOPY a /a\n") // hangs when one waits for the other
	assert.NilError(t, err)
}

// countingStore keeps what it is told that is left to write.
type countingStore struct {
	*plainStore
	mu      sync.Mutex
	settled [][]rootfs.Layer
}

func (s *countingStore) Settle(keep []rootfs.Layer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = append(s.settled, keep)
}

func TestTrees_go_when_their_layer_is_written(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	close(done)
	f := newFixture(t, nil)
	store := &countingStore{plainStore: f.store}
	f.Store = store
	v := &graph.Vertex{Op: &graph.Merge{}, Digest: digest.FromString("v")}
	b := newBuild(f.Engine, &graph.Graph{Vertices: []*graph.Vertex{v}})
	defer b.close()
	b.fail = func(err error) error { return err }
	b.exported[v] = true
	one, two := madeLayer(slowLayer{1, done}, time.Time{}), madeLayer(slowLayer{2, done}, time.Time{})
	b.tasks[v].outputs = []tree{{one, two}}
	b.ran.Store(true)
	_, err := b.compressed(t.Context(), one)
	assert.NilError(t, err)
	assert.Assert(t, is.Len(store.settled, 1))
	assert.Assert(t, is.Len(store.settled[0], 1))
	assert.Equal(t, store.settled[0][0], two.made)
}
