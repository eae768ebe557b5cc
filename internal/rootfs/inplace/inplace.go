// Package inplace keeps file trees as plain directories, for places where
// nothing can be mounted. A layer is the tar it came as or was committed as, or
// stays in the tree that it was made in until somebody needs it elsewhere; a
// tree is made of the layers' entries, of which only those are unpacked that no
// upper layer hides. It has an index of what was made, so that a commit looks
// at what changed only.
//
// The package must not know what a Dockerfile or a registry is, nor what runs
// in its trees; whoever moves a tree elsewhere puts it back before the commit.
package inplace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/rootfs"
	"github.com/org/kaniko-multiarch/internal/rootfs/state"
)

// Store is a rootfs.Store in a state directory, which several processes may
// share. Below what package state has there are
//
//	tars/HEX       base layers by diff ID, uncompressed; they outlive a build
//	builds/ID/t    trees
//	builds/ID/l    layers of works, uncompressed
type Store struct {
	state *state.State

	mu    sync.Mutex
	bases map[digest.Digest]*change
	trees []*tree
	// files are open as long as the store is.
	files []io.Closer
	// tars are complete layers.
	tars []savedTar
	// watch is that of the step that runs now, if any.
	watch *watch

	// settled is read-locked by what takes, makes or commits a tree.
	settled sync.RWMutex
	// left says that files are left to the next build.
	left    bool
	look    sync.Once
	noTimes bool
}

var (
	_ rootfs.Store  = (*Store)(nil)
	_ rootfs.Parter = (*Store)(nil)
	_ rootfs.Taker  = (*Store)(nil)
)

// New opens the state directory stateDir, which is made when missing, and
// removes what killed builds left there.
func New(stateDir string) (*Store, error) {
	dir, err := state.Open(stateDir, "tars", state.RemoveAll)
	if err != nil {
		return nil, err
	}
	s := &Store{state: dir, bases: map[digest.Digest]*change{}}
	for _, name := range []string{"t", "l"} {
		if err := os.Mkdir(dir.Path(name), 0o700); err != nil {
			return nil, errors.Join(err, dir.Close())
		}
	}
	return s, nil
}

// Leave says that the state directory goes when the machine goes, as that of a
// container does. Removing a build's files takes as long as making them: they are
// left to the next build there, if there is one. It is for New's caller.
func (s *Store) Leave() { s.left = true }

// CacheDir implements rootfs.Store.
func (s *Store) CacheDir(key string) (string, error) { return s.state.CacheDir(key) }

// Spool implements rootfs.Store.
func (s *Store) Spool() (string, error) { return s.state.Spool() }

// Settle implements rootfs.Store: most layers have tars of their own, so all idle
// trees may go in which no other layer is.
func (s *Store) Settle(keep []rootfs.Layer) {
	if s.left {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var dirs []string
	s.trees = slices.DeleteFunc(s.trees, func(t *tree) bool {
		c := t.pinned()
		if t.use != idle || t.holders > 0 || c != nil && slices.Contains(keep, rootfs.Layer(c)) {
			return false
		}
		dirs = append(dirs, t.dir)
		return true
	})
	s.state.Discard(dirs...)
}

// Close removes all that is this build's own: all trees, and the layers of
// works. After Leave it only stops using them.
func (s *Store) Close() error {
	end := s.state.Close
	if s.left {
		end = s.state.Leave
	}
	err := end()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		err = errors.Join(err, f.Close())
	}
	s.files = nil
	return err
}

// change is a layer.
type change struct {
	store *Store
	// pin is set as long as the layer has neither tar nor root. It is guarded by
	// Store.mu. capturing is locked by what ends that.
	pin       *pin
	capturing sync.Mutex

	// tar is nil for a layer whose content was not kept.
	tar *os.File
	// root has the layer's entries. Its own attributes, which no tar has, are
	// those of the tree.
	root *layer.Node
	// sockets are by their paths: the tar does not have them, later steps do.
	sockets map[string]*layer.Node
	// made says that a work committed the layer.
	made bool
}

// WriteTar implements rootfs.Layer.
func (c *change) WriteTar(ctx context.Context, w io.Writer, opts rootfs.TarOptions) error {
	if !c.made {
		return errors.New("a base layer is not made by this build: take its blob from the image")
	}
	release, err := c.store.state.Hold()
	if err != nil {
		return err
	}
	defer release()
	if p := c.hold(); p != nil {
		return c.writePinned(ctx, p, w, opts)
	}
	if c.tar == nil {
		return errPassed()
	}
	info, err := c.tar.Stat()
	if err != nil {
		return err
	}
	r := &contextReader{ctx, io.NewSectionReader(c.tar, 0, info.Size())}
	if opts.MaxTime != nil {
		return layer.Replay(ctx, w, r, *opts.MaxTime)
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, r, make([]byte, 256<<10))
	return err
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// changes checks that all layers are from this store.
func (s *Store) changes(layers []rootfs.Layer) ([]*change, error) {
	out := make([]*change, len(layers))
	for i, l := range layers {
		c, ok := l.(*change)
		if !ok || c.store != s {
			return nil, fmt.Errorf("a layer of type %T is not from this store", l)
		}
		out[i] = c
	}
	return out, nil
}

// keep closes f with the store.
func (s *Store) keep(f io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = append(s.files, f)
}

// newTree returns a tree that has nothing yet, not even a directory.
func (s *Store) newTree() *tree {
	return &tree{
		dir:   s.state.Path(filepath.Join("t", s.state.NewName())),
		index: newIndex(),
	}
}

// emptyRoot is the root of a tree of which nobody said anything else.
func emptyRoot() *layer.Node { return &layer.Node{Mode: unix.S_IFDIR | 0o755} }
