package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"math"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/ids"
)

// attributes is what an entry has beside its type and content.
type attributes struct {
	uid, gid int
	mode     uint32
	mtime    unix.Timespec
	xattrs   map[string]string
	// bestEffort is UnpackOptions.BestEffortXattrs.
	bestEffort bool
	// standIn is UnpackOptions.StandIn.
	standIn string
	// instead says what the entry stands for; empty when it is what it is.
	instead string
}

func (u *unpacker) attributes(hdr *tar.Header) attributes { return attributesOf(hdr, u.opts) }

func attributesOf(hdr *tar.Header, opts UnpackOptions) attributes {
	a := attributes{
		uid:        hdr.Uid,
		gid:        hdr.Gid,
		mode:       uint32(hdr.Mode) & 0o7777,
		bestEffort: opts.BestEffortXattrs,
		standIn:    opts.StandIn,
	}
	if opts.Chown != nil {
		a.uid, a.gid = opts.Chown.UID, opts.Chown.GID
	}
	a.mtime.Sec, a.mtime.Nsec = hdr.ModTime.Unix(), int64(hdr.ModTime.Nanosecond())
	for record, value := range hdr.PAXRecords {
		attr, ok := isXattr(record)
		if !ok || !carried(attr) {
			continue
		}
		if attr, ok = renamed(attr, opts.Xattr); !ok {
			continue
		}
		if a.xattrs == nil {
			a.xattrs = map[string]string{}
		}
		a.xattrs[attr] = value
	}
	return a
}

// check refuses IDs that the kernel would take for "unchanged" or cut short.
func (a attributes) check() error {
	for _, id := range []int{a.uid, a.gid} {
		if id < 0 || id >= math.MaxUint32 {
			return fmt.Errorf("the owner %d:%d is not possible", a.uid, a.gid)
		}
	}
	return nil
}

// set sets everything of the entry name in dir, which is not a directory. The
// order matters: chown clears set-user-ID bits and capabilities. A symbolic
// link has no mode.
func (a *attributes) set(dir int, name string, mode bool) error {
	if err := a.owned(unix.Fchownat(dir, name, a.uid, a.gid, unix.AT_SYMLINK_NOFOLLOW)); err != nil {
		return err
	}
	if mode {
		if err := unix.Fchmodat(dir, name, a.mode, 0); err != nil {
			return fmt.Errorf("setting the mode: %w", err)
		}
	}
	if err := a.setXattrs(func(attr string, value []byte) error {
		return unix.Lsetxattr(procPath(dir, name), attr, value, 0)
	}); err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(dir, name, a.times(), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("setting the time: %w", err)
	}
	return nil
}

// setDir is set for an open directory.
func (a *attributes) setDir(fd int) error {
	if err := a.owned(unix.Fchown(fd, a.uid, a.gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, a.mode); err != nil {
		return fmt.Errorf("setting the mode: %w", err)
	}
	if err := a.setXattrs(func(attr string, value []byte) error {
		return unix.Fsetxattr(fd, attr, value, 0)
	}); err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), a.times(), 0); err != nil {
		return fmt.Errorf("setting the time: %w", err)
	}
	return nil
}

// owned is for the error of setting the owner.
func (a *attributes) owned(err error) error {
	if errors.Is(err, unix.EINVAL) && a.standIn != "" {
		a.instead = fmt.Sprintf("its owner is %d:%d", a.uid, a.gid)
		return nil
	}
	if err != nil {
		return fmt.Errorf("setting the owner: %w", ids.Explain(err, "its owner is %d:%d", a.uid, a.gid))
	}
	return nil
}

func (a *attributes) setXattrs(set func(attr string, value []byte) error) error {
	for attr, value := range a.xattrs {
		err := set(attr, []byte(value))
		if a.standIn != "" && errors.Is(err, unix.EPERM) {
			a.instead = StandInRoot + "it has the extended attribute " + attr
		}
		if a.bestEffort && (errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM)) {
			continue
		}
		if err != nil {
			return fmt.Errorf("setting the extended attribute %s: %w", attr, err)
		}
	}
	if a.instead == "" {
		return nil
	}
	if err := set(a.standIn, []byte(a.instead)); err != nil {
		// Only files and directories can have such an attribute.
		return standsFor(a.instead)
	}
	return nil
}

// times leaves the access time alone: no layer has it.
func (a attributes) times() []unix.Timespec {
	return []unix.Timespec{{Nsec: unix.UTIME_OMIT}, a.mtime}
}
