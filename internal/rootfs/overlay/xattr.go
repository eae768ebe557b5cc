package overlay

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/layer"
)

// Names of extended attributes in upper and lower directories, kernel
// documentation overlayfs.rst. A user's attribute that is named as if it were
// overlayfs's own is kept there under an escaped name ("Nesting overlayfs
// mounts").
const (
	private  = "trusted.overlay."
	escaped  = private + "overlay."
	opaque   = private + "opaque"
	redirect = private + "redirect"
	metacopy = private + "metacopy"
)

func escape(name string) string {
	if rest, ok := strings.CutPrefix(name, private); ok {
		return escaped + rest
	}
	return name
}

// unescape is a layer.Rename for upper and lower directories.
func unescape(name string) (string, bool) {
	if rest, ok := strings.CutPrefix(name, escaped); ok {
		return private + rest, true
	}
	return name, !strings.HasPrefix(name, private)
}

// escapeOn renames what would mean something to overlayfs once name, made
// without it, is in a lower directory. It reports whether there was any.
func escapeOn(name string) (bool, error) {
	attrs, err := layer.ListXattrs(name)
	if err != nil {
		return false, err
	}
	found := false
	for _, attr := range attrs {
		if !strings.HasPrefix(attr, private) {
			continue
		}
		found = true
		value, err := getXattr(name, attr)
		if err != nil {
			return false, err
		}
		if err := unix.Lsetxattr(name, escape(attr), value, 0); err != nil {
			return false, fmt.Errorf("renaming the extended attribute %s of %q: %w", attr, name, err)
		}
		if err := unix.Lremovexattr(name, attr); err != nil {
			return false, fmt.Errorf("renaming the extended attribute %s of %q: %w", attr, name, err)
		}
	}
	return found, nil
}

func getXattr(name, attr string) ([]byte, error) {
	value := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(name, attr, value)
	if err != nil {
		return nil, fmt.Errorf("reading the extended attribute %s of %q: %w", attr, name, err)
	}
	return value[:n], nil
}

// isOpaque reports whether a directory hides what is below it. It refuses what
// would make an upper directory incomplete.
func isOpaque(dir string) (bool, error) {
	attrs, err := layer.ListXattrs(dir)
	if err != nil {
		return false, err
	}
	for _, attr := range attrs {
		switch attr {
		case redirect, metacopy:
			return false, fmt.Errorf("overlayfs redirected %q (%s): set its module parameters redirect_dir and metacopy to off", dir, attr)
		case opaque:
			value, err := getXattr(dir, attr)
			if err != nil {
				return false, err
			}
			// "x" marks directories with whiteouts of another form.
			return string(value) == "y", nil
		}
	}
	return false, nil
}

func setOpaque(fd int) error {
	if err := unix.Fsetxattr(fd, opaque, []byte("y"), 0); err != nil {
		return fmt.Errorf("setting the extended attribute %s: %w", opaque, err)
	}
	return nil
}
