package engine

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/rootfs"
	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// plainStore is a rootfs.Store of plain directories: every layer is a whole
// tree. It shows that the engine needs no mount.
type plainStore struct {
	dir string

	mu    sync.Mutex
	bases int
	open  int
	// made are the directories of committed layers.
	made []string
	// tops are those of layers that no work is to be made on, which counts as
	// wrong; so does a view of one among others.
	tops  map[string]bool
	wrong []string
}

func newPlainStore(t *testing.T) *plainStore {
	s := &plainStore{dir: t.TempDir(), tops: map[string]bool{}}
	t.Cleanup(func() { assert.Equal(t, len(s.wrong), 0, "layers that were to be on top: %q", s.wrong) })
	return s
}

type plainLayer struct{ dir string }

type plainWork struct {
	store *plainStore
	dir   string
}

func (s *plainStore) count(works, bases int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open += works
	s.bases += bases
}

func (s *plainStore) Base(ctx context.Context, diffID digest.Digest, open func(context.Context) (io.ReadCloser, error)) (rootfs.Layer, error) {
	s.count(0, 1)
	r, err := open(ctx)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	dir, err := os.MkdirTemp(s.dir, "base-")
	if err != nil {
		return nil, err
	}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return plainLayer{dir}, nil
		}
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return nil, err
		}
		name := filepath.Join(dir, h.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			return nil, err
		}
	}
}

// checkTops counts the layers whose hint was wrong.
func (s *plainStore) checkTops(layers []rootfs.Layer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range layers {
		if dir := l.(plainLayer).dir; s.tops[dir] {
			s.wrong = append(s.wrong, dir)
		}
	}
}

func (s *plainStore) Work(_ context.Context, parents []rootfs.Layer) (rootfs.Work, error) {
	s.checkTops(parents)
	return s.tree(parents)
}

func (s *plainStore) tree(parents []rootfs.Layer) (*plainWork, error) {
	dir, err := os.MkdirTemp(s.dir, "work-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	s.count(1, 0)
	for _, p := range parents {
		if err := overwrite(dir, p.(plainLayer).dir); err != nil {
			return nil, err
		}
	}
	return &plainWork{s, dir}, nil
}

// overwrite copies a tree over another.
func overwrite(dst, src string) error {
	return filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, p)
		if err != nil {
			return err
		}
		to := filepath.Join(dst, rel)
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, 0o644)
	})
}

func (s *plainStore) View(_ context.Context, layers []rootfs.Layer) (rootfs.View, error) {
	if len(layers) > 1 {
		s.checkTops(layers)
	}
	return s.tree(layers)
}

func (s *plainStore) CacheDir(key string) (string, error) {
	dir := filepath.Join(s.dir, digest.FromString(key).Encoded())
	return dir, os.MkdirAll(dir, 0o755)
}

func (s *plainStore) Spool() (string, error) { return s.dir, nil }

// Settle removes at once what nobody may want any more.
func (s *plainStore) Settle(keep []rootfs.Layer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made = slices.DeleteFunc(s.made, func(dir string) bool {
		return !slices.Contains(keep, rootfs.Layer(plainLayer{dir})) && os.RemoveAll(dir) == nil
	})
}

func (s *plainStore) Close() error { return nil }

func (w *plainWork) Path() string { return w.dir }

func (w *plainWork) StandIn() string { return "" }

func (w *plainWork) Commit(_ context.Context, hints ...rootfs.Hint) (rootfs.Layer, error) {
	w.store.count(-1, 0)
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	w.store.made = append(w.store.made, w.dir)
	w.store.tops[w.dir] = slices.Contains(hints, rootfs.Top)
	return plainLayer{w.dir}, nil
}

func (w *plainWork) Discard() error { return w.Release() }

func (w *plainWork) Release() error {
	w.store.count(-1, 0)
	return os.RemoveAll(w.dir)
}

func (l plainLayer) WriteTar(_ context.Context, out io.Writer, opts rootfs.TarOptions) error {
	tw := tar.NewWriter(out)
	err := filepath.WalkDir(l.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(l.dir, p)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: rel, Mode: 0o644, Size: int64(len(data))}
		if opts.MaxTime != nil {
			h.Uname = fmt.Sprint("at most ", *opts.MaxTime)
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err = tw.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

// script is a sandbox.Runner that runs Go functions by the last argument of a
// step.
type script map[string]func(context.Context, sandbox.Process) error

func (s script) Run(ctx context.Context, p sandbox.Process) error {
	do, ok := s[p.Args[len(p.Args)-1]]
	if !ok {
		return fmt.Errorf("no script for %q", p.Args)
	}
	return do(ctx, p)
}

// write is a step that writes a file.
func write(name, text string) func(context.Context, sandbox.Process) error {
	return func(_ context.Context, p sandbox.Process) error {
		return os.WriteFile(filepath.Join(p.Root, name), []byte(text), 0o644)
	}
}

// files reads a blob's tar.
func files(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	out := map[string]string{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return out
		}
		assert.NilError(t, err)
		data, err := io.ReadAll(tr)
		assert.NilError(t, err)
		out[h.Name] = string(data)
	}
}
