package namespaces

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox/process"
)

// enteredVar tells a process that it is the child of Enter: "NAMESPACE:FD", the
// parent's mount namespace and a descriptor to close when ready. The child
// removes it from its environment.
const enteredVar = "_KANIKO_MULTIARCH_ENTERED"

// Enter starts this program again, with the same arguments, in a mount and a
// pid namespace of its own. In the parent it waits for that child, and returns
// done and the exit code to end with; a child that was killed has code 128 plus
// the signal's number, and err says so. In the child it returns at once with
// done false.
//
// Whatever the child mounts is gone when it ends, and so is every process that
// it started, however it ends: it is pid 1, and it dies with the parent. /proc
// is still the parent's.
//
// The child gets SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGWINCH that the parent
// gets, and SIGTERM when ctx ends for another reason. It has a session of its
// own, so a Ctrl-C reaches it through the parent only, once. It can print to a
// terminal, but /dev/tty cannot be opened: whatever asks for a password there
// fails instead of waiting.
func Enter(ctx context.Context) (code int, done bool, err error) {
	if entered, err := settle(); entered || err != nil {
		return 0, false, err
	}
	self, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return 0, false, fmt.Errorf("finding the mount namespace: %w", err)
	}
	// The child inherits the descriptor under its own number: a fixed number
	// could be one that the user has passed to us.
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], 0); err != nil {
		return 0, false, fmt.Errorf("entering a mount namespace: %w", err)
	}
	unix.CloseOnExec(pipe[0])
	ready := os.NewFile(uintptr(pipe[0]), "ready")
	defer ready.Close()

	// The kernel sends the parent-death signal when the starting thread ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded()...)
	defer signal.Stop(signals)

	cmd := &exec.Cmd{
		Path:   "/proc/self/exe",
		Args:   os.Args,
		Env:    append(os.Environ(), fmt.Sprintf("%s=%s:%d", enteredVar, self, pipe[1])),
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID,
			Pdeathsig:  syscall.SIGKILL,
			Setsid:     true,
		},
	}
	err = cmd.Start()
	unix.Close(pipe[1])
	if err != nil {
		return 0, false, startError(err)
	}
	stop := make(chan struct{})
	go func() {
		// Before its runtime is up, a pid 1 would lose signals.
		_, _ = ready.Read(make([]byte, 1))
		forward(ctx, signals, stop, func(s os.Signal) {
			_ = cmd.Process.Signal(s) // it may have ended
		})
	}()
	err = cmd.Wait()
	close(stop)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, false, fmt.Errorf("waiting for the builder: %w", err)
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return process.ExitCode(status), true, fmt.Errorf("the builder was killed (%v); if the machine ran out of memory, give it more", status.Signal())
	}
	return process.ExitCode(status), true, nil
}

// settle tells whether this process is the child, and makes it ready.
func settle() (bool, error) {
	value, ok := os.LookupEnv(enteredVar)
	if !ok {
		return false, nil
	}
	os.Unsetenv(enteredVar)
	parent, number, _ := strings.Cut(value, "]:")
	self, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return false, fmt.Errorf("finding the mount namespace: %w", err)
	}
	fd, err := strconv.Atoi(number)
	if err != nil || self == parent+"]" {
		return false, nil // not meant for us
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return false, fmt.Errorf("making mounts private: %w", err)
	}
	unix.Close(fd)
	return true, nil
}

// forwarded leaves alone what our parent wants ignored, as nohup does.
func forwarded() []os.Signal {
	var out []os.Signal
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGWINCH} {
		if !signal.Ignored(s) {
			out = append(out, s)
		}
	}
	return out
}

// forward passes signals on until stop is closed. ctx may end because of the
// very signal that we are about to pass on, so only one of the two counts.
func forward(ctx context.Context, signals <-chan os.Signal, stop <-chan struct{}, send func(os.Signal)) {
	ended := ctx.Done()
	skip := false
	for {
		select {
		case <-stop:
			return
		case s := <-signals:
			ends := s != syscall.SIGWINCH
			if ends && skip {
				skip = false
				continue
			}
			if ends {
				ended = nil
			}
			send(s)
		case <-ended:
			ended = nil
			skip = true
			send(syscall.SIGTERM)
		}
	}
}
