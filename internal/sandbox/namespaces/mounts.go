package namespaces

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// mount is one mount of the new root.
type mount struct {
	dest string
	// fstype is empty for a bind mount of source.
	fstype string
	source *os.File
	// file becomes source once there is a place in memory to write it.
	file  *sandbox.File
	flags uintptr
	data  string
	// recursive applies flags to the mounts below source, too.
	recursive bool
	// instead is bound when the kernel refuses fstype; a user namespace may not
	// mount a new proc while parts of the old one are hidden.
	instead *os.File
	// optional mounts may fail.
	optional bool
	// strict means that dest must not be a symbolic link: what we hide of it
	// later is hidden by name.
	strict bool
}

const (
	noSetuid = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	roBind   = noSetuid | unix.MS_RDONLY
	// ttyGroup is Debian's number of the group tty.
	ttyGroup = "gid=5"
)

// plan lists the mounts in BuildKit's order: the defaults of containerd without
// /run, then the user's, which replace a default at the same place.
func (s *spec) plan(resolvConf []byte) ([]mount, error) {
	sys := roBind
	if s.Insecure {
		sys = noSetuid
	}
	list := []mount{
		{dest: "/proc", fstype: "proc", flags: noSetuid, instead: handle("/proc"), strict: true},
		{dest: "/dev", fstype: "tmpfs", flags: unix.MS_NOSUID | unix.MS_STRICTATIME, data: "mode=755,size=65536k"},
		{dest: "/dev/pts", fstype: "devpts", flags: unix.MS_NOSUID | unix.MS_NOEXEC, data: "newinstance,ptmxmode=0666,mode=0620," + ttyGroup},
		{dest: "/dev/shm", fstype: "tmpfs", flags: noSetuid, data: "mode=1777,size=65536k"},
		{dest: "/dev/mqueue", fstype: "mqueue", flags: noSetuid, optional: true},
		{dest: "/sys", fstype: "sysfs", flags: uintptr(sys), instead: handle("/sys"), recursive: true, strict: true},
		{dest: "/etc/resolv.conf", flags: roBind, file: &sandbox.File{Data: resolvConf, Mode: 0o644}},
		{dest: "/etc/hosts", flags: roBind, file: &sandbox.File{Data: []byte(s.Hosts), Mode: 0o644}},
	}
	// The builder's own cgroup tells the process what limits it has.
	var fs unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type != unix.SYSFS_MAGIC {
		list = append(list, mount{dest: "/sys/fs/cgroup", source: handle("/sys/fs/cgroup"), flags: uintptr(sys), recursive: true, optional: true})
	}
	for _, m := range s.Mounts {
		next, err := userMount(m)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(list, func(o mount) bool { return o.dest == m.Dest }); i >= 0 {
			list[i] = next
			continue
		}
		list = append(list, next)
	}
	return list, nil
}

func userMount(m sandbox.Mount) (mount, error) {
	var ro uintptr
	if m.ReadOnly {
		ro = unix.MS_RDONLY
	}
	if m.File != nil {
		return mount{dest: m.Dest, file: m.File, flags: noSetuid | ro}, nil
	}
	if m.Source == "" {
		data := ""
		if m.Size > 0 {
			data = fmt.Sprintf("size=%d", m.Size)
		}
		return mount{dest: m.Dest, fstype: "tmpfs", flags: unix.MS_NOSUID | ro, data: data}, nil
	}
	source, err := openPath(m.Source)
	if err != nil {
		return mount{}, fmt.Errorf("mounting %s: its source: %w", m.Dest, sandbox.Cause(err))
	}
	return mount{dest: m.Dest, source: source, flags: ro}, nil
}

// handle returns nil for a path that does not exist.
func handle(path string) *os.File {
	f, err := openPath(path)
	if err != nil {
		return nil
	}
	return f
}

func (m mount) mount(t tree) error {
	dir := true
	if m.source != nil {
		info, err := m.source.Stat()
		if err != nil {
			return err
		}
		dir = info.IsDir()
	}
	if m.strict {
		if rel, err := t.resolve(m.dest); err != nil || "/"+rel != m.dest {
			return errors.New("it is a symbolic link in the image; it must be a directory")
		}
	}
	at, made, err := t.mountPoint(m.dest, dir)
	if err != nil {
		return err
	}
	err = m.mountAt(t, at, made)
	if err != nil && m.optional {
		return nil
	}
	return err
}

func (m mount) mountAt(t tree, at *os.File, made bool) error {
	if m.fstype == "" {
		return m.bind(t, at, m.source)
	}
	data := m.data
	if m.fstype == "tmpfs" && !made {
		// As under runc, a tmpfs without a mode of its own looks like the
		// directory that it hides. Over a new one it has the kernel's 1777.
		var st unix.Stat_t
		if err := unix.Fstat(int(at.Fd()), &st); err != nil {
			return err
		}
		data = strings.TrimSuffix(fmt.Sprintf("mode=%04o,%s", st.Mode&0o7777, data), ",")
	}
	err := unix.Mount(m.fstype, fdPath(at), m.fstype, m.flags, data)
	if m.fstype == "devpts" && errors.Is(err, unix.EINVAL) {
		// A user namespace may not have the group of terminals.
		err = unix.Mount(m.fstype, fdPath(at), m.fstype, m.flags, strings.TrimSuffix(data, ","+ttyGroup))
	}
	if err != nil && m.instead != nil {
		return m.bind(t, at, m.instead)
	}
	return err
}

func (m mount) bind(t tree, at, source *os.File) error {
	if err := unix.Mount(fdPath(source), fdPath(at), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if m.flags == 0 {
		return nil
	}
	// at is what the mount hides; its flags are not meant.
	top, err := t.open(m.dest)
	if err != nil {
		return err
	}
	defer top.Close()
	if !m.recursive {
		return remount(fdPath(top), m.flags)
	}
	err = setRecursively(top, m.flags)
	if errors.Is(err, unix.ENOSYS) && m.optional {
		return unix.Unmount(fdPath(top), unix.MNT_DETACH)
	}
	if errors.Is(err, unix.ENOSYS) {
		return remount(fdPath(top), m.flags)
	}
	return err
}

// remount adds flags to a mount. Those that it has must be given again: dropping
// one is not meant, and not allowed in a user namespace.
func remount(path string, flags uintptr) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return err
	}
	for st, ms := range map[int64]uintptr{
		unix.ST_RDONLY: unix.MS_RDONLY, unix.ST_NOSUID: unix.MS_NOSUID, unix.ST_NODEV: unix.MS_NODEV,
		unix.ST_NOEXEC: unix.MS_NOEXEC, unix.ST_NOATIME: unix.MS_NOATIME, unix.ST_NODIRATIME: unix.MS_NODIRATIME,
		unix.ST_RELATIME: unix.MS_RELATIME,
	} {
		if int64(fs.Flags)&st != 0 {
			flags |= ms
		}
	}
	return unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|flags, "")
}

// setRecursively needs Linux 5.12.
func setRecursively(top *os.File, flags uintptr) error {
	var attr unix.MountAttr
	for ms, a := range map[uintptr]uint64{
		unix.MS_RDONLY: unix.MOUNT_ATTR_RDONLY, unix.MS_NOSUID: unix.MOUNT_ATTR_NOSUID,
		unix.MS_NODEV: unix.MOUNT_ATTR_NODEV, unix.MS_NOEXEC: unix.MOUNT_ATTR_NOEXEC,
	} {
		if flags&ms != 0 {
			attr.Attr_set |= a
		}
	}
	return unix.MountSetattr(int(top.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr)
}
