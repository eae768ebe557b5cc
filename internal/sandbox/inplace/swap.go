package inplace

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// swap moves a tree into the root and out again.
type swap struct {
	*journal
	// own are directories of the builder, relative to the root: what is in them
	// stays.
	own []string
	// points are the mount points below the root, relative to it.
	points map[string]bool
}

// system are the directories that are the kernel's.
func system() []string { return []string{"proc", "sys", "dev"} }

// etcFiles are the files that container runtimes mount.
func etcFiles() []string { return []string{"etc/hostname", "etc/hosts", "etc/resolv.conf"} }

// enter is the way in. After an error the caller leaves.
func (s *swap) enter() error {
	if err := s.descend("", true); err != nil {
		return err
	}
	return s.reach(swapped)
}

// descend empties a directory of the root and fills it from that of the tree,
// name by name. both tells whether the tree has one.
func (s *swap) descend(dir string, both bool) error {
	l := level{Path: dir, Both: both, Own: slices.Contains(s.own, dir)}
	var err error
	if l.Was, err = readAttrs(s.inRoot(dir)); err != nil {
		return s.cannot("read", dir, err)
	}
	if both {
		if l.Tree, err = readAttrs(s.inTree(dir)); err != nil {
			return s.cannot("read", dir, err)
		}
	}
	names, err := readNames(s.inRoot(dir))
	if err != nil {
		return s.cannot("read", dir, err)
	}
	var leave, move []string
	for _, name := range names {
		if l.Own || s.stays(path.Join(dir, name)) {
			leave = append(leave, name)
		} else {
			move = append(move, name)
		}
	}
	l.Keeps = leave
	if err := s.note(record{Level: &l}); err != nil {
		return err
	}
	if err := os.Mkdir(s.inStash(dir), 0o700); err != nil {
		return fmt.Errorf("making room in the state directory: %w", err)
	}
	if err := s.asides(&l, move); err != nil {
		return err
	}
	if !both {
		return s.vacate(l)
	}
	if err := s.place(l); err != nil {
		return err
	}
	if err := l.Tree.apply(s.inRoot(dir)); err != nil {
		return s.cannot("adjust", dir, err)
	}
	return nil
}

// stays tells what is left alone from the start. The rest is found out by
// trying.
func (s *swap) stays(p string) bool {
	return slices.Contains(system(), p) || s.points[p] || slices.Contains(etcFiles(), p)
}

// passes tells whether something below p stays, so that p must not be moved.
// Mounts are no reason: they are carried along.
func (s *swap) passes(p string) bool {
	for _, own := range s.own {
		if own == p || strings.HasPrefix(own, p+"/") {
			return true
		}
	}
	if p != "etc" {
		return false
	}
	return slices.ContainsFunc(etcFiles(), func(f string) bool { return exists(s.inRoot(f)) })
}

// asides moves names of a directory to the stash, or goes into them.
func (s *swap) asides(l *level, names []string) error {
	var into, stash []string
	for _, name := range names {
		p := path.Join(l.Path, name)
		if s.passes(p) && isDir(s.inRoot(p)) {
			into = append(into, p)
		} else {
			stash = append(stash, p)
		}
	}
	if len(stash) > 0 {
		if err := s.note(record{Stashed: stash}); err != nil {
			return err
		}
	}
	for _, p := range stash {
		err := unix.Rename(s.inRoot(p), s.inStash(p))
		switch {
		case errors.Is(err, unix.EXDEV) && isDir(s.inRoot(p)):
			// A directory of the builder's own image, which overlayfs does not
			// move.
			into = append(into, p)
		case errors.Is(err, unix.EBUSY):
			// A mount point that the list of mounts did not show.
			l.Keeps = append(l.Keeps, path.Base(p))
			if err := s.note(record{Level: l}); err != nil {
				return err
			}
		case err != nil:
			return s.cannot("move aside", p, err)
		}
	}
	for _, p := range into {
		if err := s.descend(p, l.Both && isDir(s.inTree(p))); err != nil {
			return err
		}
	}
	return nil
}

// vacate removes a directory that the tree does not have, if nothing in it
// stays.
func (s *swap) vacate(l level) error {
	if len(l.Keeps) > 0 || l.Own {
		return nil
	}
	l.Removed = true
	if err := s.note(record{Level: &l}); err != nil {
		return err
	}
	err := os.Remove(s.inRoot(l.Path))
	if err == nil {
		return nil
	}
	l.Removed = false
	if noteErr := s.note(record{Level: &l}); noteErr != nil {
		return noteErr
	}
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) {
		return nil
	}
	return s.cannot("move aside", l.Path, err)
}

// place moves the tree's part of a directory in.
func (s *swap) place(l level) error {
	names, err := readNames(s.inTree(l.Path))
	if err != nil {
		return s.cannot("read", l.Path, err)
	}
	// What is left in the root is known: it was looked at one by one.
	left := map[string]bool{}
	for _, name := range l.Keeps {
		left[path.Join(l.Path, name)] = true
	}
	var move []string
	for _, name := range names {
		p := path.Join(l.Path, name)
		sub := s.level(p)
		switch {
		case covered(p) && left[p]:
		case sub != nil && !sub.Removed && sub.Both:
		case sub != nil && !sub.Removed || left[p]:
			return s.inTheWay(p)
		default:
			move = append(move, p)
		}
	}
	if len(move) == 0 {
		return nil
	}
	if err := s.note(record{Placed: move}); err != nil {
		return err
	}
	return moveAll(s.inTree(l.Path), s.inRoot(l.Path), move, s.cannot)
}

// moveAll moves names, of which only the last part counts, from one directory
// to another, where nothing may be in their way.
func moveAll(from, to string, names []string, fail func(what, p string, err error) error) error {
	src, err := os.Open(from)
	if err != nil {
		return fail("place", names[0], err)
	}
	defer src.Close()
	dst, err := os.Open(to)
	if err != nil {
		return fail("place", names[0], err)
	}
	defer dst.Close()
	for _, p := range names {
		name := path.Base(p)
		err := unix.Renameat2(int(src.Fd()), name, int(dst.Fd()), name, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) {
			// A file system that cannot look first. We have.
			err = unix.Renameat(int(src.Fd()), name, int(dst.Fd()), name)
		}
		if err != nil {
			return fail("place", p, err)
		}
	}
	return nil
}

// covered are the paths of a tree that a container's own hide. They stay in the
// tree.
func covered(p string) bool {
	return slices.Contains(system(), p) || slices.Contains(etcFiles(), p)
}

// ConflictError is a path that both the image and the builder's container have,
// and that cannot be moved out of the way.
type ConflictError struct {
	Path string
	// Mount means that it is a mount point.
	Mount bool
}

func (e *ConflictError) Error() string {
	if e.Mount {
		return fmt.Sprintf("the image has %[1]s, which is a mount point of the builder's container and cannot be moved aside: mount that volume elsewhere, one directory deeper (-v ...:/mnt/%[2]s), or use another path in the image", e.Path, strings.TrimPrefix(e.Path, "/"))
	}
	return fmt.Sprintf("the image has %s, which is a path of the builder itself: use another path in the image, or name another state directory with --state-dir", e.Path)
}

func (s *swap) inTheWay(p string) error {
	if slices.Contains(s.own, p) {
		return &ConflictError{Path: "/" + p}
	}
	for point := range s.points {
		if point == p || strings.HasPrefix(point, p+"/") {
			return &ConflictError{Path: "/" + p, Mount: true}
		}
	}
	return &ConflictError{Path: "/" + p}
}

func (s *swap) cannot(what, p string, err error) error {
	return fmt.Errorf("swapping the image's files in: cannot %s /%s: %w", what, p, sandbox.Cause(err))
}

func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

func exists(p string) bool {
	_, err := os.Lstat(p)
	return err == nil
}

func isDir(p string) bool {
	info, err := os.Lstat(p)
	return err == nil && info.IsDir()
}
