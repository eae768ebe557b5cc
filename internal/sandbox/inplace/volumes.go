package inplace

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// WrittenError is a directory that is a mount point of the container, which
// cannot be moved aside, and in which a step has made or removed something: that
// would be missing in the image.
type WrittenError struct{ Path string }

func (e *WrittenError) Error() string {
	return fmt.Sprintf("the step wrote to %[1]s, which is a mount point of the builder's container and not part of the image: mount that volume elsewhere, one directory deeper (-v ...:/mnt%[1]s), or use another path in the image", e.Path)
}

// volumes are the directories of the container that stay in sight, with the
// time of their last change.
type volumes map[string]unix.Timespec

// inSight wants the tree to be in the root.
func (s *swap) inSight() volumes {
	out := volumes{}
	for _, l := range s.Levels {
		if l.Own {
			continue
		}
		for _, name := range l.Keeps {
			p := strings.TrimPrefix(l.Path+"/"+name, "/")
			if st, ok := s.changed(p); ok && s.points[p] && !slices.Contains(system(), p) {
				out[p] = st
			}
		}
	}
	return out
}

func (s *swap) changed(p string) (unix.Timespec, bool) {
	var st unix.Stat_t
	if unix.Lstat(s.inRoot(p), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.Timespec{}, false
	}
	return st.Mtim, true
}

// written returns the error of the first that has changed since.
func (s *swap) written(since volumes) error {
	for p, was := range since {
		if now, ok := s.changed(p); ok && now != was {
			return &WrittenError{Path: "/" + p}
		}
	}
	return nil
}
