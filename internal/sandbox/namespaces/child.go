package namespaces

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
	childName = "kaniko-multiarch-process"
	// Descriptors of the helper.
	specFD, reportFD = 3, 4
)

// Child must be the first call of main. It returns at once, except in the
// process that a Runner has started: there it sets up what the process shall
// find and becomes the process, or exits.
func Child() {
	if len(os.Args) != 1 || os.Args[0] != childName {
		return
	}
	// Capabilities and parent-death signals belong to a thread.
	runtime.LockOSThread()
	unix.CloseOnExec(specFD)
	unix.CloseOnExec(reportFD)
	told := process.Told(attempt(os.NewFile(specFD, "spec")))
	// Nobody is left to hear of an error here.
	_ = gob.NewEncoder(os.NewFile(reportFD, "report")).Encode(told)
	os.Exit(1)
}

// attempt keeps a panic from looking like a failure of the user's command.
func attempt(specFile *os.File) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("setting up a process: %v", v)
		}
	}()
	return become(specFile)
}

// become does not return when all is well.
func become(specFile *os.File) error {
	var s spec
	if err := gob.NewDecoder(specFile).Decode(&s); err != nil {
		return fmt.Errorf("setting up a process: %w", err)
	}
	specFile.Close()
	if err := process.CloseOnExec(); err != nil {
		return fmt.Errorf("setting up a process: %w", err)
	}
	if err := s.setUpSystem(); err != nil {
		return err
	}
	if err := s.setUpRoot(); err != nil {
		return err
	}
	return s.Become()
}

func (s *spec) setUpSystem() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("setting the host name %q: %w", s.Hostname, err)
	}
	if s.NoNetwork {
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("bringing up the loopback interface: %w", err)
		}
	}
	// A keyring of its own hides ours. Where there are no keyrings, or no more of
	// them, there is nothing to do about it.
	_, _ = unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}
