package namespaces

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// device is a node of /dev.
type device struct {
	name         string
	kind         uint32
	major, minor uint32
}

// defaultDevices are those of the OCI runtime specification.
func defaultDevices() []device {
	const c = unix.S_IFCHR
	return []device{
		{"null", c, 1, 3}, {"zero", c, 1, 5}, {"full", c, 1, 7},
		{"random", c, 1, 8}, {"urandom", c, 1, 9}, {"tty", c, 5, 0},
	}
}

// insecureDevices are what BuildKit adds for --security=insecure: with loop
// devices for eight more than the host has now.
func insecureDevices() []device {
	const c = unix.S_IFCHR
	list := []device{
		{"kmsg", c, 1, 11}, {"cuse", c, 10, 203}, {"fuse", c, 10, 229}, {"kvm", c, 10, 232},
		{"net/tun", c, 10, 200}, {"loop-control", c, 10, 237},
	}
	loops, _ := filepath.Glob("/dev/loop[0-9]*") // the pattern is valid
	for i := range len(loops) + 8 {
		list = append(list, device{fmt.Sprintf("loop%d", i), unix.S_IFBLK, 7, uint32(i)})
	}
	return list
}

// makeDevices fills /dev, unless the user brings one.
func (s *spec) makeDevices(t tree) error {
	for _, m := range s.Mounts {
		if m.Dest == "/dev" && m.Source != "" {
			return nil
		}
	}
	dev, err := t.open("/dev")
	if err != nil {
		return fmt.Errorf("opening /dev: %w", err)
	}
	defer dev.Close()
	for _, d := range defaultDevices() {
		if err := d.make(t, dev); err != nil {
			return fmt.Errorf("making the device /dev/%s: %w", d.name, err)
		}
	}
	if s.Insecure {
		for _, d := range insecureDevices() {
			// A user namespace has those of the host only.
			if err := d.make(t, dev); err != nil && !errors.Is(err, unix.EPERM) {
				return fmt.Errorf("making the device /dev/%s: %w", d.name, err)
			}
		}
	}
	links := [][2]string{
		{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"},
		{"pts/ptmx", "ptmx"},
	}
	if _, err := os.Stat("/proc/kcore"); err == nil {
		links = append(links, [2]string{"/proc/kcore", "core"})
	}
	for _, l := range links {
		if err := unix.Symlinkat(l[0], int(dev.Fd()), l[1]); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("making the link /dev/%s: %w", l[1], err)
		}
	}
	return nil
}

func (d device) make(t tree, dev *os.File) error {
	if sub := filepath.Dir(d.name); sub != "." {
		if _, err := t.mkdirAll("/dev/" + sub); err != nil {
			return err
		}
	}
	err := unix.Mknodat(int(dev.Fd()), d.name, d.kind|0o666, int(unix.Mkdev(d.major, d.minor)))
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	// A user namespace may not make devices. It may use the host's.
	source := handle("/dev/" + d.name)
	if source == nil {
		return fmt.Errorf("neither may it be made here nor is there one to use: %w", err)
	}
	defer source.Close()
	return mount{dest: "/dev/" + d.name, source: source}.mount(t)
}

// maskPaths hides parts of /proc and /sys, and makes others read-only, as
// containerd's default does. An insecure process sees and writes everything.
func (s *spec) maskPaths() error {
	if s.Insecure {
		return nil
	}
	for _, path := range strings.Fields(`/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats
		/proc/timer_list /proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap`) {
		if err := mask(path); err != nil {
			return fmt.Errorf("hiding %s: %w", path, err)
		}
	}
	for _, path := range []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"} {
		if err := protect(path); err != nil {
			return fmt.Errorf("making %s read-only: %w", path, err)
		}
	}
	return nil
}

func mask(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		return unix.Mount("tmpfs", path, "tmpfs", unix.MS_RDONLY, "")
	}
	return unix.Mount("/dev/null", path, "", unix.MS_BIND, "")
}

func protect(path string) error {
	err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, "")
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	return remount(path, unix.MS_RDONLY)
}
