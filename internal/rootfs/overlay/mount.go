package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/rootfs/state"
)

// emptyName is an empty directory in the directory of a build.
const emptyName = "e"

// mount stacks lower directories, bottom first, and a writable one when upper
// and work are not empty. All of these are names relative to dir, so that
// hundreds of them fit into the page that mount options may take; target is
// absolute.
func mount(dir, target string, lower []string, upper, work string, options []string) error {
	lower = slices.Clone(lower)
	if upper == "" && len(lower) < 2 {
		// Overlayfs wants two directories.
		lower = append([]string{emptyName}, lower...)
	}
	slices.Reverse(lower)
	data := append([]string{"lowerdir=" + strings.Join(lower, ":")}, options...)
	var flags uintptr = unix.MS_RDONLY
	if upper != "" {
		data = append(data, "upperdir="+upper, "workdir="+work)
		flags = 0
	}
	return in(dir, func() error {
		return unix.Mount("overlay", target, "overlay", flags, strings.Join(data, ","))
	})
}

// in runs do in a thread whose working directory is dir.
func in(dir string, do func() error) error {
	done := make(chan error)
	go func() {
		// Without an unlock the thread ends here: it is like no other now.
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("giving a thread a working directory of its own: %w", err)
			}
			if err := unix.Chdir(dir); err != nil {
				return err
			}
			return do()
		}()
	}()
	return <-done
}

// unmount takes a tree away. A process that still has a file open there, which
// nothing should, keeps it to itself.
func unmount(target string) error {
	err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if err != nil {
		return &os.PathError{Op: "unmount", Path: target, Err: err}
	}
	return nil
}

// removeTree removes dir, after all that is mounted in it is unmounted.
func removeTree(dir string) error {
	below := func(i *mountinfo.Info) (skip, stop bool) {
		return !strings.HasPrefix(i.Mountpoint, dir+string(filepath.Separator)), false
	}
	mounts, err := mountinfo.GetMounts(below)
	if err != nil {
		return fmt.Errorf("looking for mounts below %s: %w", dir, err)
	}
	// Later mounts can be on top of earlier ones.
	slices.Reverse(mounts)
	for _, m := range mounts {
		if err := unmount(m.Mountpoint); err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return state.RemoveAll(dir)
}
