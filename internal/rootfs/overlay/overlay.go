// Package overlay keeps file trees in layers that overlayfs stacks: a base
// layer is unpacked once for all builds, and what a step changed is what is in
// its upper directory.
//
// The process must be allowed to mount, and should be in a mount namespace of
// its own. The package must not know what a Dockerfile or a registry is, nor
// what runs in its trees.
package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/org/kaniko-multiarch/internal/rootfs"
	"github.com/org/kaniko-multiarch/internal/rootfs/state"
)

// Store is a rootfs.Store in a state directory, which several processes may
// share. Below what package state has there are
//
//	layers/HEX   base layers by diff ID; they outlive a build
//	builds/ID    everything else
type Store struct {
	state *state.State
	// options are the mount options that this kernel knows.
	options []string

	mu    sync.Mutex
	bases map[digest.Digest]*tree
}

var _ rootfs.Store = (*Store)(nil)

// New opens the state directory stateDir, which is made when missing, and
// removes what killed builds left there. It fails, and says why, where
// overlayfs cannot be used.
func New(stateDir string) (_ *Store, err error) {
	dir, err := state.Open(stateDir, "layers", removeTree)
	if err != nil {
		return nil, err
	}
	s := &Store{state: dir, bases: map[digest.Digest]*tree{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, name := range []string{emptyName, "l", "v", "w"} {
		if err := os.Mkdir(s.path(name), 0o700); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(s.path(emptyName), 0o755); err != nil {
		return nil, err
	}
	if s.options, err = probe(dir.Dir()); err != nil {
		return nil, fmt.Errorf("overlayfs cannot be used in %s: %w", stateDir, err)
	}
	return s, nil
}

// Probe tells why New would fail, or nothing.
func Probe(stateDir string) error {
	s, err := New(stateDir)
	if err != nil {
		return err
	}
	return s.Close()
}

// CacheDir implements rootfs.Store.
func (s *Store) CacheDir(key string) (string, error) { return s.state.CacheDir(key) }

// Close unmounts and removes all that is this build's own: works and views
// that were not ended, and the layers of works.
func (s *Store) Close() error { return s.state.Close() }

// newDir makes a directory with a short name, given relative to the build's
// directory.
func (s *Store) newDir(kind string) (string, error) {
	name := filepath.Join(kind, s.state.NewName())
	return name, os.Mkdir(s.path(name), 0o700)
}

func (s *Store) path(name string) string { return s.state.Path(name) }
