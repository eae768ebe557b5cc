package inplace

import (
	"context"
	"io"
	"io/fs"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/filetree"
	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// List implements rootfs.Parter.
func (s *Store) List(ctx context.Context, layers []rootfs.Layer) (filetree.Tree, error) {
	changes, err := s.changes(layers)
	if err != nil {
		return nil, err
	}
	release, err := s.state.Hold()
	if err != nil {
		return nil, err
	}
	defer release()
	s.settled.RLock()
	defer s.settled.RUnlock()
	if err := captured(ctx, changes); err != nil {
		return nil, err
	}
	x := newIndex()
	for _, c := range changes {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		x.apply(c)
	}
	return listing{x.root}, nil
}

// listing is the files of an index.
type listing struct{ root *entry }

// Lstat implements filetree.Tree.
func (l listing) Lstat(name string) (*filetree.Stat, error) {
	return filetree.Follow(name, func(name string) (*filetree.Stat, bool) {
		e := l.find(name)
		if e == nil {
			return nil, false
		}
		return stat(e.node), true
	})
}

func (l listing) find(name string) *entry {
	if name == "/" {
		return l.root
	}
	return l.root.lookup(name[1:])
}

func stat(n *layer.Node) *filetree.Stat {
	s := &filetree.Stat{Mode: n.Mode, UID: uint32(n.UID), GID: uint32(n.GID), Rdev: n.Rdev, Target: n.Target}
	if s.IsLink() {
		s.Mode |= 0o777 // whatever a tar says
	}
	if !n.IsDir() && n.Links > 1 {
		s.Links = n
	}
	return s
}

// ReadDir implements filetree.Tree.
func (l listing) ReadDir(name string) ([]string, error) {
	e := l.find(name)
	if e == nil || e.children == nil {
		return nil, missingFile("readdir", name)
	}
	return slices.Sorted(maps.Keys(e.children)), nil
}

// Xattrs implements filetree.Tree.
func (l listing) Xattrs(name string) (map[string]string, error) {
	e := l.find(name)
	if e == nil {
		return nil, missingFile("xattrs", name)
	}
	return e.node.Xattrs, nil
}

// Open implements filetree.Tree.
func (l listing) Open(name string) (io.ReadCloser, error) {
	e := l.find(name)
	if e == nil || e.node.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, missingFile("open", name)
	}
	if e.from.tar == nil {
		return nil, errPassed()
	}
	content, err := e.node.Open(e.from.tar)
	return io.NopCloser(content), err
}

func missingFile(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}
