package inplace

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// mountSpace names our mount namespace. The numbers of namespaces are used again
// soon, so that of the first process of its container goes with it: when that
// was started, in ticks since the machine was.
func mountSpace() (string, error) {
	space, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return "", fmt.Errorf("finding the mount namespace: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("finding the mount namespace: %w", err)
	}
	first, err := os.ReadFile("/proc/1/stat")
	if err != nil {
		return "", fmt.Errorf("finding the mount namespace: %w", err)
	}
	// "PID (NAME) STATE ...": the 22nd field, the name may contain anything.
	fields := strings.Fields(string(first[bytes.LastIndexByte(first, ')')+1:]))
	if len(fields) < 20 {
		return "", errors.New("finding the mount namespace: /proc/1/stat is incomplete")
	}
	return strings.Join([]string{space, strings.TrimSpace(string(boot)), fields[19]}, " "), nil
}

// seeMounts finds out whether the container was started again while a step's
// files were in the root. Then all mounts are at their places in the root,
// among those files, instead of in the stash.
func (j *journal) seeMounts() error {
	space, err := mountSpace()
	if err != nil || space == j.Space {
		return err
	}
	types, _, err := mountPoints(j.Root)
	if err != nil {
		return err
	}
	j.fresh = map[string]bool{}
	for point := range types {
		j.fresh[point] = true
	}
	return nil
}

func (j *journal) restarted() bool { return j.fresh != nil }

// mounted tells whether p in the root is a new mount point, or has one below it.
func (j *journal) mounted(p string) bool {
	for point := range j.fresh {
		if point == p || strings.HasPrefix(point, p+"/") {
			return true
		}
	}
	return false
}

// part moves what is no mount from the root to the tree. The directories on the
// way to mounts stay: they cannot be told from those that the runtime made.
func (j *journal) part(p string) error {
	if j.fresh[p] || !isDir(j.inRoot(p)) {
		return nil
	}
	if err := os.Mkdir(j.inTree(p), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	names, err := readNames(j.inRoot(p))
	if err != nil {
		return err
	}
	errs := []error{err}
	for _, name := range names {
		sub := path.Join(p, name)
		if j.mounted(sub) {
			errs = append(errs, j.part(sub))
		} else if err := unix.Rename(j.inRoot(sub), j.inTree(sub)); err != nil {
			errs = append(errs, j.notBack(j.inRoot(sub), j.inTree(sub), err))
		}
	}
	return errors.Join(errs...)
}

// merge moves from the stash to a directory that the runtime has made anew.
func (j *journal) merge(p string) error {
	from, to := j.inStash(p), j.inRoot(p)
	switch {
	case !exists(to):
		if err := unix.Rename(from, to); err != nil {
			return j.notBack(from, to, err)
		}
		return nil
	case j.fresh[p]:
		// What is in the stash is where the former mount was.
		if err := os.Remove(from); err != nil {
			return j.notBack(from, to, err)
		}
		return nil
	case !isDir(from) || !isDir(to):
		return j.notBack(from, to, unix.EEXIST)
	}
	looks, err := readAttrs(from)
	if err != nil {
		return err
	}
	names, err := readNames(from)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, j.merge(path.Join(p, name)))
	}
	errs = append(errs, looks.apply(to))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.Remove(from)
}
