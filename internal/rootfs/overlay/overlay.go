// Package overlay keeps file trees in layers that overlayfs stacks: a base
// layer is unpacked once for all builds, and what a step changed is what is in
// its upper directory.
//
// The process must be allowed to mount, and should be in a mount namespace of
// its own. The package must not know what a Dockerfile or a registry is, nor
// what runs in its trees.
package overlay

import (
	"crypto/sha256"
	"errors"
	"fmt"
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
//	layers/HEX   base layers by diff ID; they outlive a build
//	builds/ID    everything else
type Store struct {
	state *state.State
	// options are the mount options that this kernel knows.
	options []string
	naming  naming

	mu    sync.Mutex
	bases map[digest.Digest]*tree
	// made are the layers of works whose files are still there.
	made []*tree
	// standIns are those of all bases: a step can mount trees that it does not
	// run in.
	standIns map[layer.Copy]bool
}

var _ rootfs.Store = (*Store)(nil)

// standIn marks what stands for something that our user namespace cannot have;
// see layer.StandsFor.
const standIn = "user.kaniko-multiarch.instead"

// New opens the state directory stateDir, which is made when missing, and
// removes what killed builds left there. It fails, and says why, where
// overlayfs cannot be used.
//
// In a user namespace it uses a directory of its own below stateDir, one for
// each map of IDs: others could not read, nor remove, what is in it.
func New(stateDir string) (_ *Store, err error) {
	naming, err := namingIn(stateDir)
	if err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	root := stateDir
	if naming == asUser {
		if root, err = ofMaps(stateDir); err != nil {
			return nil, err
		}
	}
	dir, err := state.Open(root, "layers", removeTree)
	if err != nil {
		return nil, err
	}
	s := &Store{state: dir, naming: naming, bases: map[digest.Digest]*tree{}, standIns: map[layer.Copy]bool{}}
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
	if s.options, err = naming.probe(dir.Dir()); err != nil {
		return nil, fmt.Errorf("overlayfs cannot be used in %s: %w", stateDir, err)
	}
	return s, nil
}

// namingIn finds out whether we are root outside of a user namespace. Maps do
// not tell: one namespace can have all the IDs of another.
func namingIn(dir string) (_ naming, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp)) }()
	if errors.Is(unix.Lsetxattr(tmp, string(asRoot)+"probe", nil, 0), unix.EPERM) {
		return asUser, nil
	}
	return asRoot, nil
}

// ofMaps is a directory below dir for what has owners of our maps.
func ofMaps(dir string) (string, error) {
	hash := sha256.New()
	for _, name := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		text, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("reading which ids there are: %w", err)
		}
		hash.Write(text)
	}
	return filepath.Join(dir, fmt.Sprintf("user-%.6x", hash.Sum(nil))), nil
}

// standIn is empty where everything can be made.
func (s *Store) standIn() string {
	if s.naming == asUser {
		return standIn
	}
	return ""
}

func (s *Store) looksLikeStandIn(c layer.Copy) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.standIns[c]
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

// Spool implements rootfs.Store.
func (s *Store) Spool() (string, error) { return s.state.Spool() }

// Settle implements rootfs.Store.
func (s *Store) Settle(keep []rootfs.Layer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var dirs []string
	s.made = slices.DeleteFunc(s.made, func(t *tree) bool {
		if slices.Contains(keep, rootfs.Layer(t)) {
			return false
		}
		dirs = append(dirs, filepath.Dir(t.dir))
		return true
	})
	s.state.Discard(dirs...)
}

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
