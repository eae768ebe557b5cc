package inplace

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/rootfs"
)

func count(t *testing.T, dir string) int {
	t.Helper()
	names, err := os.ReadDir(dir)
	assert.NilError(t, err)
	return len(names)
}

func TestCloseLeavesWhatOutlivesTheBuild(t *testing.T) {
	t.Parallel()
	state := filepath.Join(t.TempDir(), "a:b,c", "state")
	s := newStore(t, state)
	data := makeTar(t, []item{{"f", tar.TypeReg, "1"}})
	b := base(t, s, data)
	l := step(t, s, []rootfs.Layer{b}, "echo 2 >g")
	w, err := s.Work(t.Context(), []rootfs.Layer{b, l})
	assert.NilError(t, err)
	v, err := s.View(t.Context(), []rootfs.Layer{b, l})
	assert.NilError(t, err)
	cache, err := s.CacheDir("any / string\x00")
	assert.NilError(t, err)
	assert.Equal(t, count(t, filepath.Join(state, "builds")), 1)
	for range 2 {
		spool, err := s.Spool()
		assert.NilError(t, err)
		assert.Equal(t, filepath.Dir(filepath.Dir(spool)), filepath.Join(state, "builds"))
		assert.NilError(t, os.WriteFile(filepath.Join(spool, "blob"), nil, 0o600))
	}

	assert.NilError(t, s.Close())
	assert.NilError(t, s.Close())
	assert.NilError(t, w.Discard())
	assert.NilError(t, v.Release())
	_, err = os.Stat(cache)
	assert.NilError(t, err)
	assert.Equal(t, count(t, filepath.Join(state, "builds")), 0)
	assert.Equal(t, count(t, filepath.Join(state, "tars")), 1)
	for _, err := range []error{
		func() error { _, err := s.Work(t.Context(), nil); return err }(),
		func() error { _, err := s.View(t.Context(), nil); return err }(),
		l.WriteTar(t.Context(), io.Discard, rootfs.TarOptions{}),
	} {
		assert.ErrorContains(t, err, "closed")
	}

	second := newStore(t, state)
	again, err := second.Base(t.Context(), digest.FromBytes(data), func(context.Context) (io.ReadCloser, error) {
		return nil, errors.New("was stored before")
	})
	assert.NilError(t, err)
	assert.DeepEqual(t, short(t, second, again), []string{"f=1"})
	assert.ErrorContains(t, again.WriteTar(t.Context(), io.Discard, rootfs.TarOptions{}), "not made by this build")
	_, err = second.View(t.Context(), []rootfs.Layer{b})
	assert.ErrorContains(t, err, "not from this store")
}

func TestLeaveIsForTheNextBuildToClear(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	s := newStore(t, state)
	s.Leave()
	l := step(t, s, nil, "echo 1 >f")
	s.Settle(nil)
	assert.NilError(t, s.Close())
	left := func() string {
		builds, err := filepath.Glob(filepath.Join(state, "builds", "*"))
		assert.NilError(t, err)
		assert.Equal(t, len(builds), 1)
		return builds[0]
	}
	first := left()
	assert.Assert(t, count(t, filepath.Join(first, "t")) > 0)
	assert.ErrorContains(t, l.WriteTar(t.Context(), io.Discard, rootfs.TarOptions{}), "closed")
	newStore(t, state)
	assert.Assert(t, left() != first)
	assert.Equal(t, count(t, filepath.Join(state, "locks")), 1)
}

func TestNewAfterAKill(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	newStore(t, state)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), toBeKilled+"="+state)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, cmd.Start())
	_, err = io.ReadFull(out, make([]byte, len("ready\n")))
	assert.NilError(t, err)
	counts := func() []int {
		return []int{count(t, filepath.Join(state, "builds")), count(t, filepath.Join(state, "tars"))}
	}
	assert.DeepEqual(t, counts(), []int{2, 1})
	newStore(t, state)
	// What is alive stays.
	assert.DeepEqual(t, counts(), []int{3, 1})
	assert.NilError(t, cmd.Process.Kill())
	assert.ErrorContains(t, cmd.Wait(), "killed")
	newStore(t, state)
	assert.DeepEqual(t, counts(), []int{3, 0})
}

func TestBaseIsSharedAndChecked(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	s, other := newStore(t, state), newStore(t, state)
	// Bytes after the end of the tar count for the digest.
	data := append(makeTar(t, []item{{"d/f", tar.TypeReg, strings.Repeat("1", 1<<20)}}), make([]byte, 10<<10)...)
	var opened atomic.Int32
	var wg sync.WaitGroup
	for _, store := range []*Store{s, s, other, other, s} {
		wg.Go(func() {
			_, err := store.Base(t.Context(), digest.FromBytes(data), func(ctx context.Context) (io.ReadCloser, error) {
				opened.Add(1)
				return opener(data)(ctx)
			})
			assert.Check(t, err)
		})
	}
	wg.Wait()
	assert.Equal(t, opened.Load(), int32(1))

	wrong := digest.FromString("something else")
	_, err := s.Base(t.Context(), wrong, opener(data))
	assert.ErrorContains(t, err, "does not have the diff ID "+wrong.String())
	_, err = s.Base(t.Context(), wrong, func(context.Context) (io.ReadCloser, error) { return nil, errors.New("no network") })
	assert.ErrorContains(t, err, "no network")
	_, err = s.Base(t.Context(), "sha256:../../x", opener(data))
	assert.ErrorContains(t, err, "diff ID")
	assert.Equal(t, count(t, filepath.Join(state, "tars")), 1)
}

func TestBaseOutlivesACancelledCaller(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	data := makeTar(t, []item{{"f", tar.TypeReg, "1"}})
	why := errors.New("gave up")
	ctx, cancel := context.WithCancelCause(t.Context())
	started := make(chan struct{})
	first := make(chan error)
	go func() {
		_, err := s.Base(ctx, digest.FromBytes(data), func(ctx context.Context) (io.ReadCloser, error) {
			close(started)
			<-ctx.Done()
			return nil, context.Cause(ctx)
		})
		first <- err
	}()
	<-started
	second := make(chan error)
	go func() {
		_, err := s.Base(t.Context(), digest.FromBytes(data), opener(data))
		second <- err
	}()
	cancel(why)
	assert.ErrorIs(t, <-first, why)
	assert.NilError(t, <-second)
}

func TestWorkEndsOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	w, err := s.Work(t.Context(), fixture(t, s))
	assert.NilError(t, err)
	l, err := w.Commit(t.Context())
	assert.NilError(t, err)
	assert.NilError(t, w.Discard())
	assert.DeepEqual(t, entries(t, l), []string{})
	_, err = w.Commit(t.Context())
	assert.ErrorContains(t, err, "before")

	w, err = s.Work(t.Context(), fixture(t, s))
	assert.NilError(t, err)
	assert.NilError(t, w.Discard())
	_, err = os.Stat(w.Path())
	assert.ErrorIs(t, err, os.ErrNotExist)
	assert.NilError(t, w.Discard())

	// A commit that fails leaves nothing half done.
	w, err = s.Work(t.Context(), fixture(t, s))
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(filepath.Join(w.Path(), ".wh.x"), nil, 0o600))
	_, err = w.Commit(t.Context())
	assert.ErrorContains(t, err, "cannot be in an image layer")
	_, err = os.Stat(w.Path())
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestRootAttributes(t *testing.T) {
	t.Parallel()
	for _, s := range []rootfs.Store{newStore(t, t.TempDir()), newOverlay(t)} {
		stat := func(parents ...rootfs.Layer) (st unix.Stat_t) {
			w, err := s.Work(t.Context(), parents)
			assert.NilError(t, err)
			assert.NilError(t, unix.Lstat(w.Path(), &st))
			assert.NilError(t, w.Discard())
			return st
		}
		scratch := stat()
		assert.DeepEqual(t, []uint32{scratch.Mode & 0o7777, scratch.Uid, scratch.Gid}, []uint32{0o755, 0, 0})
		b := base(t, s, makeTar(t, []item{{"./", tar.TypeDir, ""}, {"f", tar.TypeReg, "1"}}))
		root := stat(b)
		assert.DeepEqual(t, []uint32{root.Mode & 0o7777, root.Uid}, []uint32{0o755, 0})
		assert.DeepEqual(t, root.Mtim, unix.Timespec{})
		changed := step(t, s, []rootfs.Layer{b}, "chmod 1711 .; chown 3:4 .; touch -d @55.5 .")
		// The second one is made of the layers.
		for range 2 {
			root = stat(b, changed)
			assert.DeepEqual(t, []uint32{root.Mode & 0o7777, root.Uid, root.Gid}, []uint32{0o1711, 3, 4})
			assert.DeepEqual(t, root.Mtim, unix.Timespec{Sec: 55, Nsec: 5e8})
		}
	}
}

func TestTreesAreTakenOver(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	begin := func(layers ...rootfs.Layer) *work {
		w, err := s.Work(t.Context(), layers)
		assert.NilError(t, err)
		return w.(*work)
	}
	commit := func(w *work) rootfs.Layer {
		l, err := w.Commit(t.Context())
		assert.NilError(t, err)
		checkIndexes(t, s)
		return l
	}
	parents := fixture(t, s)
	w := begin(parents...)
	first := w.tree
	assert.NilError(t, os.WriteFile(filepath.Join(w.Path(), "x"), []byte("1"), 0o644))
	x := commit(w)
	with := append(slices.Clone(parents), x)

	// The next step goes on, with one link layer more too.
	w = begin(with...)
	assert.Equal(t, w.tree, first)
	y := commit(w)
	link := step(t, s, nil, "mkdir d; echo 2 >d/new; echo 3 >f")
	onTop := append(slices.Clone(with), y, link)
	w = begin(onTop...)
	assert.Equal(t, w.tree, first)
	assert.DeepEqual(t, commit(w).(*change).root.Whiteouts, []string(nil))

	// What it was is made again, twice if two want it.
	a, b := begin(parents...), begin(parents...)
	assert.Assert(t, a.tree != first && a.tree != b.tree)
	for _, w := range []*work{a, b} {
		assert.NilError(t, os.Remove(filepath.Join(w.Path(), "h1")))
		assert.DeepEqual(t, entries(t, commit(w)), []string{".wh.h1"})
	}
	assert.DeepEqual(t, short(t, s, with...)[6:], []string{"empty/", "f=fff", "h1=hhh", "h2=hhh", "link", "x=1"})
	assert.DeepEqual(t, short(t, s, onTop...)[1:5], []string{"d/a=aaa", "d/b=bbb", "d/new=2\n", "d/sub/"})
	checkIndexes(t, s)
}

func TestViewsShareATree(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	layers := fixture(t, s)
	one, err := s.View(t.Context(), layers)
	assert.NilError(t, err)
	two, err := s.View(t.Context(), layers)
	assert.NilError(t, err)
	assert.Equal(t, one.Path(), two.Path())
	assert.NilError(t, one.Release())
	assert.NilError(t, one.Release())
	w, err := s.Work(t.Context(), layers)
	assert.NilError(t, err)
	assert.Assert(t, w.Path() != two.Path())
	assert.NilError(t, two.Release())
	next, err := s.Work(t.Context(), layers)
	assert.NilError(t, err)
	assert.Equal(t, next.Path(), two.Path())
	empty, err := s.View(t.Context(), nil)
	assert.NilError(t, err)
	assert.Equal(t, count(t, empty.Path()), 0)
	for _, err := range []error{empty.Release(), w.Discard(), next.Discard()} {
		assert.NilError(t, err)
	}
}

// TestLinks shows that names are linked for readers as the layers say, and that
// a step which writes to one does not change the others.
func TestLinks(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	layers := fixture(t, s)
	layers = append(layers, step(t, s, layers, "echo 1 >x; ln x y; ln x d/z; ln f g; ln -P link d/l"))
	view := func() []string {
		v, err := s.View(t.Context(), layers)
		assert.NilError(t, err)
		defer func() { assert.NilError(t, v.Release()) }()
		out, err := exec.Command("bash", "-c", "cd "+v.Path()+" && find . -links +1 ! -type d | sort").CombinedOutput()
		assert.NilError(t, err)
		return strings.Fields(string(out))
	}
	want := []string{"./d/z", "./h1", "./h2", "./x", "./y"}
	assert.DeepEqual(t, view(), want)
	assert.Equal(t, len(s.trees), 1)
	checkIndexes(t, s)
	for range 2 {
		l := step(t, s, layers, "! find . -links +1 ! -type d | grep .; echo 2 >>x; chmod 600 h2")
		assert.DeepEqual(t, entries(t, l), []string{"h2", "x"})
		assert.DeepEqual(t, view(), want)
		checkIndexes(t, s)
	}
}

func TestWhiteoutsOfBases(t *testing.T) {
	t.Parallel()
	bottom := []item{{"d/", tar.TypeDir, ""}, {"d/a", tar.TypeReg, "1"}, {"d/b", tar.TypeReg, "2"}, {"f", tar.TypeReg, "3"}}
	for _, tc := range []struct {
		name string
		top  []item
		want []string
	}{
		{"file", []item{{".wh.f", tar.TypeReg, ""}}, []string{"d/", "d/a=1", "d/b=2"}},
		{"directory", []item{{".wh.d", tar.TypeReg, ""}}, []string{"f=3"}},
		{"missing", []item{{".wh.x", tar.TypeReg, ""}}, []string{"d/", "d/a=1", "d/b=2", "f=3"}},
		{"opaque", []item{{"d/", tar.TypeDir, ""}, {"d/.wh..wh..opq", tar.TypeReg, ""}, {"d/c", tar.TypeReg, "4"}}, []string{"d/", "d/c=4", "f=3"}},
		{"opaque_root", []item{{".wh..wh..opq", tar.TypeReg, ""}, {"g", tar.TypeReg, "4"}}, []string{"g=4"}},
		{"file_then_whiteout", []item{{"f", tar.TypeReg, "4"}, {".wh.f", tar.TypeReg, ""}}, []string{"d/", "d/a=1", "d/b=2", "f=4"}},
		{"whiteout_then_directory", []item{{".wh.d", tar.TypeReg, ""}, {"d/", tar.TypeDir, ""}, {"d/c", tar.TypeReg, "4"}}, []string{"d/", "d/c=4", "f=3"}},
		{"directory_then_whiteout", []item{{"d/", tar.TypeDir, ""}, {"d/c", tar.TypeReg, "4"}, {".wh.d", tar.TypeReg, ""}}, []string{"d/", "d/c=4", "f=3"}},
		{"whiteout_twice", []item{{".wh.f", tar.TypeReg, ""}, {".wh.f", tar.TypeReg, ""}}, []string{"d/", "d/a=1", "d/b=2"}},
		{"file_over_directory", []item{{"d", tar.TypeReg, "4"}}, []string{"d=4", "f=3"}},
		{"directory_over_file", []item{{"f/x", tar.TypeReg, "4"}}, []string{"d/", "d/a=1", "d/b=2", "f/", "f/x=4"}},
		{"link_over_directory", []item{{"d", tar.TypeSymlink, "x"}, {"d/y", tar.TypeReg, "4"}}, []string{"d", "f=3", "x/", "x/y=4"}},
		{"hard_link", []item{{"n", tar.TypeReg, "4"}, {"f", tar.TypeLink, "n"}}, []string{"d/", "d/a=1", "d/b=2", "f=4", "n=4"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			state := t.TempDir()
			for range 2 {
				s := newStore(t, state)
				layers := []rootfs.Layer{base(t, s, makeTar(t, bottom)), base(t, s, makeTar(t, tc.top))}
				assert.DeepEqual(t, short(t, s, layers...), tc.want)
				assert.DeepEqual(t, entries(t, step(t, s, layers, "true")), []string{})
				// A tree of the lower layer becomes one of both.
				_ = short(t, s, layers[0])
				assert.DeepEqual(t, short(t, s, layers...), tc.want)
				checkIndexes(t, s)
			}
		})
	}
}

// TestShadowedLinkTarget is about a link whose other name an upper layer has as
// something else: it must have the old content.
func TestShadowedLinkTarget(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	lower := base(t, s, makeTar(t, []item{{"a", tar.TypeReg, "old"}, {"b", tar.TypeLink, "a"}, {"c", tar.TypeLink, "b"}}))
	upper := base(t, s, makeTar(t, []item{{"a", tar.TypeReg, "new"}}))
	assert.DeepEqual(t, short(t, s, lower, upper), []string{"a=new", "b=old", "c=old"})
	gone := base(t, s, makeTar(t, []item{{".wh.a", tar.TypeReg, ""}, {".wh.c", tar.TypeReg, ""}}))
	assert.DeepEqual(t, short(t, s, lower, gone), []string{"b=old"})
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			layers := fixture(t, s)
			w, err := s.Work(t.Context(), layers)
			if !assert.Check(t, err) {
				return
			}
			name := fmt.Sprintf("own%d", i)
			assert.Check(t, os.WriteFile(filepath.Join(w.Path(), name), nil, 0o644))
			assert.Check(t, os.Remove(filepath.Join(w.Path(), "f")))
			l, err := w.Commit(t.Context())
			if !assert.Check(t, err) {
				return
			}
			assert.Check(t, slices.Equal(entries(t, l), []string{".wh.f", name}))
			for _, layers := range [][]rootfs.Layer{layers, append(slices.Clone(layers), l)} {
				v, err := s.View(t.Context(), layers)
				if !assert.Check(t, err) {
					return
				}
				_, err = os.Stat(filepath.Join(v.Path(), "f"))
				assert.Check(t, errors.Is(err, os.ErrNotExist) == (len(layers) == 3))
				assert.Check(t, v.Release())
			}
		})
	}
	wg.Wait()
	checkIndexes(t, s)
}

func TestCancelledViewIsMadeAgain(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	layers := fixture(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			ctx := ctx
			if i%2 == 0 {
				ctx = t.Context()
			}
			v, err := s.View(ctx, layers)
			if i%2 == 0 {
				assert.Check(t, err)
			}
			if err == nil {
				_, err := os.Stat(filepath.Join(v.Path(), "e"))
				assert.Check(t, err)
				assert.Check(t, v.Release())
			}
		})
	}
	cancel()
	wg.Wait()
}
