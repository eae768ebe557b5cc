package overlay

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/layer"
)

// naming starts the names of overlayfs's own extended attributes in upper and
// lower directories, kernel documentation overlayfs.rst. A user's attribute that
// is named as if it were overlayfs's own is kept there under an escaped name
// ("Nesting overlayfs mounts").
type naming string

const (
	// asRoot takes CAP_SYS_ADMIN outside of any user namespace.
	asRoot naming = "trusted.overlay."
	// asUser is for the mount option userxattr.
	asUser naming = "user.overlay."
)

func (n naming) opaque() string { return string(n) + "opaque" }

func (n naming) escape(name string) string {
	if rest, ok := strings.CutPrefix(name, string(n)); ok {
		return string(n) + "overlay." + rest
	}
	return name
}

// unescape is a layer.Rename for upper and lower directories.
func (n naming) unescape(name string) (string, bool) {
	if rest, ok := strings.CutPrefix(name, string(n)+"overlay."); ok {
		return string(n) + rest, true
	}
	return name, !strings.HasPrefix(name, string(n))
}

// escapeOn renames what would mean something to overlayfs once name, made
// without it, is in a lower directory. It reports whether there was any.
func (n naming) escapeOn(name string) (bool, error) {
	attrs, err := layer.ListXattrs(name)
	if err != nil {
		return false, err
	}
	found := false
	for _, attr := range attrs {
		if !strings.HasPrefix(attr, string(n)) {
			continue
		}
		found = true
		value, err := getXattr(name, attr)
		if err != nil {
			return false, err
		}
		if err := unix.Lsetxattr(name, n.escape(attr), value, 0); err != nil {
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
func (n naming) isOpaque(dir string) (bool, error) {
	attrs, err := layer.ListXattrs(dir)
	if err != nil {
		return false, err
	}
	for _, attr := range attrs {
		switch attr {
		case string(n) + "redirect", string(n) + "metacopy":
			return false, fmt.Errorf("overlayfs redirected %q (%s): set its module parameters redirect_dir and metacopy to off", dir, attr)
		case n.opaque():
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

func (n naming) setOpaque(fd int) error {
	if err := unix.Fsetxattr(fd, n.opaque(), []byte("y"), 0); err != nil {
		return fmt.Errorf("setting the extended attribute %s: %w", n.opaque(), err)
	}
	return nil
}
