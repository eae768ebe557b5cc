package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/rootfs"
	"github.com/org/kaniko-multiarch/internal/rootfs/inplace"
	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// largeBase is an image with more files than any step of these tests needs.
func largeBase(t *testing.T) base {
	t.Helper()
	var plain, compressed bytes.Buffer
	tw := tar.NewWriter(&plain)
	for _, name := range []string{
		"etc/", "etc/passwd=app:x:7:8::/:\n", "etc/group=web:x:9:\n", "lib>usr/lib", "usr/", "usr/lib/", "usr/lib/one=1", "usr/lib/two=2",
		"usr/share/", "usr/share/doc/", "usr/share/doc/x=x", "opt/", "opt/app/", "opt/app/old=old", "opt/app/link>../../usr/lib", "srv/", "srv/dir/", "srv/dir/f=f",
	} {
		h := &tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}
		file, data, isFile := strings.Cut(name, "=")
		link, target, isLink := strings.Cut(name, ">")
		switch {
		case isFile:
			h.Name, h.Typeflag, h.Size = file, tar.TypeReg, int64(len(data))
		case isLink:
			h.Name, h.Typeflag, h.Linkname = link, tar.TypeSymlink, target
		}
		assert.NilError(t, tw.WriteHeader(h))
		_, err := tw.Write([]byte(data))
		assert.NilError(t, err)
	}
	assert.NilError(t, tw.Close())
	z := gzip.NewWriter(&compressed)
	_, err := z.Write(plain.Bytes())
	assert.NilError(t, err)
	assert.NilError(t, z.Close())
	return base{compressed.Bytes(), digest.FromBytes(plain.Bytes())}
}

// counted is a store that counts the trees of images which it makes whole, and
// what is taken.
type counted struct {
	*inplace.Store
	mu           sync.Mutex
	bases        map[rootfs.Layer]bool
	whole, taken int
}

func (c *counted) Base(ctx context.Context, diffID digest.Digest, open func(context.Context) (io.ReadCloser, error)) (rootfs.Layer, error) {
	l, err := c.Store.Base(ctx, diffID, open)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bases[l] = true
	return l, err
}

func (c *counted) count(layers []rootfs.Layer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(layers) > 0 && c.bases[layers[0]] {
		c.whole++
	}
}

func (c *counted) Work(ctx context.Context, layers []rootfs.Layer) (rootfs.Work, error) {
	c.count(layers)
	return c.Store.Work(ctx, layers)
}

func (c *counted) View(ctx context.Context, layers []rootfs.Layer) (rootfs.View, error) {
	c.count(layers)
	return c.Store.View(ctx, layers)
}

func (c *counted) Take(ctx context.Context, l rootfs.Layer) (rootfs.View, error) {
	v, err := c.Store.Take(ctx, l)
	c.mu.Lock()
	defer c.mu.Unlock()
	if v != nil {
		c.taken++
	}
	return v, err
}

func newCounted(t *testing.T) *counted {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes files of other owners")
	}
	s, err := inplace.New(t.TempDir())
	assert.NilError(t, err)
	t.Cleanup(func() { assert.NilError(t, s.Close()) })
	return &counted{Store: s, bases: map[rootfs.Layer]bool{}}
}

// onlyStore hides what else a store can do.
type onlyStore struct{ rootfs.Store }

// TestParts builds with whole trees and with parts of them: the images are the
// same.
func TestParts(t *testing.T) {
	t.Parallel()
	run := script{"step": func(_ context.Context, p sandbox.Process) error {
		return os.WriteFile(filepath.Join(p.Root, "made"), []byte("x"), 0o644)
	}}
	for name, tc := range map[string]struct {
		dockerfile string
		// whole are the trees of images that have to be made, taken the contexts that
		// are moved.
		whole, taken int
		err          string
	}{
		"copy":                    {dockerfile: "FROM debian\nCOPY d /new/\n", taken: 1},
		"copy_twice":              {dockerfile: "FROM debian\nCOPY d /new/\nCOPY a /new/\n"},
		"several_sources":         {dockerfile: "FROM debian\nCOPY d d/x a /new/\n"},
		"workdir":                 {dockerfile: "FROM debian\nWORKDIR /opt/app/sub\nCOPY . .\n", taken: 1},
		"over_what_is_there":      {dockerfile: "FROM debian\nCOPY d /opt/app\nCOPY a /usr/lib/one\n"},
		"through_links":           {dockerfile: "FROM debian\nCOPY a /lib/three\nCOPY a /opt/app/link/\n"},
		"owner_by_name":           {dockerfile: "FROM debian\nCOPY --chown=app:web d /x/\n", taken: 1},
		"heredoc":                 {dockerfile: "FROM debian\nCOPY <<one <<two /lib/\n1\none\n2\ntwo\n"},
		"from_image":              {dockerfile: "FROM scratch\nCOPY --from=debian /lib/o* /usr/share /x/\n"},
		"from_image_to_image":     {dockerfile: "FROM debian\nCOPY --from=debian --chown=app /opt/app /opt/app2\n"},
		"from_stage_without_run":  {dockerfile: "FROM debian AS x\nCOPY d /srv/dir\nFROM debian\nCOPY --from=x /srv /\n", taken: 1},
		"from_stage_with_run":     {dockerfile: "FROM debian AS x\nRUN step\nFROM debian\nCOPY --from=x /made /etc/\n", whole: 3},
		"run_after_all":           {dockerfile: "FROM debian\nCOPY d /new/\nRUN step\n", whole: 2, taken: 1},
		"link":                    {dockerfile: "FROM debian\nCOPY --link d /opt/app/\nCOPY a /opt/app/old\n"},
		"add_is_not_known_before": {dockerfile: "FROM debian\nADD a /lib/\n", whole: 1, taken: 1},
		"onto_a_file":             {dockerfile: "FROM debian\nCOPY d /etc/group\n", err: "cannot copy to non-directory"},
		"missing_in_image":        {dockerfile: "FROM scratch\nCOPY --from=debian /lib/none /\n", err: `"/lib/none": not found`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hidden, all, other := newCounted(t), newCounted(t), newCounted(t)
			var want digest.Digest
			for _, e := range []Engine{
				{Store: onlyStore{hidden}}, {Store: all}, {Store: onlyStore{newCounted(t)}, Plain: other},
			} {
				f := newFixture(t, run)
				f.Contexts["context"] = smallContext(t)
				f.Store, f.Plain, f.Images = e.Store, e.Plain, largeBase(t)
				f.Epoch, f.RewriteTimes = new(int64), true
				images, err := f.Build(t.Context(), f.load(tc.dockerfile, "linux/amd64"))
				if tc.err != "" {
					assert.ErrorContains(t, err, tc.err)
					continue
				}
				assert.NilError(t, err)
				if want == "" {
					want = images[0].Descriptor.Digest
				}
				assert.Check(t, is.Equal(images[0].Descriptor.Digest, want))
			}
			if tc.err != "" {
				return
			}
			assert.Check(t, is.Equal(all.whole, tc.whole))
			assert.Check(t, is.Equal(all.taken, tc.taken))
			runs := strings.Contains(tc.dockerfile, "RUN")
			assert.Check(t, is.Equal(len(other.bases) > 0, !runs))
		})
	}
}

func smallContext(t *testing.T) Context {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string]string{"a": "a", "d/x/y": "y", "d/old": "new", "d/z": "z"} {
		file := filepath.Join(dir, name)
		assert.NilError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		assert.NilError(t, os.WriteFile(file, []byte(data), 0o644))
	}
	c, err := buildcontext.Open(dir)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A copy that fails on a part is done on the whole: its files come again.
func TestParts_again(t *testing.T) {
	t.Parallel()
	f := newFixture(t, script{})
	store := &failsOnce{counted: newCounted(t)}
	f.Contexts["context"], f.Store, f.Images = smallContext(t), store, largeBase(t)
	images, err := f.Build(t.Context(), f.load("FROM debian\nCOPY d /new/\n", "linux/amd64"))
	assert.NilError(t, err)
	assert.Check(t, store.failed)
	assert.Check(t, is.Equal(store.taken, 2))
	assert.Check(t, is.Equal(f.sent.layerFiles(t, images[0], 1)["new/x/y"], "y"))
}

// failsOnce has a part that is too small.
type failsOnce struct {
	*counted
	failed bool
}

func (s *failsOnce) WorkPart(ctx context.Context, parents []rootfs.Layer, names []string) (rootfs.Work, error) {
	w, err := s.counted.WorkPart(ctx, parents, names)
	if s.failed || err != nil {
		return w, err
	}
	return failing{w, s}, nil
}

type failing struct {
	rootfs.Work
	store *failsOnce
}

func (f failing) Commit(context.Context, ...rootfs.Hint) (rootfs.Layer, error) {
	f.store.failed = true
	_ = f.Discard()
	return nil, &rootfs.PartError{Name: "/x"}
}

// The stages of a Dockerfile, by the names of their images, and which of them
// nothing runs on.
func TestStages(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		dockerfile string
		want       []string
	}{
		"run":           {"FROM debian\nCOPY a /\nRUN x\n", []string{"runs"}},
		"copy":          {"FROM debian\nCOPY a /\n", []string{"parts"}},
		"one_image":     {"FROM debian AS a\nRUN x\nFROM debian\nCOPY --from=a / /\n", []string{"runs"}},
		"two_images":    {"FROM debian AS a\nRUN x\nFROM alpine\nCOPY --from=a / /\n", []string{"parts", "runs"}},
		"copied_image":  {"FROM debian\nRUN x\nCOPY --from=alpine / /\n", []string{"parts", "runs"}},
		"mounted_image": {"FROM debian\nRUN --mount=from=alpine,target=/m x\n", []string{"parts", "runs"}},
		"links":         {"FROM debian\nCOPY --link a /\nRUN x\n", []string{"runs"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, nil)
			got := []string{}
			g := f.load(tc.dockerfile, "linux/amd64")
			stages := stagesOf(g, &inplace.Store{})
			for _, v := range g.Vertices {
				if _, ok := v.Op.(*graph.ImageSource); !ok {
					continue
				}
				kind := "runs"
				if _, ok := stages[v].parts(); ok {
					kind = "parts"
				}
				got = append(got, kind)
			}
			slices.Sort(got)
			assert.DeepEqual(t, got, tc.want)
		})
	}
}

// losing is a store in which a step has damaged the first source that is read.
type losing struct {
	rootfs.Store
	lost atomic.Bool
}

func (l *losing) View(ctx context.Context, layers []rootfs.Layer) (rootfs.View, error) {
	if len(layers) == 1 && !l.lost.Swap(true) {
		return nil, &rootfs.LostError{Err: errors.New("damaged")}
	}
	return l.Store.View(ctx, layers)
}

// A source that is lost is made again.
func TestSource_again(t *testing.T) {
	t.Parallel()
	f := newFixture(t, script{})
	w := &watched{Context: f.Contexts["context"].(*buildcontext.Context)}
	f.Contexts["context"], f.Store = w, &losing{Store: f.store}
	images, err := f.Build(t.Context(), f.load("FROM scratch\nCOPY a /b\n", "linux/amd64"))
	assert.NilError(t, err)
	assert.Check(t, is.Equal(w.copies.Load(), int32(2)))
	assert.Check(t, is.Equal(f.sent.layerFiles(t, images[0], 0)["b"], "from the context"))
}

// passed is a store that has lost the layers of a stage when somebody wants them.
type passed struct {
	rootfs.Store
	passing, lost int
}

func (p *passed) Work(ctx context.Context, parents []rootfs.Layer) (rootfs.Work, error) {
	if p.passing > 0 && p.lost == 0 {
		p.lost++
		return nil, &rootfs.LostError{Err: errors.New("gone")}
	}
	w, err := p.Store.Work(ctx, parents)
	return passedWork{w, p}, err
}

type passedWork struct {
	rootfs.Work
	store *passed
}

func (w passedWork) Commit(ctx context.Context, hints ...rootfs.Hint) (rootfs.Layer, error) {
	if slices.Contains(hints, rootfs.Passing) {
		w.store.passing++
	}
	return w.Work.Commit(ctx, hints...)
}

// A build that has lost what it threw away starts again and throws nothing away.
func TestBuild_lost_layers(t *testing.T) {
	t.Parallel()
	f := newFixture(t, script{"one": write("one", "1"), "two": write("two", "2")})
	store := &passed{Store: f.store}
	f.Store, f.Parallel = store, 1
	images, err := f.Build(t.Context(), f.load("FROM debian AS x\nRUN one\nRUN two\nFROM scratch\nCOPY --from=x /one /two /\n", "linux/amd64"))
	assert.NilError(t, err)
	assert.Check(t, is.Equal(store.passing, 1))
	assert.Check(t, is.Equal(store.lost, 1))
	assert.Check(t, is.Equal(f.sent.layerFiles(t, images[0], 0)["two"], "2"))
}
