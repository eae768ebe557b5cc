package inplace

import (
	"encoding/gob"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox/process"
)

const (
	// childName is the whole command line of the helper that becomes a process.
	childName = "kaniko-multiarch-process-in-place"
	// Descriptors of that helper.
	specFD, reportFD = 3, 4
)

// Child must be the first call of main. It returns at once, except in the
// helpers that a Runner has started.
func Child() {
	if len(os.Args) != 1 {
		return
	}
	switch os.Args[0] {
	case guardName:
		if err := guard(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case childName:
		// Capabilities and parent-death signals belong to a thread.
		runtime.LockOSThread()
		told := process.Told(attempt())
		// Nobody is left to hear of an error here.
		_ = gob.NewEncoder(os.NewFile(reportFD, "report")).Encode(told)
		os.Exit(1)
	}
}

// attempt keeps a panic from looking like a failure of the user's command.
func attempt() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("setting up a process: %v", v)
		}
	}()
	var s start
	specFile := os.NewFile(specFD, "spec")
	if err := gob.NewDecoder(specFile).Decode(&s); err != nil {
		return fmt.Errorf("setting up a process: %w", err)
	}
	specFile.Close()
	if err := process.CloseOnExec(); err != nil {
		return fmt.Errorf("setting up a process: %w", err)
	}
	// A keyring of its own hides ours. Where there are no keyrings, or no more of
	// them, there is nothing to do about it.
	_, _ = unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
	if s.Root != "/" {
		if err := unix.Chroot(s.Root); err != nil {
			return fmt.Errorf("changing the root directory: %w", err)
		}
		if err := unix.Chdir("/"); err != nil {
			return fmt.Errorf("changing the root directory: %w", err)
		}
	}
	return s.Become()
}
