package inplace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// DamagedError is something of the store that a step has changed and that
// cannot be made again.
type DamagedError struct {
	What string
	// Other says that the step is not the one that has failed.
	Other bool
}

func (e *DamagedError) Error() string {
	step := "the step"
	if e.Other {
		step = "another step"
	}
	return fmt.Sprintf("%s changed %s, which is not part of its own image: leave /kaniko out of what it searches (find / -path /kaniko -prune -o ...; rm, chown and chmod by name), or use --isolation=namespaces", step, e.What)
}

// Watch is for the time in which a step runs that could reach the store's
// files: as root, in one place with them. own are the paths of trees that it
// may change. done, called after the step, makes sure that no other layer or
// tree has what the step did: idle trees that changed are forgotten, and made
// again of their layers when they are wanted; works in use that may have changed
// cannot be committed, which is a *rootfs.DisturbedError; whoever wants a layer
// that was in an idle tree only, or is writing it, gets a *DamagedError; for all
// else done returns one.
//
// A step that walks through the file system is noticed by the access time of
// directories that the store itself never lists; only then there is more to do
// than a few calls of stat. That is against accidents: a step that knows where to
// look, and hides it, is not noticed.
func (s *Store) Watch(own []string) (done func(context.Context) error, err error) {
	w := &watch{own: own}
	builds := filepath.Dir(s.state.Dir())
	for dir, busy := range map[string]bool{
		filepath.Dir(builds): true, builds: true, s.state.Dir(): false,
		s.state.Path("t"): true, s.state.Path("l"): true, s.state.Thing(""): true,
	} {
		c, err := newCanary(dir, busy)
		if err != nil {
			return nil, fmt.Errorf("watching the state directory: %w", err)
		}
		w.canaries = append(w.canaries, c)
	}
	s.mu.Lock()
	s.watch = w
	s.mu.Unlock()
	return func(ctx context.Context) error { return s.unwatch(ctx, w) }, nil
}

// watch is one step's.
type watch struct {
	own      []string
	canaries []canary
}

// canary is a directory and what it looked like. In a busy one files come and
// go all the time.
type canary struct {
	dir  string
	busy bool
	was  unix.Stat_t
}

// newCanary sets the access time back, so that the next reader changes it
// wherever access times are kept at all ("relatime").
func newCanary(dir string, busy bool) (canary, error) {
	c := canary{dir: dir, busy: busy}
	var st unix.Stat_t
	if err := lstat(dir, &st); err != nil {
		return c, err
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{{Sec: 1}, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return c, err
	}
	return c, lstat(dir, &c.was)
}

func (c *canary) disturbed() bool {
	var now unix.Stat_t
	return lstat(c.dir, &now) != nil || now.Ino != c.was.Ino || now.Atim != c.was.Atim || !c.busy && now.Ctim != c.was.Ctim
}

func (w *watch) disturbed() bool {
	return w != nil && slices.ContainsFunc(w.canaries, func(c canary) bool { return c.disturbed() })
}

// owns tells whether a tree is the step's, or has a mount of it.
func (w *watch) owns(t *tree) bool {
	return slices.ContainsFunc(w.own, func(p string) bool { return p == t.dir || strings.HasPrefix(p, t.dir+"/") })
}

func (s *Store) unwatch(ctx context.Context, w *watch) error {
	disturbed := w.disturbed()
	if disturbed || s.blind() {
		// Nobody takes, makes or commits a tree meanwhile.
		s.settled.Lock()
		defer s.settled.Unlock()
	}
	s.mu.Lock()
	s.watch = nil
	uses := map[*tree]use{}
	for _, t := range s.trees {
		uses[t] = t.use
	}
	s.mu.Unlock()
	if !disturbed && !s.blind() {
		return nil
	}
	errs := []error{s.checkTars()}
	for t, use := range uses {
		if w.owns(t) {
			continue
		}
		same, err := s.unchanged(ctx, t)
		if err != nil || same {
			errs = append(errs, err)
			continue
		}
		t.disturbed = true
		switch use {
		case writing:
		case idle:
			errs = append(errs, s.drop(t))
		default:
			errs = append(errs, &DamagedError{What: "files of another stage, which are being read"})
		}
	}
	for _, name := range []string{"t", "l"} {
		if err := os.Mkdir(s.state.Path(name), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			errs = append(errs, &DamagedError{What: "the builder's state directory"})
		}
	}
	return errors.Join(errs...)
}

// blind tells whether access times are not kept here. Then every step counts as
// one that has looked around.
func (s *Store) blind() bool {
	s.look.Do(func() {
		dir := s.state.Path("t")
		c, err := newCanary(dir, true)
		if err == nil {
			_, err = os.ReadDir(dir)
		}
		s.noTimes = err != nil || !c.disturbed()
	})
	return s.noTimes
}

// unchanged tells whether a tree is as its index says.
func (t *tree) unchanged(ctx context.Context) (bool, error) {
	found, err := t.compare(ctx)
	if cause := context.Cause(ctx); cause != nil {
		return false, cause
	}
	// What cannot be read was removed.
	if err != nil || len(found.gone) > 0 {
		return false, nil
	}
	for _, c := range found.candidates {
		same, err := c.same(ctx, t.path(c.name))
		if err != nil {
			return false, fmt.Errorf("comparing %q: %w", c.name, err)
		}
		if !same {
			return false, nil
		}
	}
	var root unix.Stat_t
	if err := lstat(t.dir, &root); err != nil {
		return false, nil
	}
	is := &t.root.is
	return root.Mode == is.Mode && root.Uid == is.Uid && root.Gid == is.Gid && root.Mtim == is.Mtim, nil
}

// checkTars makes sure that the layers are what they were. A file that was
// removed is still open.
func (s *Store) checkTars() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var damaged error
	var errs []error
	for _, t := range s.tars {
		var now unix.Stat_t
		if err := unix.Fstat(int(t.file.Fd()), &now); err != nil {
			return err
		}
		if now.Size == t.was.Size && now.Mtim == t.was.Mtim {
			continue
		}
		damaged = &DamagedError{What: "a layer of another step or base image"}
		// A later build must not find it.
		errs = append(errs, os.RemoveAll(t.file.Name()))
	}
	return errors.Join(append(errs, damaged)...)
}

// savedTar is a layer's file and what it looked like when it was complete.
type savedTar struct {
	file *os.File
	was  unix.Stat_t
}

// watchTar keeps an eye on a complete layer.
func (s *Store) watchTar(f *os.File) error {
	t := savedTar{file: f}
	if err := unix.Fstat(int(f.Fd()), &t.was); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tars = append(s.tars, t)
	return nil
}

// undisturbed wants s.settled to be read-locked.
func (s *Store) undisturbed(t *tree) error {
	s.mu.Lock()
	w := s.watch
	s.mu.Unlock()
	if t.disturbed || w != nil && !w.owns(t) && w.disturbed() {
		return &rootfs.DisturbedError{}
	}
	return nil
}
