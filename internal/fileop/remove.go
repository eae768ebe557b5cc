package fileop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	cfs "github.com/containerd/continuity/fs"
	fscopy "github.com/tonistiigi/fsutil/copy"

	"github.com/org/kaniko-multiarch/internal/graph"
)

// Remove removes r.Path, with all that is below it, from the tree at dst. A
// symbolic link is removed itself, what it points to stays.
func Remove(dst string, r *graph.Remove) error {
	dst = filepath.Clean(dst)
	paths := []string{r.Path}
	if r.Wildcard {
		var err error
		if paths, err = fscopy.ResolveWildcards(dst, cleanPath(r.Path), false); err != nil {
			return fmt.Errorf("removing %s: %w", r.Path, inTree(err, dst))
		}
	}
	for _, p := range paths {
		if err := remove(dst, p, r.AllowNotFound); err != nil {
			return fmt.Errorf("removing %s: %w", p, inTree(err, dst))
		}
	}
	return nil
}

func remove(dst, name string, allowNotFound bool) error {
	dir, base := filepath.Split(filepath.Join("/", name))
	if base == "" {
		return errors.New("the root cannot be removed")
	}
	dir, err := cfs.RootPath(dst, dir)
	if err != nil {
		return err
	}
	p := filepath.Join(dir, base)
	if _, err := os.Lstat(p); err != nil && !allowNotFound {
		return err
	}
	return os.RemoveAll(p)
}
