package doctor

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

// Below these sizes, in bytes, a build of one ordinary base image fails, or may
// fail: the base unpacked, what the steps add, and the compressed layers.
const (
	noDisk       = 512 << 20
	littleDisk   = 4 << 30
	littleMemory = 512 << 20
)

// disk is what the file system of a directory has left for us.
func disk(dir string) Check {
	c := Check{Kind: "disk", Subject: dir}
	at, err := Ancestor(dir)
	if err != nil {
		c.fail(Lack, err, "name another directory with --state-dir")
		return c
	}
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		c.fail(Lack, &os.PathError{Op: "statfs", Path: at, Err: err}, "name another directory with --state-dir")
		return c
	}
	return room(c, st.Bavail*uint64(st.Bsize), st.Files > 0 && st.Ffree == 0)
}

func room(c Check, free uint64, noInodes bool) Check {
	const fix = "make room, or name a directory on a larger disk with --state-dir"
	c.Status, c.Detail = OK, size(free)+" free"
	switch {
	case noInodes:
		c.Status, c.Detail, c.Fix = Lack, "no inode is free", fix
	case free < noDisk:
		c.Status, c.Fix = Lack, fix
	case free < littleDisk:
		c.Status, c.Fix = Note, fix
	}
	return c
}

// Ancestor is dir, or the closest directory above it that exists.
func Ancestor(dir string) (string, error) {
	for {
		info, err := os.Stat(dir)
		switch {
		case err == nil && info.IsDir():
			return dir, nil
		case err == nil:
			return "", fmt.Errorf("%s is not a directory", dir)
		case !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir:
			return "", err
		}
		dir = filepath.Dir(dir)
	}
}

var machine = os.DirFS("/")

// memory is that of the machine, or the limit of our control group where there
// is a lower one. root is the root directory.
func memory(root fs.FS) Check {
	c := Check{Kind: "memory"}
	total, available, err := meminfo(root)
	if err != nil {
		c.fail(Note, err, "mount /proc: how much memory there is cannot be seen")
		return c
	}
	c.Status, c.Detail = OK, fmt.Sprintf("%s, %s available", size(total), size(available))
	least := total
	if l, file := limit(root); l < total {
		least = l
		c.Detail = fmt.Sprintf("limited to %s by /%s; the machine has %s, %s available", size(l), file, size(total), size(available))
	}
	if least < littleMemory {
		c.Status, c.Fix = Note, "give the machine or container more memory: compilers that a step runs may be killed"
	}
	return c
}

func meminfo(root fs.FS) (total, available uint64, err error) {
	data, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, 0, fmt.Errorf("reading /proc/meminfo: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, err := strconv.ParseUint(f[1], 10, 64)
		switch {
		case err != nil:
		case f[0] == "MemTotal:":
			total = kib << 10
		case f[0] == "MemAvailable:":
			available = kib << 10
		}
	}
	if total == 0 {
		return 0, 0, errors.New("/proc/meminfo has no MemTotal")
	}
	return total, available, nil
}

// limit is the lowest limit of our control groups and those above them, and the
// file that says so (Linux: Documentation/admin-guide/cgroup-v1/memory.rst and
// cgroup-v2.rst). A container sees its own group as the root, under whatever
// path /proc/self/cgroup names; so paths that are not there are passed over.
func limit(root fs.FS) (least uint64, file string) {
	least = math.MaxUint64
	data, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return least, ""
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		// HIERARCHY:CONTROLLERS:PATH; version 2 is hierarchy 0 without controllers.
		f := strings.SplitN(lines.Text(), ":", 3)
		if len(f) < 3 {
			continue
		}
		top, name := "sys/fs/cgroup", "memory.max"
		if f[0] != "0" {
			if !strings.Contains(","+f[1]+",", ",memory,") {
				continue
			}
			top, name = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		for group := path.Clean("/" + f[2]); ; group = path.Dir(group) {
			at := path.Join(top, group, name)
			value, err := fs.ReadFile(root, at)
			// "max" is no number and no limit.
			if n, bad := strconv.ParseUint(strings.TrimSpace(string(value)), 10, 64); err == nil && bad == nil && n < least {
				least, file = n, at
			}
			if group == "/" {
				break
			}
		}
	}
	return least, file
}

func size(n uint64) string { return units.BytesSize(float64(n)) }
