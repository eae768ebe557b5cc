package process

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/ids"
)

// headSize is how much of a file the parent gets to explain why it does not
// run.
const headSize = 64

// CloseOnExec keeps descriptors that the builder has inherited from the process,
// which may be secrets that its caller gave it.
func CloseOnExec() error {
	err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
		return err
	}
	// Linux before 5.11, or a seccomp profile of that age.
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

// Become gives up our rights and becomes the process. The caller is in the new
// root and has locked its thread. It does not return when all is well; Told
// makes a report of the error.
func (s *Spec) Become() error {
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
	if err := setLimits(s.Limits); err != nil {
		return err
	}
	return s.exec()
}

// setUpStdio opens the new root's /dev/null in place of ours, and lets the user
// open /dev/stdout and /dev/stderr.
func (s *Spec) setUpStdio() error {
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
			if err := unix.Fchown(fd, s.UID, -1); err != nil {
				return ids.Explain(err, "the step's user is %d", s.UID)
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
func (s *Spec) exec() error {
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
