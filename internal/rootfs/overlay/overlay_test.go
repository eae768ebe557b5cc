package overlay

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// inNamespace is set in the process that runs the tests in a mount namespace of
// its own.
const inNamespace = "OVERLAY_TEST_IN_NAMESPACE"

func TestMain(m *testing.M) {
	if state := os.Getenv(toBeKilled); state != "" {
		die(state)
	}
	if os.Geteuid() != 0 || os.Getenv(inNamespace) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		panic(err)
	}
}

// toBeKilled is set in a process that works in that state directory until it is
// killed.
const toBeKilled = "OVERLAY_TEST_TO_BE_KILLED"

func die(state string) {
	s, err := New(state)
	if err != nil {
		panic(err)
	}
	content := []byte("no tar, but enough to wait for")
	go s.Base(context.Background(), digest.FromBytes(content), func(context.Context) (io.ReadCloser, error) {
		w, err := s.Work(context.Background(), []rootfs.Layer{&tree{dir: s.path(emptyName), name: emptyName}})
		if err == nil {
			err = os.WriteFile(filepath.Join(w.Path(), "half"), nil, 0o600)
		}
		if err != nil {
			panic(err)
		}
		os.Stdout.WriteString("ready\n")
		return os.Stdin, nil
	})
	select {}
}

func newStore(t *testing.T, state string) *Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts overlayfs")
	}
	s, err := New(state)
	assert.NilError(t, err)
	t.Cleanup(func() { assert.NilError(t, s.Close()) })
	return s
}

// root is where s has its files: the state directory, or one of the map of IDs.
func root(s *Store) string { return filepath.Dir(filepath.Dir(s.state.Dir())) }

// item is an entry of a layer; data is the content or the target.
type item struct {
	name string
	kind byte
	data string
}

func makeTar(t *testing.T, items []item) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, i := range items {
		hdr := &tar.Header{Name: i.name, Typeflag: i.kind, Mode: 0o755, ModTime: time.Unix(1000, 0), Format: tar.FormatPAX}
		if i.kind == tar.TypeReg {
			hdr.Size = int64(len(i.data))
		} else {
			hdr.Linkname = i.data
		}
		assert.NilError(t, w.WriteHeader(hdr))
		_, err := w.Write([]byte(i.data)[:hdr.Size])
		assert.NilError(t, err)
	}
	assert.NilError(t, w.Close())
	return buf.Bytes()
}

func base(t *testing.T, s *Store, data []byte) rootfs.Layer {
	t.Helper()
	l, err := s.Base(t.Context(), digest.FromBytes(data), opener(data))
	assert.NilError(t, err)
	return l
}

func opener(data []byte) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

// step runs a shell script in a tree and commits it.
func step(t *testing.T, s *Store, parents []rootfs.Layer, script string) rootfs.Layer {
	t.Helper()
	w, err := s.Work(t.Context(), parents)
	assert.NilError(t, err)
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = w.Path()
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	l, err := w.Commit(t.Context())
	assert.NilError(t, err)
	return l
}

func layerTar(t *testing.T, l rootfs.Layer) []byte {
	t.Helper()
	var buf bytes.Buffer
	assert.NilError(t, l.WriteTar(t.Context(), &buf, rootfs.TarOptions{}))
	return buf.Bytes()
}

// entries shows a layer: the names of its tar, links with their targets.
func entries(t *testing.T, l rootfs.Layer) []string {
	t.Helper()
	out := []string{}
	r := tar.NewReader(bytes.NewReader(layerTar(t, l)))
	for {
		hdr, err := r.Next()
		if err == io.EOF {
			return out
		}
		assert.NilError(t, err)
		switch hdr.Typeflag {
		case tar.TypeLink:
			out = append(out, hdr.Name+"="+hdr.Linkname)
		case tar.TypeSymlink:
			out = append(out, hdr.Name+"->"+hdr.Linkname)
		default:
			out = append(out, hdr.Name)
		}
	}
}

// listing lists the files of a stack.
func listing(t *testing.T, s *Store, layers ...rootfs.Layer) []string {
	t.Helper()
	v, err := s.View(t.Context(), layers)
	assert.NilError(t, err)
	defer func() { assert.NilError(t, v.Release()) }()
	out := []string{}
	assert.NilError(t, filepath.WalkDir(v.Path(), func(p string, d os.DirEntry, err error) error {
		if p == v.Path() || err != nil {
			return err
		}
		rel, _ := filepath.Rel(v.Path(), p)
		if d.IsDir() {
			rel += "/"
		}
		if d.Type().IsRegular() {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			rel += "=" + string(data)
		}
		out = append(out, rel)
		return nil
	}))
	return out
}

func TestCloseLeavesWhatOutlivesTheBuild(t *testing.T) {
	t.Parallel()
	state := filepath.Join(t.TempDir(), "a:b,c", "state")
	s := newStore(t, state)
	b := base(t, s, makeTar(t, []item{{"f", tar.TypeReg, "1"}}))
	l := step(t, s, []rootfs.Layer{b}, "echo 2 >g")
	w, err := s.Work(t.Context(), []rootfs.Layer{b, l})
	assert.NilError(t, err)
	v, err := s.View(t.Context(), []rootfs.Layer{b, l})
	assert.NilError(t, err)
	assert.NilError(t, unix.Mount("tmpfs", w.Path(), "tmpfs", 0, ""))
	cache, err := s.CacheDir("any / string\x00")
	assert.NilError(t, err)
	again, err := s.CacheDir("any / string\x00")
	assert.NilError(t, err)
	assert.Equal(t, again, cache)
	other, err := s.CacheDir("another")
	assert.NilError(t, err)
	assert.Assert(t, other != cache)

	assert.NilError(t, s.Close())
	assert.NilError(t, s.Close())
	assert.NilError(t, w.Discard())
	assert.NilError(t, v.Release())
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	assert.NilError(t, err)
	assert.Assert(t, !strings.Contains(string(mounts), filepath.Base(s.state.Dir())))
	_, err = os.Stat(s.state.Dir())
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = os.Stat(cache)
	assert.NilError(t, err)
	layers, err := os.ReadDir(filepath.Join(root(s), "layers"))
	assert.NilError(t, err)
	assert.Equal(t, len(layers), 1)
	_, err = s.Work(t.Context(), nil)
	assert.ErrorContains(t, err, "closed")

	second := newStore(t, state)
	_, err = second.Base(t.Context(), digest.FromBytes(makeTar(t, []item{{"f", tar.TypeReg, "1"}})), func(context.Context) (io.ReadCloser, error) {
		return nil, errors.New("was unpacked before")
	})
	assert.NilError(t, err)
}

func TestNewRemovesKilledBuilds(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	alive := newStore(t, state)
	// What a killed build leaves: nobody holds its lock. Its layer was half done.
	dead := filepath.Join(root(alive), "builds", "dead")
	part := filepath.Join(root(alive), "layers", strings.Repeat("0", 64)+".part")
	busy := filepath.Join(root(alive), "layers", strings.Repeat("1", 64)+".part")
	for _, dir := range []string{dead + "/w/1/u", dead + "/m", part, busy} {
		assert.NilError(t, os.MkdirAll(dir, 0o755))
	}
	assert.NilError(t, unix.Mount("tmpfs", dead+"/m", "tmpfs", 0, ""))
	l := flock.New(alive.state.LockName(strings.Repeat("1", 64)))
	assert.NilError(t, l.Lock())
	newStore(t, state)
	for _, gone := range []string{dead, part} {
		_, err := os.Stat(gone)
		assert.ErrorIs(t, err, os.ErrNotExist)
	}
	for _, kept := range []string{alive.state.Dir(), busy} {
		_, err := os.Stat(kept)
		assert.NilError(t, err)
	}
	assert.NilError(t, l.Close())
}

func TestNewAfterAKill(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	first := newStore(t, state)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), toBeKilled+"="+state)
	cmd.Stderr = os.Stderr
	_, err := cmd.StdinPipe()
	assert.NilError(t, err)
	out, err := cmd.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, cmd.Start())
	_, err = io.ReadFull(out, make([]byte, len("ready\n")))
	assert.NilError(t, err)
	count := func(dir string) int {
		names, err := os.ReadDir(filepath.Join(root(first), dir))
		assert.NilError(t, err)
		return len(names)
	}
	assert.DeepEqual(t, []int{count("builds"), count("layers")}, []int{2, 1})
	newStore(t, state)
	// What is alive stays.
	assert.DeepEqual(t, []int{count("builds"), count("layers")}, []int{3, 1})
	assert.NilError(t, cmd.Process.Kill())
	assert.ErrorContains(t, cmd.Wait(), "killed")
	newStore(t, state)
	assert.DeepEqual(t, []int{count("builds"), count("layers")}, []int{3, 0})
}

func TestProbeSaysWhy(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	b := base(t, s, makeTar(t, []item{{"d/", tar.TypeDir, ""}}))
	w, err := s.Work(t.Context(), []rootfs.Layer{b})
	assert.NilError(t, err)
	assert.NilError(t, Probe(filepath.Join(t.TempDir(), "new")))
	assert.ErrorContains(t, Probe(filepath.Join(w.Path(), "d")), "is on overlayfs itself: use a directory on a volume or a tmpfs")
	file := filepath.Join(t.TempDir(), "file")
	assert.NilError(t, os.WriteFile(file, nil, 0o600))
	assert.ErrorContains(t, Probe(file), "making the state directory")
	assert.NilError(t, w.Discard())
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
	left, err := os.ReadDir(filepath.Join(root(s), "layers"))
	assert.NilError(t, err)
	assert.Equal(t, len(left), 1)
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

func TestForeignLayer(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	_, err := s.View(t.Context(), []rootfs.Layer{nil})
	assert.ErrorContains(t, err, "not from this store")
	b := base(t, s, makeTar(t, nil))
	assert.ErrorContains(t, b.WriteTar(t.Context(), io.Discard, rootfs.TarOptions{}), "take its blob from the image")
}
