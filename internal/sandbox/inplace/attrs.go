package inplace

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// attrs is what a directory is, apart from what is in it.
type attrs struct {
	Mode         uint32
	UID, GID     int
	Atime, Mtime unix.Timespec
	Xattrs       []xattr
}

type xattr struct {
	Name  string
	Value []byte
}

func readAttrs(path string) (attrs, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return attrs{}, err
	}
	a := attrs{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), Atime: st.Atim, Mtime: st.Mtim}
	names, err := listXattrs(path)
	if err != nil {
		return attrs{}, err
	}
	for _, name := range names {
		value, err := getXattr(path, name)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EPERM) {
			continue // gone, or not for us
		}
		if err != nil {
			return attrs{}, err
		}
		a.Xattrs = append(a.Xattrs, xattr{name, value})
	}
	return a, nil
}

// apply makes the directory at path look like a; its times come last, so that
// nothing may be put into it afterwards.
func (a attrs) apply(path string) error {
	now, err := readAttrs(path)
	if err != nil {
		return err
	}
	if now.UID != a.UID || now.GID != a.GID {
		if err := unix.Lchown(path, a.UID, a.GID); err != nil {
			return err
		}
	}
	if err := unix.Chmod(path, a.Mode); err != nil {
		return err
	}
	for _, x := range now.Xattrs {
		if slices.ContainsFunc(a.Xattrs, func(o xattr) bool { return o.Name == x.Name }) {
			continue
		}
		if err := unix.Lremovexattr(path, x.Name); err != nil && !errors.Is(err, unix.ENODATA) {
			return err
		}
	}
	for _, x := range a.Xattrs {
		if err := unix.Lsetxattr(path, x.Name, x.Value, 0); err != nil {
			return err
		}
	}
	return a.applyTimes(path)
}

func (a attrs) applyTimes(path string) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{a.Atime, a.Mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

// listXattrs leaves out what only the system may write.
func listXattrs(path string) ([]string, error) {
	size, err := unix.Llistxattr(path, nil)
	if errors.Is(err, unix.ENOTSUP) || size == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	buf := make([]byte, size)
	if size, err = unix.Llistxattr(path, buf); err != nil {
		return nil, err
	}
	var out []string
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:size]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.") || name == "security.selinux" {
			continue
		}
		out = append(out, name)
	}
	return out, nil
}

func getXattr(path, name string) ([]byte, error) {
	size, err := unix.Lgetxattr(path, name, nil)
	if err != nil || size == 0 {
		return nil, err
	}
	buf := make([]byte, size)
	size, err = unix.Lgetxattr(path, name, buf)
	return buf[:max(size, 0)], err
}
