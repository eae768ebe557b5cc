package inplace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxOwn is how many files of the builder's container are looked after, which
// in its own image are a few dozen.
const maxOwn = 1000

// ChangedError is a file of the builder's container that a step has changed.
type ChangedError struct{ Path string }

func (e *ChangedError) Error() string {
	return fmt.Sprintf("the step changed %s, which belongs to the builder's container: start the next build in a fresh container, and leave /kaniko out of what the step searches (find / -path /kaniko -prune -o ...; rm, chown and chmod by name)", e.Path)
}

// ownFile is what a file was before the step.
type ownFile struct {
	unix.Stat_t
	// now is its path during the step, place is where it belongs.
	now, place string
}

// ownFiles lists what was moved aside and what is in the builder's directories.
// It does not go into mounts: what others do there is their affair; nor into the
// state directory, where the builder itself goes on: see Options.Watch.
func (s *swap) ownFiles() ([]ownFile, error) {
	var out []ownFile
	for _, p := range s.Stashed {
		if err := s.addOwn(&out, s.inStash(p), s.inRoot(p)); err != nil {
			return nil, err
		}
	}
	for _, l := range s.Levels {
		if !l.Own || s.inRoot(l.Path) == filepath.Dir(s.Stash) {
			continue
		}
		for _, name := range l.Keeps {
			p := filepath.Join(s.inRoot(l.Path), name)
			if err := s.addOwn(&out, p, p); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (s *swap) addOwn(out *[]ownFile, now, place string) error {
	f := ownFile{now: now, place: place}
	if err := unix.Lstat(now, &f.Stat_t); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return s.cannot("read", place, err)
	}
	*out = append(*out, f)
	var parent unix.Stat_t
	if err := unix.Lstat(filepath.Dir(now), &parent); err != nil {
		return s.cannot("read", place, err)
	}
	if f.Mode&unix.S_IFMT != unix.S_IFDIR || f.Dev != parent.Dev || len(*out) > maxOwn || now == filepath.Dir(s.Stash) {
		return nil
	}
	names, err := readNames(now)
	if err != nil {
		return s.cannot("read", place, err)
	}
	for _, name := range names {
		if err := s.addOwn(out, filepath.Join(now, name), filepath.Join(place, name)); err != nil {
			return err
		}
	}
	return nil
}

// putRight gives files their owner and mode back and returns the error of the
// first that has become another one. What is missing others tell.
func putRight(files []ownFile) error {
	for _, f := range files {
		var now unix.Stat_t
		if err := unix.Lstat(f.place, &now); errors.Is(err, unix.ENOENT) {
			continue
		} else if err != nil {
			return &os.PathError{Op: "lstat", Path: f.place, Err: err}
		}
		dir := f.Mode&unix.S_IFMT == unix.S_IFDIR
		if now.Mode&unix.S_IFMT != f.Mode&unix.S_IFMT || !dir && (now.Size != f.Size || now.Mtim != f.Mtim) {
			return &ChangedError{Path: f.place}
		}
		if now.Uid != f.Uid || now.Gid != f.Gid {
			if err := unix.Lchown(f.place, int(f.Uid), int(f.Gid)); err != nil {
				return &os.PathError{Op: "chown", Path: f.place, Err: err}
			}
		}
		if now.Mode != f.Mode && f.Mode&unix.S_IFMT != unix.S_IFLNK {
			if err := unix.Chmod(f.place, f.Mode&0o7777); err != nil {
				return &os.PathError{Op: "chmod", Path: f.place, Err: err}
			}
		}
	}
	return nil
}
