package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// wanted are mount options that make overlayfs behave in one way whatever the
// kernel's and its modules' defaults are: an upper directory shows what
// changed, complete and in place, and may serve as a lower one at once.
// "volatile" leaves out flushing the whole file system at each unmount; nothing
// that this would save outlives a crash.
func (n naming) wanted() []string {
	list := []string{"index=off", "metacopy=off", "redirect_dir=nofollow", "xino=off", volatile}
	if n == asUser {
		list = append(list, userxattr)
	}
	return list
}

// volatile has a meaning for trees with an upper directory only.
const volatile = "volatile"

// userxattr makes overlayfs use names that ordinary users may.
const userxattr = "userxattr"

// probe tries all that the package does with overlayfs in dir, a directory of a
// build, and returns the wanted mount options that the kernel knows.
func (n naming) probe(dir string) (options []string, err error) {
	defer func() { err = errors.Join(err, removeTree(filepath.Join(dir, "p"))) }()
	for _, name := range []string{"p", "p/l", "p/l/d", "p/m"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "p/l/d/f"), nil, 0o644); err != nil {
		return nil, err
	}

	all := n.wanted()
	err = n.tryMount(dir, all)
	if err == nil {
		return all, nil
	}
	if !errors.Is(err, unix.EINVAL) {
		return nil, reason(dir, err)
	}
	if n == asUser {
		options = []string{userxattr}
	}
	if err := n.tryMount(dir, options); err != nil {
		return nil, reason(dir, err)
	}
	for _, o := range all {
		if o != userxattr && n.tryMount(dir, append(slices.Clone(options), o)) == nil {
			options = append(options, o)
		}
	}
	return options, nil
}

// tryMount mounts a tree, changes it in each way that needs a privilege, and
// unmounts it.
func (n naming) tryMount(dir string, options []string) (err error) {
	upper, work, merged := filepath.Join(dir, "p/u"), filepath.Join(dir, "p/w"), filepath.Join(dir, "p/m")
	for _, d := range []string{upper, work} {
		if err := errors.Join(os.RemoveAll(d), os.Mkdir(d, 0o755)); err != nil {
			return err
		}
	}
	if err := mount(dir, merged, []string{"p/l"}, "p/u", "p/w", options); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmount(merged)) }()

	d := filepath.Join(merged, "d")
	if err := errors.Join(os.Remove(filepath.Join(d, "f")), os.Remove(d), os.Mkdir(d, 0o755)); err != nil {
		return fmt.Errorf("replacing a directory: %w", err)
	}
	if err := unix.Lsetxattr(filepath.Join(upper, "d"), n.opaque(), []byte("y"), 0); err != nil {
		return fmt.Errorf("setting the extended attribute %s: %w", n.opaque(), err)
	}
	if err := unix.Mknod(filepath.Join(upper, "whiteout"), unix.S_IFCHR, 0); err != nil {
		return fmt.Errorf("making a whiteout: %w", err)
	}
	return nil
}

// reason adds what to do to the error of a trial mount.
func reason(dir string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: mounting needs the capability SYS_ADMIN and a security profile that allows it", err)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: the kernel has no overlayfs", err)
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP):
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC {
			return fmt.Errorf("%w: it is on overlayfs itself: use a directory on a volume or a tmpfs", err)
		}
		return fmt.Errorf("%w: its file system may not be able to hold upper directories: use a directory on a volume or a tmpfs", err)
	}
	return err
}
