package engine

import (
	"context"
	"io"
	"math/rand"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"

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
