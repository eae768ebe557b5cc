package namespaces

import (
	"encoding/gob"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

const (
	// childName is the whole command line of the helper that becomes a process.
	childName = "kaniko-multiarch-process"
	// Descriptors of the helper.
	specFD, reportFD = 3, 4
	// headSize is how much of a file the parent gets to explain why it does not
	// run.
	headSize = 64
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
	told := reportOf(attempt(os.NewFile(specFD, "spec")))
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
	if err := closeOnExec(); err != nil {
		return fmt.Errorf("setting up a process: %w", err)
	}
	if err := s.setUpSystem(); err != nil {
		return err
	}
	if err := s.setUpRoot(); err != nil {
		return err
	}
	if err := s.setUpProcess(); err != nil {
		return err
	}
	return s.exec()
}

// closeOnExec keeps descriptors that the builder has inherited from the process,
// which may be secrets that its caller gave it.
func closeOnExec() error {
	err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	// Linux before 5.11.
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
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

// setUpProcess runs in the new root and gives up our rights.
func (s *spec) setUpProcess() error {
	if err := allowLimits(s.Limits); err != nil {
		return err
	}
	if err := s.setUpStdio(); err != nil {
		return fmt.Errorf("setting up standard streams: %w", err)
	}
	if err := unix.Chdir(s.Cwd); err != nil {
		return fmt.Errorf("changing to the working directory %s: %w", s.Cwd, err)
	}
	if err := s.dropRights(); err != nil {
		return err
	}
	// The change of user has cleared it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("arming the parent-death signal: %w", err)
	}
	unix.Umask(0o022)
	return setLimits(s.Limits)
}

// setUpStdio opens the new root's /dev/null in place of ours, and lets the user
// open /dev/stdout and /dev/stderr.
func (s *spec) setUpStdio() error {
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
			if err := unix.Fchown(fd, s.UID, -1); err != nil {
				return err
			}
			continue
		}
		null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("/dev/null: %w", err)
		}
		if err := unix.Dup3(null, fd, 0); err != nil {
			return err
		}
		unix.Close(null)
	}
	return nil
}

// notRun is the error of a command that could not be started.
type notRun struct {
	message string
	code    int
	head    []byte
}

func (e *notRun) Error() string { return e.message }

// exec runs the command. Its errors are phrased as runc phrases them.
func (s *spec) exec() error {
	name := s.Args[0]
	if !strings.Contains(name, "/") {
		for _, entry := range s.Env {
			if path, ok := strings.CutPrefix(entry, "PATH="); ok {
				os.Setenv("PATH", path)
			}
		}
		found, err := exec.LookPath(name)
		// A directory of $PATH may be relative; that is the user's affair.
		if err != nil && !errors.Is(err, exec.ErrDot) {
			return &notRun{message: err.Error(), code: 127}
		}
		name = found
	}
	err := syscall.Exec(name, s.Args, s.Env)
	failed := &notRun{message: fmt.Sprintf("exec %s: %v", name, err), code: 126}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		failed.code = 127
		if _, err := os.Stat(name); err == nil {
			failed.message += ": the file exists, but not the interpreter or dynamic loader that it names"
		}
	case errors.Is(err, unix.ENOEXEC):
		failed.head = head(name)
	}
	return failed
}

func head(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	buf := make([]byte, headSize)
	n, _ := f.Read(buf)
	return buf[:n]
}

func reportOf(err error) report {
	var failed *notRun
	var unsupported *sandbox.UnsupportedError
	switch {
	case errors.As(err, &failed):
		return report{NotRun: true, Message: failed.message, Code: failed.code, Head: failed.head}
	case errors.As(err, &unsupported):
		return report{Message: unsupported.What, Fix: unsupported.Fix}
	}
	return report{Message: err.Error()}
}
