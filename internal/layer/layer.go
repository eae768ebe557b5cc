// Package layer turns changes of a file tree into an OCI image layer (a tar,
// its digest and a compressed blob) and a layer back into files. Everything
// streams: the memory used does not depend on the size of a layer.
//
// It must not know what a registry, a Dockerfile or a mount is, nor how the
// changes were found.
package layer

import (
	"cmp"
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// Kind says what happened to a path.
type Kind int

const (
	// Modify is an entry that was added or is different now.
	Modify Kind = iota
	// Delete is an entry that is gone.
	Delete
)

// Change is one difference between two trees.
type Change struct {
	// Path is relative to the root of the tree, clean and slash-separated. Any
	// bytes but NUL may be in it.
	Path string
	Kind Kind
}

// Names with a meaning in a layer, image-spec layer.md "Whiteouts".
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	// aufsPrefix starts the names that aufs used for itself.
	aufsPrefix = ".wh..wh."
)

// check refuses what a layer cannot say.
func (c Change) check() error {
	if c.Path == "." || !filepath.IsLocal(c.Path) || path.Clean(c.Path) != c.Path {
		return fmt.Errorf("%q is not a clean path within a tree", c.Path)
	}
	if c.Kind == Modify && strings.HasPrefix(path.Base(c.Path), whiteoutPrefix) {
		return fmt.Errorf("%q cannot be in an image layer, where names that start with %s stand for deleted files: rename or exclude it", c.Path, whiteoutPrefix)
	}
	return nil
}

// comparePaths orders a directory before what is in it, and that before the
// directory's next sibling.
func comparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		if a[i] == '/' {
			return -1
		}
		if b[i] == '/' {
			return 1
		}
		return cmp.Compare(a[i], b[i])
	}
	return cmp.Compare(len(a), len(b))
}
