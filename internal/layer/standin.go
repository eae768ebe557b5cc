package layer

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/ids"
)

// StandInRoot starts the text of a stand-in for what root outside of a user
// namespace could make.
const StandInRoot = "root: "

// StandsFor returns an *ids.MissingError when name is a stand-in, marked with the
// extended attribute attr: a user namespace can neither make devices nor files
// of owners that it does not have, nor some attributes. A base layer that is
// unpacked there has a file that root owns instead. As long as nobody changes or
// copies such a file no image is wrong: base layers are published as they came.
func StandsFor(name, attr string) error {
	text, err := getXattr(name, attr)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the extended attribute %s of %q: %w", attr, name, err)
	}
	return standsFor(string(text))
}

func standsFor(text string) error {
	what, root := strings.CutPrefix(text, StandInRoot)
	return &ids.MissingError{What: what, Root: root}
}

// Copy is what a copy has in common with a stand-in that was copied with its
// times, as whoever keeps owners does (cp -p, install -p, tar, rsync -a): the
// owner that it got is not what the stand-in stands for.
type Copy struct {
	Mode uint32
	// Size is 0 for a directory.
	Size      int64
	Sec, Nsec int64
}

// CopyOf is what a copy of a file or directory would have.
func CopyOf(st *unix.Stat_t) Copy {
	c := Copy{Mode: st.Mode, Size: st.Size, Sec: int64(st.Mtim.Sec), Nsec: int64(st.Mtim.Nsec)}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		c.Size = 0
	}
	return c
}

func (u *unpacker) stoodIn(a attributes, kind uint32, size int64) {
	if a.instead == "" || strings.HasPrefix(a.instead, StandInRoot) || u.opts.StoodIn == nil {
		return
	}
	u.opts.StoodIn(Copy{Mode: kind | a.mode, Size: size, Sec: int64(a.mtime.Sec), Nsec: int64(a.mtime.Nsec)})
}
