package inplace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// The reserve is room on the disk for the way out: directories have to be made
// again and names be written, also after a step that has filled the disk.
const (
	reserveName = "swap.reserve"
	// reserveSize is in bytes, reserveFiles what it has of inodes.
	reserveSize  = 512 << 10
	reserveFiles = 64
)

// reserve makes it, unless it is there. The root must be locked.
func reserve(stateDir string) error {
	dir := filepath.Join(stateDir, reserveName)
	if exists(dir) {
		return nil
	}
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	err := fillReserve(part)
	if err == nil {
		err = os.Rename(part, dir)
	}
	if err != nil {
		// The failure is what counts, and this is tried again.
		_ = os.RemoveAll(part)
		return fmt.Errorf("reserving room on the disk to put everything back after a step: %w: free at least %d KiB and %d files", sandbox.Cause(err), reserveSize>>10, reserveFiles)
	}
	return nil
}

func fillReserve(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for i := range reserveFiles {
		f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(i)), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if i == 0 {
			// It must have blocks of its own, which a hole has not.
			err = unix.Fallocate(int(f.Fd()), 0, 0, reserveSize)
			if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) {
				_, err = f.Write(make([]byte, reserveSize))
			}
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// release gives the room back where the disk is full.
func release(stateDir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(stateDir, &st); err != nil {
		return nil // the step has deleted it, and the reserve with it
	}
	room := st.Bavail*uint64(st.Bsize) >= reserveSize
	// Some file systems have no number of files.
	files := st.Files == 0 || st.Ffree >= reserveFiles
	if room && files {
		return nil
	}
	return os.RemoveAll(filepath.Join(stateDir, reserveName))
}
