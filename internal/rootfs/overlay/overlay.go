// Package overlay keeps file trees in layers that overlayfs stacks: a base
// layer is unpacked once for all builds, and what a step changed is what is in
// its upper directory.
//
// The process must be allowed to mount, and should be in a mount namespace of
// its own. The package must not know what a Dockerfile or a registry is, nor
// what runs in its trees.
package overlay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gofrs/flock"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"

	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// Store is a rootfs.Store in a state directory, which several processes may
// share:
//
//	layers/HEX   base layers by diff ID; they outlive a build
//	locks/HEX    held while a base layer is unpacked
//	locks/ID     held as long as a build lives
//	cache/HASH   cache directories; they outlive a build
//	builds/ID    everything else, removed by Close or by the next New
//	lock         held while directories of builds come and go
type Store struct {
	state string
	// dir is the directory of this build.
	dir string
	// alive is locked as long as this build is.
	alive *flock.Flock
	// options are the mount options that this kernel knows.
	options []string

	names   atomic.Int64
	flights singleflight.Group
	mu      sync.Mutex
	bases   map[digest.Digest]*tree
	closing sync.Once
	closed  error
	// removing is read-locked by what makes new things in dir.
	removing sync.RWMutex
	gone     bool
}

var _ rootfs.Store = (*Store)(nil)

// New opens the state directory stateDir, which is made when missing, and
// removes what killed builds left there. It fails, and says why, where
// overlayfs cannot be used.
func New(stateDir string) (_ *Store, err error) {
	state, err := filepath.Abs(stateDir)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"", "layers", "locks", "cache", "builds"} {
		// Images have set-user-ID programs that are for nobody here.
		if err := os.MkdirAll(filepath.Join(state, name), 0o700); err != nil {
			return nil, fmt.Errorf("making the state directory: %w", err)
		}
	}
	s := &Store{state: state, bases: map[digest.Digest]*tree{}}
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, name := range []string{emptyName, "l", "v", "w"} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o700); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(filepath.Join(s.dir, emptyName), 0o755); err != nil {
		return nil, err
	}
	if s.options, err = probe(s.dir); err != nil {
		return nil, fmt.Errorf("overlayfs cannot be used in %s: %w", state, err)
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

// begin makes the directory of this build.
func (s *Store) begin() error {
	lock := flock.New(filepath.Join(s.state, "lock"))
	if err := lock.Lock(); err != nil {
		return fmt.Errorf("locking the state directory: %w", err)
	}
	defer lock.Close()
	if err := s.sweep(); err != nil {
		return fmt.Errorf("removing what an earlier build left: %w", err)
	}
	dir, err := os.MkdirTemp(filepath.Join(s.state, "builds"), "")
	if err != nil {
		return err
	}
	s.dir = dir
	s.alive = flock.New(s.lockName(filepath.Base(dir)))
	return s.alive.Lock()
}

// sweep removes the directories of builds that nobody holds a lock of, and
// layers that were not unpacked to the end.
func (s *Store) sweep() error {
	builds, err := filepath.Glob(filepath.Join(s.state, "builds", "*"))
	if err != nil {
		return err
	}
	for _, dir := range builds {
		name := s.lockName(filepath.Base(dir))
		// The lock goes last, so that nobody takes it for free before.
		if err := ifDead(name, func() error { return errors.Join(removeTree(dir), os.Remove(name)) }); err != nil {
			return err
		}
	}
	layers, err := filepath.Glob(filepath.Join(s.state, "layers", "*"+partSuffix))
	if err != nil {
		return err
	}
	for _, part := range layers {
		name := s.lockName(strings.TrimSuffix(filepath.Base(part), partSuffix))
		if err := ifDead(name, func() error { return os.RemoveAll(part) }); err != nil {
			return err
		}
	}
	return nil
}

// ifDead calls do when nobody holds the lock.
func ifDead(lock string, do func() error) error {
	l := flock.New(lock)
	if ok, err := l.TryLock(); err != nil || !ok {
		return err
	}
	return errors.Join(do(), l.Close())
}

// CacheDir implements rootfs.Store.
func (s *Store) CacheDir(key string) (string, error) {
	sum := sha256.Sum256([]byte(key))
	dir := filepath.Join(s.state, "cache", hex.EncodeToString(sum[:]))
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, os.ErrExist) {
		return dir, nil
	}
	if err != nil {
		return "", fmt.Errorf("making a cache directory: %w", err)
	}
	// Whatever the umask is.
	return dir, os.Chmod(dir, 0o755)
}

// Close unmounts and removes all that is this build's own: works and views
// that were not ended, and the layers of works.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.removing.Lock()
		defer s.removing.Unlock()
		s.gone = true
		if err := removeTree(s.dir); err != nil {
			s.closed = fmt.Errorf("removing the files of the build: %w", err)
		} else {
			s.closed = os.Remove(s.alive.Path())
		}
		s.closed = errors.Join(s.closed, s.alive.Close())
	})
	return s.closed
}

// hold keeps Close from removing the build's directory until release is called.
func (s *Store) hold() (release func(), err error) {
	s.removing.RLock()
	if s.gone {
		s.removing.RUnlock()
		return nil, errors.New("the store of file trees is closed")
	}
	return s.removing.RUnlock, nil
}

// newDir makes a directory with a short name, given relative to s.dir.
func (s *Store) newDir(kind string) (string, error) {
	name := filepath.Join(kind, s.newName())
	return name, os.Mkdir(s.path(name), 0o700)
}

func (s *Store) newName() string { return strconv.FormatInt(s.names.Add(1), 36) }

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Store) lockName(name string) string { return filepath.Join(s.state, "locks", name) }

// lock waits for a lock file until ctx is done.
func lock(ctx context.Context, name string) (*flock.Flock, error) {
	l := flock.New(name)
	if _, err := l.TryLockContext(ctx, lockDelay); err != nil {
		return nil, fmt.Errorf("locking %s: %w", name, err)
	}
	return l, nil
}
