package inplace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// kind is how something was brought to its place in the tree, which says what
// becomes of it afterwards.
type kind int

const (
	// copied is dropped.
	copied kind = iota
	// temporary is dropped.
	temporary
	// moved goes back to its source.
	moved
	// synced is copied back.
	synced
	// secret is overwritten and dropped.
	secret
)

func kindOf(m sandbox.Mount, dir bool) kind {
	switch {
	case m.File != nil:
		return secret
	case m.Source == "":
		return temporary
	case m.ReadOnly:
		return copied
	case dir:
		return moved
	}
	return synced
}

// binding is one mount that was made in the tree. What it hides is at Aside.
type binding struct {
	At, Aside, Source string
	Kind              kind
	// Done means that it was made completely.
	Done bool

	held *os.File
}

// hold keeps a handle on what was mounted, to find it wherever the process
// moves it.
func (b *binding) hold() error {
	flags := unix.O_PATH
	switch b.Kind {
	case synced:
		return nil
	case secret:
		flags = os.O_RDWR
	}
	var err error
	b.held, err = os.OpenFile(b.At, flags|unix.O_NOFOLLOW, 0)
	return err
}

// undo takes the mount away again. It can be repeated.
func (b *binding) undo(tree string) error {
	err := b.takeAway(tree)
	if b.held != nil {
		err = errors.Join(err, b.held.Close())
		b.held = nil
	}
	if err != nil || !exists(b.Aside) {
		return err
	}
	parent := filepath.Dir(b.At)
	if !within(tree, parent) || exists(parent) && !isDir(parent) {
		return &ReplacedError{Path: strings.TrimPrefix(parent, tree)}
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	looks, err := readAttrs(parent)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(b.At); err != nil {
		return err
	}
	if err := unix.Rename(b.Aside, b.At); err != nil {
		return err
	}
	return looks.applyTimes(parent)
}

// within tells whether a path of the tree leads where it says: a process may
// have put a symbolic link on the way.
func within(tree, path string) bool {
	real, err := securejoin.SecureJoin(tree, strings.TrimPrefix(path, tree))
	return err == nil && real == path
}

func (b *binding) takeAway(tree string) error {
	if b.Kind == secret && b.held != nil {
		if err := wipe(b.held); err != nil {
			return err
		}
	}
	if !exists(b.Aside) {
		return nil // it was not made yet, or is undone
	}
	at := b.now(tree)
	if looks, err := readAttrs(filepath.Dir(at)); err == nil && at != "" {
		// To whoever looks for changes the parent has none. If it cannot be
		// made so the process has removed it.
		defer func() { _ = looks.applyTimes(filepath.Dir(at)) }()
	}
	switch {
	case b.Kind == moved && exists(b.Source):
		return nil // it was not moved yet, or is back
	case b.Kind == moved && at != "" && isDir(at):
		return unix.Rename(at, b.Source)
	case b.Kind == moved:
		// The process has removed it. Of a real mount it could remove what is
		// in it only.
		return os.MkdirAll(b.Source, 0o755)
	case at == "":
		return nil
	case b.Kind == synced && b.Done:
		return replace(b.Source, at)
	}
	return os.RemoveAll(at)
}

// now is where the mount is, "" for nowhere. A process may have moved it, as it
// may not under a real mount.
func (b *binding) now(tree string) string {
	if b.held != nil {
		path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", b.held.Fd()))
		if err == nil && exists(path) {
			return path
		}
	}
	if !within(tree, filepath.Dir(b.At)) || !exists(b.At) {
		return ""
	}
	return b.At
}

// wipe overwrites a secret wherever it is and however it is called now. On some
// file systems the old blocks stay until they are used again.
func wipe(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(make([]byte, info.Size()), 0); err != nil {
		return err
	}
	return f.Truncate(0)
}

// replace makes target what is at from, such that target is complete at any
// time.
func replace(target, from string) error {
	fresh, old := target+".new", target+".old"
	if err := errors.Join(os.RemoveAll(fresh), os.RemoveAll(old)); err != nil {
		return err
	}
	if !isDir(target) {
		if err := copyFile(from, fresh); err != nil {
			return err
		}
		return os.Rename(fresh, target)
	}
	if err := copyDir(context.Background(), from, fresh); err != nil {
		return err
	}
	if err := os.Rename(target, old); err != nil {
		return err
	}
	if err := os.Rename(fresh, target); err != nil {
		return err
	}
	return os.RemoveAll(old)
}
