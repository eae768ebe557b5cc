package inplace

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// LostError is what a step has deleted although it belongs to the builder's
// container.
type LostError struct{ Paths []string }

func (e *LostError) Error() string {
	return fmt.Sprintf("the step deleted files of the builder's container: %s: start the next build in a fresh container, and keep the step to the image's own files", strings.Join(e.Paths, ", "))
}

// ReplacedError is a directory that a step has replaced although a mount was in
// it.
type ReplacedError struct{ Path string }

func (e *ReplacedError) Error() string {
	return fmt.Sprintf("the step replaced %s, which holds a mount: it must stay a directory until the step ends", e.Path)
}

// leave is the way out, from any point and after any interruption. It goes on
// after an error, so that as much as possible is back; what it could not put
// back it names. What the process is to blame for it leaves to blame.
func (j *journal) leave() error {
	errs := []error{release(filepath.Dir(j.Stash))}
	switch j.Phase {
	case entering:
		errs = append(errs, j.withdraw())
	case swapped:
		if !j.restarted() {
			errs = append(errs, restoreDevices(j.inRoot("dev"), j.Devices))
		}
		for _, l := range j.Levels {
			if l.Path == "" {
				errs = append(errs, j.collect(l))
			}
		}
	}
	// A second try would take for the tree's what is back by then.
	errs = append(errs, j.reach(leaving), j.bringBack())
	for _, b := range slices.Backward(j.Mounts) {
		err := b.undo(j.Tree)
		if fault := (*ReplacedError)(nil); errors.As(err, &fault) {
			// What the mount hid has no place any more.
			j.faults = append(j.faults, err, os.RemoveAll(b.Aside))
		} else if err != nil {
			errs = append(errs, fmt.Errorf("unmounting %s: %w", strings.TrimPrefix(b.At, j.Tree), sandbox.Cause(err)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("swapping the image's files out: %w", err)
	}
	return nil
}

// withdraw undoes a way in that was not finished.
func (j *journal) withdraw() error {
	var errs []error
	for _, p := range slices.Backward(j.Placed) {
		if exists(j.inTree(p)) || !exists(j.inRoot(p)) {
			continue
		}
		if j.mounted(p) {
			errs = append(errs, j.part(p))
			continue
		}
		if err := unix.Rename(j.inRoot(p), j.inTree(p)); err != nil {
			errs = append(errs, j.notBack(j.inRoot(p), j.inTree(p), err))
		}
	}
	for _, l := range slices.Backward(j.Levels) {
		if l.Both {
			errs = append(errs, l.Tree.apply(j.inTree(l.Path)))
		}
	}
	return errors.Join(errs...)
}

// collect moves what is in a directory of the root now back to the tree, and
// gives the tree's directory the looks that the process left.
func (j *journal) collect(l level) error {
	var errs []error
	dir := j.inRoot(l.Path)
	now, err := readAttrs(dir)
	if err != nil {
		return err
	}
	for _, sub := range j.below(l.Path) {
		if !sub.Removed && isDir(j.inRoot(sub.Path)) {
			errs = append(errs, j.collect(sub))
		} else if sub.Both {
			errs = append(errs, j.abandon(sub))
		}
	}
	names, err := readNames(dir)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	if l.Path == "" {
		errs = append(errs, os.MkdirAll(j.Tree, 0o755))
	}
	var move []string
	for _, name := range names {
		p := path.Join(l.Path, name)
		sub := j.level(p)
		switch {
		case slices.Contains(l.Keeps, name) || sub != nil && !sub.Removed && isDir(j.inRoot(p)):
		case j.mounted(p):
			errs = append(errs, j.part(p))
		default:
			move = append(move, name)
		}
	}
	if len(move) > 0 {
		errs = append(errs, j.toTree(l.Path, move))
	}
	if isDir(j.inTree(l.Path)) {
		errs = append(errs, now.apply(j.inTree(l.Path)))
	}
	return errors.Join(errs...)
}

// toTree moves names of a directory of the root back to the tree.
func (j *journal) toTree(dir string, names []string) error {
	from, to := j.inRoot(dir), j.inTree(dir)
	// A step that deletes all that it can finds the tree's directory, too.
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Open(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	var errs []error
	for _, name := range names {
		if err := unix.Renameat(int(src.Fd()), name, int(dst.Fd()), name); err != nil {
			errs = append(errs, j.notBack(path.Join(from, name), path.Join(to, name), err))
		}
	}
	return errors.Join(errs...)
}

// below returns the levels right below a directory.
func (j *journal) below(dir string) []level {
	var out []level
	for _, l := range j.Levels {
		if l.Path != "" && path.Join(dir, path.Base(l.Path)) == l.Path {
			out = append(out, l)
		}
	}
	return out
}

// abandon is for a directory that the process has removed or replaced. What
// remains of it in the tree are files that the process could not see.
func (j *journal) abandon(l level) error {
	for _, sub := range j.below(l.Path) {
		if err := j.abandon(sub); err != nil {
			return err
		}
	}
	if exists(j.inRoot(l.Path)) {
		return os.RemoveAll(j.inTree(l.Path))
	}
	err := os.Remove(j.inTree(l.Path))
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// bringBack moves the stash to the root.
func (j *journal) bringBack() error {
	var errs []error
	j.lost = nil
	for _, l := range j.Levels {
		if err := os.Mkdir(j.inRoot(l.Path), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			errs = append(errs, err)
		}
	}
	for _, p := range j.Stashed {
		switch {
		case !exists(j.inStash(p)):
			if !exists(j.inRoot(p)) {
				j.lost = append(j.lost, "/"+p)
			}
		case j.restarted():
			errs = append(errs, j.merge(p))
		case exists(j.inRoot(p)):
			errs = append(errs, j.notBack(j.inStash(p), j.inRoot(p), unix.EEXIST))
		default:
			if err := unix.Rename(j.inStash(p), j.inRoot(p)); err != nil {
				errs = append(errs, j.notBack(j.inStash(p), j.inRoot(p), err))
			}
		}
	}
	for _, f := range j.Files {
		if j.restarted() {
			break // the runtime has made them anew
		}
		errs = append(errs, f.restore(j.inRoot(f.Path)))
	}
	for _, l := range j.Levels {
		for _, name := range l.Keeps {
			if p := path.Join(l.Path, name); !exists(j.inRoot(p)) {
				j.lost = append(j.lost, "/"+p)
			}
		}
	}
	for _, l := range slices.Backward(j.Levels) {
		errs = append(errs, l.Was.apply(j.inRoot(l.Path)))
		if err := os.Remove(j.inStash(l.Path)); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (j *journal) notBack(from, to string, err error) error {
	return fmt.Errorf("%s could not be moved back to %s, where it belongs: %w", from, to, sandbox.Cause(err))
}
