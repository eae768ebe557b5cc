package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// entry makes one entry of a tar under the given name in dir.
func (u *unpacker) entry(dir *directory, name string, hdr *tar.Header) error {
	attrs := u.attributes(hdr)
	if err := attrs.check(); err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		return u.makeDir(dir, name, attrs)
	case tar.TypeLink:
		return u.link(dir, name, hdr.Linkname)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.regular(dir, name, hdr.Size, attrs)
	case tar.TypeSymlink:
		err := u.place(dir, name, func() error { return unix.Symlinkat(hdr.Linkname, dir.fd, name) })
		if err != nil {
			return err
		}
		return attrs.set(dir.fd, name, false)
	case tar.TypeFifo:
		return u.node(dir, name, unix.S_IFIFO, 0, attrs)
	case tar.TypeChar:
		return u.node(dir, name, unix.S_IFCHR, unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor)), attrs)
	case tar.TypeBlock:
		return u.node(dir, name, unix.S_IFBLK, unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor)), attrs)
	}
	return fmt.Errorf("entries of type %q are unknown", hdr.Typeflag)
}

// place calls create, and once more without what is in its way.
func (u *unpacker) place(dir *directory, name string, create func() error) error {
	err := create()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	// The parent may be below what goes: look it up again for the next entry.
	u.parentName = "/"
	if err := removeAll(dir.fd, name); err != nil {
		return err
	}
	return create()
}

func removeAll(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	return os.RemoveAll(procPath(dir, name))
}

// procPath is a path to name in an open directory, for calls that have no *at
// form. The name itself is not followed by calls that do not follow links.
func procPath(dir int, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir, name)
}

func (u *unpacker) makeDir(dir *directory, name string, attrs attributes) error {
	create := func() error { return unix.Mkdirat(dir.fd, name, 0o700) }
	err := create()
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(dir.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			err = nil
		} else {
			err = u.place(dir, name, create)
		}
	}
	if err != nil {
		return err
	}
	u.dirs[dir.entry(name)] = attrs
	return nil
}

func (u *unpacker) node(dir *directory, name string, kind uint32, dev uint64, attrs attributes) error {
	err := u.place(dir, name, func() error { return unix.Mknodat(dir.fd, name, kind|0o600, int(dev)) })
	if errors.Is(err, unix.EPERM) && kind != unix.S_IFIFO && attrs.standIn != "" {
		attrs.instead = StandInRoot + "it is a device"
		err = u.place(dir, name, func() error { return unix.Mknodat(dir.fd, name, unix.S_IFREG|0o600, 0) })
	}
	if err != nil {
		return err
	}
	return attrs.set(dir.fd, name, true)
}

// link makes a hard link. Its attributes are those of the file that is there.
func (u *unpacker) link(dir *directory, name, target string) error {
	target = path.Clean("/" + target)[1:]
	targetDir, targetName := path.Split(target)
	from, err := openDirectory(u.root, targetDir, nil)
	if err != nil {
		return fmt.Errorf("finding what it is a link to: %w", err)
	}
	defer from.close()
	if from.path == dir.path && targetName == name {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(from.fd, targetName, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("finding what it is a link to, %q: %w", target, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Errorf("it is a hard link to a directory, %q", target)
	}
	return u.place(dir, name, func() error { return unix.Linkat(from.fd, targetName, dir.fd, name, 0) })
}

func (u *unpacker) regular(dir *directory, name string, size int64, attrs attributes) error {
	var fd int
	err := u.place(dir, name, func() (err error) {
		fd, err = createFile(dir.fd, name)
		return err
	})
	if err != nil {
		return err
	}
	err = u.copy.content(u.ctx, fd, u.tar, size)
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := attrs.set(dir.fd, name, true); err != nil {
		return err
	}
	u.stoodIn(attrs, unix.S_IFREG, size)
	return nil
}

func createFile(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
}

// chunk is the unit of copying, and the least run of zeros that becomes a hole.
const chunk = 64 << 10

// copier is what copying files needs. It is for one goroutine at a time.
type copier struct{ buf, zeros []byte }

func newCopier() copier { return copier{make([]byte, chunk), make([]byte, chunk)} }

// content copies size bytes of r into a new file. Runs of zeros become holes: a
// log of logins that is 100 GiB long on paper must not fill the disk.
func (c copier) content(ctx context.Context, fd int, r io.Reader, size int64) error {
	end := int64(0)
	for off := int64(0); off < size; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		data := c.buf[:min(size-off, chunk)]
		if _, err := io.ReadFull(r, data); err != nil {
			return fmt.Errorf("reading its content: %w", err)
		}
		if !bytes.Equal(data, c.zeros[:len(data)]) {
			if err := pwrite(fd, data, off); err != nil {
				return err
			}
			end = off + int64(len(data))
		}
		off += int64(len(data))
	}
	if end == size {
		return nil
	}
	return unix.Ftruncate(fd, size)
}

func pwrite(fd int, data []byte, off int64) error {
	for len(data) > 0 {
		n, err := unix.Pwrite(fd, data, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		data, off = data[n:], off+int64(n)
	}
	return nil
}

// isXattr returns the name of the extended attribute that a PAX record holds.
func isXattr(record string) (string, bool) { return strings.CutPrefix(record, paxXattr) }
