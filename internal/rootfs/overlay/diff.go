package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/ids"
	"github.com/org/kaniko-multiarch/internal/layer"
)

// differ finds the changes that an upper directory makes to the tree below it.
// The entries of the upper directory are candidates only: opening a file for
// writing is enough to put it there.
type differ struct {
	ctx context.Context
	// upper is read as it is, lower is the parents' tree as a step sees it.
	upper, lower string
	// scratch says that there are no parents and that overlayfs was not used.
	scratch bool
	// escaped says that an entry has an extended attribute with an escaped name.
	escaped bool
	naming  naming
	// standIn is the attribute of stand-ins, empty where there are none.
	standIn          string
	looksLikeStandIn func(layer.Copy) bool
	changes          []layer.Change
}

func (d *differ) run() error { return d.dir(".", true, false) }

// dir compares what is in the directory name. below says that the lower tree
// has such a directory, hidden that the upper one does not show what is in it.
func (d *differ) dir(name string, below, hidden bool) error {
	if err := context.Cause(d.ctx); err != nil {
		return err
	}
	full := filepath.Join(d.upper, name)
	entries, err := list(full)
	if err != nil {
		return err
	}
	if !d.scratch {
		opaque, err := d.naming.isOpaque(full)
		if err != nil {
			return err
		}
		hidden = hidden || opaque
	}
	for _, base := range entries {
		if err := d.entry(path.Join(name, base), below, hidden); err != nil {
			return err
		}
	}
	if !below || !hidden {
		return nil
	}
	old, err := list(filepath.Join(d.lower, name))
	if err != nil {
		return err
	}
	for _, base := range old {
		if _, found := slices.BinarySearch(entries, base); !found {
			d.add(path.Join(name, base), layer.Delete)
		}
	}
	return nil
}

// entry compares one entry of the upper directory.
func (d *differ) entry(name string, below, hidden bool) error {
	upper, lower := filepath.Join(d.upper, name), filepath.Join(d.lower, name)
	var us, ls unix.Stat_t
	if err := unix.Lstat(upper, &us); err != nil {
		return &os.PathError{Op: "lstat", Path: upper, Err: err}
	}
	exists := false
	if below {
		err := unix.Lstat(lower, &ls)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return &os.PathError{Op: "lstat", Path: lower, Err: err}
		}
		exists = err == nil
	}
	if isWhiteout(&us) {
		// One that hides nothing stays behind when a file was made and removed.
		if exists {
			d.add(name, layer.Delete)
		}
		return nil
	}
	if d.scratch {
		found, err := d.naming.escapeOn(upper)
		if err != nil {
			return err
		}
		d.escaped = d.escaped || found
	}

	same := false
	if exists {
		var err error
		if same, err = d.same(upper, lower, &us, &ls); err != nil {
			return fmt.Errorf("comparing %q: %w", name, err)
		}
	}
	before := len(d.changes)
	if !same {
		d.add(name, layer.Modify)
	}
	if isDir(&us) {
		if err := d.dir(name, exists && isDir(&ls), hidden); err != nil {
			return err
		}
	}
	if len(d.changes) == before {
		return nil
	}
	if err := d.checkStandIn(name, exists); err != nil || same {
		return err
	}
	return d.checkCopy(name, &us)
}

// checkStandIn refuses to put the name, or a directory with changes below it,
// into a layer when it cannot be told what it would be in a place that has
// everything. What replaces a stand-in may owe its owner to it.
func (d *differ) checkStandIn(name string, exists bool) error {
	if d.standIn == "" {
		return nil
	}
	err := layer.StandsFor(filepath.Join(d.upper, name), d.standIn)
	if err == nil && exists {
		err = layer.StandsFor(filepath.Join(d.lower, name), d.standIn)
	}
	if err != nil {
		return fmt.Errorf("/%s cannot be put into a layer: %w", name, err)
	}
	return nil
}

// checkCopy refuses what a step gave the owner that it saw on a stand-in.
func (d *differ) checkCopy(name string, st *unix.Stat_t) error {
	if d.standIn == "" || !d.looksLikeStandIn(layer.CopyOf(st)) {
		return nil
	}
	return fmt.Errorf("/%s cannot be put into a layer: %w", name, &ids.MissingError{What: "it looks like a copy of a file that is not root's"})
}

func (d *differ) add(name string, kind layer.Kind) {
	d.changes = append(d.changes, layer.Change{Path: name, Kind: kind})
}

// same confirms or refutes that an entry changed. How many names a file has
// does not count: links are for the tar to find.
func (d *differ) same(upper, lower string, us, ls *unix.Stat_t) (bool, error) {
	if us.Mode != ls.Mode || us.Uid != ls.Uid || us.Gid != ls.Gid || us.Mtim != ls.Mtim {
		return false, nil
	}
	kind := us.Mode & unix.S_IFMT
	switch kind {
	case unix.S_IFREG, unix.S_IFLNK:
		if us.Size != ls.Size {
			return false, nil
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		if us.Rdev != ls.Rdev {
			return false, nil
		}
	}
	ux, err := layer.Xattrs(upper, d.naming.unescape)
	if err != nil {
		return false, err
	}
	lx, err := layer.Xattrs(lower, nil)
	if err != nil {
		return false, err
	}
	if !maps.Equal(ux, lx) {
		return false, nil
	}
	switch kind {
	case unix.S_IFLNK:
		return sameTarget(upper, lower)
	case unix.S_IFREG:
		return d.sameContent(upper, lower)
	}
	return true, nil
}

func sameTarget(a, b string) (bool, error) {
	ta, err := os.Readlink(a)
	if err != nil {
		return false, err
	}
	tb, err := os.Readlink(b)
	return ta == tb, err
}

// sameContent compares two files of the same size.
func (d *differ) sameContent(a, b string) (bool, error) {
	fa, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer fb.Close()
	ba, bb := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		if err := context.Cause(d.ctx); err != nil {
			return false, err
		}
		na, erra := io.ReadFull(fa, ba)
		nb, errb := io.ReadFull(fb, bb)
		if string(ba[:na]) != string(bb[:nb]) {
			return false, nil
		}
		if atEnd(erra) && atEnd(errb) {
			return true, nil
		}
		if err := errors.Join(erra, errb); err != nil {
			return false, err
		}
	}
}

func atEnd(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }

// list returns the names in a directory, sorted.
func list(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

func isDir(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}
