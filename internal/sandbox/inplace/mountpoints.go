package inplace

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mountPoints returns the mounts below root by their path in it, and each one's
// path by its number. A later mount at the same place hides an earlier one.
func mountPoints(root string) (types map[string]string, paths map[int]string, err error) {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, nil, fmt.Errorf("listing mounts: %w", err)
	}
	types, paths = map[string]string{}, map[int]string{}
	for _, m := range mounts {
		rel, err := filepath.Rel(root, m.Mountpoint)
		if err != nil || rel == "." || rel == ".." || strings.HasPrefix(rel, "../") {
			continue
		}
		types[rel] = m.FSType
		paths[m.ID] = rel
	}
	return types, paths, nil
}

// MovedError is a mount of the container that a step has moved together with
// the directory that it lies in.
type MovedError struct{ Path string }

func (e *MovedError) Error() string {
	return fmt.Sprintf("the step moved %s, which holds mounts of the builder's container: copy what is in it instead, or use --isolation=namespaces", e.Path)
}

// bringBackMounts moves directories back that a process has moved together with
// the mounts in them.
func bringBackMounts(root string, before map[int]string) error {
	_, now, err := mountPoints(root)
	if err != nil {
		return err
	}
	var moved error
	for id, was := range before {
		is, ok := now[id]
		if !ok || is == was {
			continue
		}
		from, to := is, was
		for filepath.Base(from) == filepath.Base(to) && filepath.Dir(from) != "." && filepath.Dir(to) != "." {
			from, to = filepath.Dir(from), filepath.Dir(to)
		}
		moved = &MovedError{Path: "/" + to}
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(to)), 0o755); err != nil {
			return err
		}
		// Where something new is in the way this fails, and what is missing is
		// named later.
		err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, from), unix.AT_FDCWD, filepath.Join(root, to), unix.RENAME_NOREPLACE)
		if err != nil {
			return fmt.Errorf("%w (moving it back from /%s: %w)", moved, from, err)
		}
		if _, now, err = mountPoints(root); err != nil {
			return err
		}
	}
	return moved
}
