// Package state keeps the directory in which a rootfs.Store has its files: what
// outlives a build, what belongs to one build, and the removal of what killed
// builds left.
//
// It must not know what a layer or a tree looks like.
package state

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
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sync/singleflight"
)

const (
	usersName = "users"
	// partSuffix ends the name of a thing that is not complete.
	partSuffix = ".part"
	// lockDelay is the time between two looks at a lock that another process
	// holds.
	lockDelay = 20 * time.Millisecond
)

// State is the part of a state directory that one build uses. It is safe for
// concurrent use, by several processes too:
//
//	KIND/NAME    things that outlive a build
//	locks/NAME   held while such a thing is made
//	locks/ID     held as long as a build lives
//	cache/HASH   cache directories; they outlive a build
//	builds/ID    everything else, removed by Close or by the next Open
//	lock         held while directories of builds come and go
//	users        held, with others, as long as a build lives; by Prune alone
type State struct {
	root, kind string
	// dir is the directory of this build.
	dir string
	// alive is locked as long as this build is.
	alive *flock.Flock
	// users keeps Prune away.
	users  *flock.Flock
	remove func(dir string) error

	names   atomic.Int64
	flights singleflight.Group
	closing sync.Once
	closed  error
	// removing is read-locked by what makes new things in dir.
	removing sync.RWMutex
	gone     bool
}

// Open opens the state directory dir, which is made when missing, and removes
// what killed builds left there. Things of the given kind outlive a build;
// remove removes the directory of one.
func Open(dir, kind string, remove func(dir string) error) (*State, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"", kind, "locks", "cache", "builds"} {
		// Images have set-user-ID programs that are for nobody here.
		if err := os.MkdirAll(filepath.Join(root, name), 0o700); err != nil {
			return nil, fmt.Errorf("making the state directory: %w", err)
		}
	}
	s := &State{root: root, kind: kind, remove: remove}
	if err := s.begin(); err != nil {
		return nil, err
	}
	return s, nil
}

// begin makes the directory of this build.
func (s *State) begin() error {
	lock := flock.New(filepath.Join(s.root, "lock"))
	if err := lock.Lock(); err != nil {
		return fmt.Errorf("locking the state directory: %w", err)
	}
	defer lock.Close()
	s.users = flock.New(filepath.Join(s.root, usersName))
	if err := s.users.RLock(); err != nil {
		return fmt.Errorf("locking the state directory: %w", err)
	}
	if err := s.make(); err != nil {
		return errors.Join(err, s.users.Close())
	}
	return nil
}

func (s *State) make() error {
	if err := s.sweep(); err != nil {
		return fmt.Errorf("removing what an earlier build left: %w", err)
	}
	dir, err := os.MkdirTemp(filepath.Join(s.root, "builds"), "")
	if err != nil {
		return err
	}
	s.dir = dir
	s.alive = flock.New(s.LockName(filepath.Base(dir)))
	return s.alive.Lock()
}

// sweep removes the directories of builds that nobody holds a lock of, and
// things that were not made to the end.
func (s *State) sweep() error {
	if err := s.sweepBuilds(); err != nil {
		return err
	}
	parts, err := filepath.Glob(filepath.Join(s.root, s.kind, "*"+partSuffix))
	if err != nil {
		return err
	}
	for _, part := range parts {
		name := s.LockName(strings.TrimSuffix(filepath.Base(part), partSuffix))
		if err := ifDead(name, func() error { return os.RemoveAll(part) }); err != nil {
			return err
		}
	}
	return nil
}

// sweepBuilds removes the directories of builds that nobody holds a lock of.
func (s *State) sweepBuilds() error {
	builds, err := filepath.Glob(filepath.Join(s.root, "builds", "*"))
	if err != nil {
		return err
	}
	for _, dir := range builds {
		name := s.LockName(filepath.Base(dir))
		// The lock goes last, so that nobody takes it for free before.
		if err := ifDead(name, func() error { return errors.Join(s.remove(dir), os.Remove(name)) }); err != nil {
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

// CacheDir is that of rootfs.Store.
func (s *State) CacheDir(key string) (string, error) {
	sum := sha256.Sum256([]byte(key))
	name := hex.EncodeToString(sum[:])
	if err := s.used(name); err != nil {
		return "", fmt.Errorf("making a cache directory: %w", err)
	}
	dir := filepath.Join(s.root, "cache", name)
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

// Spool is that of rootfs.Store.
func (s *State) Spool() (string, error) {
	dir := s.Path("spool")
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("making a directory for layers: %w", err)
	}
	return dir, nil
}

// Close removes all that is this build's own, after everything that Hold keeps
// was released.
func (s *State) Close() error { return s.end(s.clear) }

// Leave is Close, but the files are left to whoever opens the directory next.
func (s *State) Leave() error { return s.end(func() error { return nil }) }

func (s *State) clear() error {
	if err := s.remove(s.dir); err != nil {
		return fmt.Errorf("removing the files of the build: %w", err)
	}
	return os.Remove(s.alive.Path())
}

func (s *State) end(clear func() error) error {
	s.closing.Do(func() {
		s.removing.Lock()
		defer s.removing.Unlock()
		s.gone = true
		s.closed = clear()
		s.closed = errors.Join(s.closed, s.alive.Close(), s.users.Close())
	})
	return s.closed
}

// Hold keeps Close from removing the build's directory until release is called.
func (s *State) Hold() (release func(), err error) {
	s.removing.RLock()
	if s.gone {
		s.removing.RUnlock()
		return nil, errors.New("the store of file trees is closed")
	}
	return s.removing.RUnlock, nil
}

// Dir is the directory of this build.
func (s *State) Dir() string { return s.dir }

// Path is a path in the directory of this build.
func (s *State) Path(name string) string { return filepath.Join(s.dir, name) }

// NewName returns a short name that no other call returns.
func (s *State) NewName() string { return strconv.FormatInt(s.names.Add(1), 36) }

// Thing is the path of something that outlives the build.
func (s *State) Thing(name string) string { return filepath.Join(s.root, s.kind, name) }

// LockName is the file that is locked for name.
func (s *State) LockName(name string) string { return filepath.Join(s.root, "locks", name) }

// Make makes a thing, complete or not at all, unless it is there. Several
// processes share the work. make gets the path of what Make then renames; it
// is removed when that fails.
func (s *State) Make(ctx context.Context, name string, make func(part string) error) (err error) {
	if err := s.used(name); err != nil {
		return err
	}
	thing := s.Thing(name)
	if _, err := os.Lstat(thing); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	lock := flock.New(s.LockName(name))
	if _, err := lock.TryLockContext(ctx, lockDelay); err != nil {
		return fmt.Errorf("locking %s: %w", lock.Path(), err)
	}
	defer lock.Close()
	if _, err := os.Lstat(thing); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	part := thing + partSuffix
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(part))
		}
	}()
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if err := make(part); err != nil {
		return err
	}
	return os.Rename(part, thing)
}

// Share calls do once for all concurrent calls with one key. When the caller
// that does the work for the others is cancelled, another one does it again.
func (s *State) Share(ctx context.Context, key string, do func() error) error {
	for {
		_, err, _ := s.flights.Do(key, func() (any, error) {
			err := do()
			if err != nil && ctx.Err() != nil {
				err = &abandonedError{err}
			}
			return nil, err
		})
		if err == nil {
			return nil
		}
		if _, ok := errors.AsType[*abandonedError](err); !ok || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lockDelay):
		}
	}
}

// abandonedError is what others get when the caller that did the work for them
// was cancelled.
type abandonedError struct{ err error }

func (e *abandonedError) Error() string { return e.err.Error() }
func (e *abandonedError) Unwrap() error { return e.err }
