// Package fileop applies one file action of a graph to a directory tree:
// copies, new files and directories, links, removals, unpacked archives. The
// results equal those of BuildKit's file operation.
//
// A tree is a plain directory. Symbolic links in it are followed as if its root
// were "/", so nothing outside of it is read or written, and nothing is mounted,
// chrooted or run. The package must not know what a Dockerfile, a vertex, an
// image or a mount is.
package fileop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	fscopy "github.com/tonistiigi/fsutil/copy"

	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/ids"
)

// ID is an owner in numbers.
type ID struct{ UID, GID int }

// Warn takes what is no error but rarely meant, for people.
type Warn func(text string)

func (w Warn) say(format string, args ...any) {
	if w != nil {
		w(fmt.Sprintf(format, args...))
	}
}

// Source is the tree that a Copy reads, an empty directory for graph.None. One to
// spare is not needed afterwards.
type Source struct {
	Dir   string
	Spare bool
}

// Apply does change to the tree at dst. Only a Copy reads src. Names of owners are
// looked up in the directories that tree returns. warn may be nil.
func Apply(ctx context.Context, dst string, src Source, change graph.FileChange, tree Tree, warn Warn) error {
	switch do := change.(type) {
	case *graph.Copy:
		owner, err := ResolveOwner(do.Owner, tree, warn)
		if err != nil {
			return err
		}
		return copyFrom(ctx, dst, src, do, owner, warn)
	case *graph.Mkfile:
		owner, err := ResolveOwner(do.Owner, tree, warn)
		if err != nil {
			return err
		}
		return Mkfile(dst, do, owner)
	case *graph.Mkdir:
		owner, err := ResolveOwner(do.Owner, tree, warn)
		if err != nil {
			return err
		}
		return Mkdir(dst, do, owner)
	case *graph.Symlink:
		owner, err := ResolveOwner(do.Owner, tree, warn)
		if err != nil {
			return err
		}
		return Symlink(dst, do, owner)
	case *graph.Remove:
		return Remove(dst, do)
	default:
		return fmt.Errorf("file action of type %T is unknown", change)
	}
}

// NotFoundError is a source that a Copy asks for and that does not exist.
type NotFoundError struct {
	// Path is absolute within the source tree.
	Path string
}

func (e *NotFoundError) Error() string { return fmt.Sprintf("%q: not found", e.Path) }

// chowner gives everything to owner; nil keeps what the source says.
func chowner(owner *ID) fscopy.Chowner {
	if owner == nil {
		return nil
	}
	return func(*fscopy.User) (*fscopy.User, error) {
		return &fscopy.User{UID: owner.UID, GID: owner.GID}, nil
	}
}

// treeError is an error whose text shows paths as the build sees them, not
// where its trees are on this machine.
type treeError struct {
	err   error
	roots []string
}

func inTree(err error, roots ...string) error {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok && p.Op == "lchown" {
		err = ids.Explain(err, "setting the owner of %s", p.Path)
	}
	// The longest first: one root's path may start with another's.
	slices.SortFunc(roots, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return &treeError{err: err, roots: roots}
}

func (e *treeError) Error() string {
	msg := e.err.Error()
	for _, root := range e.roots {
		if root == "/" || root == "." {
			continue
		}
		msg = strings.ReplaceAll(msg, root+"/", "/")
		msg = strings.ReplaceAll(msg, root, "/")
	}
	return msg
}

func (e *treeError) Unwrap() error { return e.err }
