// Package namespaces runs a process as runc would: with a root directory of its
// own in new mount, pid, ipc and uts namespaces, and a new network namespace
// when it may not use the network.
//
// The process is pid 1 of its pid namespace, so nothing that it started
// outlives it. It has the 14 capabilities that BuildKit grants, and they are
// the limit: unlike BuildKit we load no seccomp profile, so system calls are
// refused for want of a capability only. There are no cgroups either; limits
// are those of the builder.
//
// A program that uses this package calls Child first in main, and Enter before
// it mounts anything. The package must not know what a Dockerfile, a vertex or
// a layer is, nor assume that a root is a mount.
package namespaces

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/ids"
	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/identity"
	"github.com/org/kaniko-multiarch/internal/sandbox/process"
	"github.com/org/kaniko-multiarch/internal/sandbox/stub"
)

// DefaultGrace is how long a cancelled process may take to end after SIGTERM.
const DefaultGrace = 5 * time.Second

// Explainer says why the kernel refuses to run a file.
type Explainer = process.Explainer

// Runner is a sandbox.Runner. It needs CAP_SYS_ADMIN, which the child of Enter
// has. What needs an ID that is not there is an *ids.MissingError.
type Runner struct {
	explain Explainer
	grace   time.Duration
}

var _ sandbox.Runner = (*Runner)(nil)

// New returns a Runner that asks e about programs of another architecture. A
// cancelled process has grace to end after SIGTERM; see DefaultGrace.
func New(e Explainer, grace time.Duration) *Runner {
	return &Runner{explain: e, grace: grace}
}

// Run implements sandbox.Runner. A process that does not handle SIGTERM is
// killed at once when ctx is cancelled: as pid 1 it would not see the signal.
// The error is then the cause of ctx. A command that cannot be started is an
// *sandbox.ExitError with code 127 (not found) or 126, and a line on p.Stderr.
func (r *Runner) Run(ctx context.Context, p sandbox.Process) (err error) {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	root, err := filepath.Abs(p.Root)
	if err != nil {
		return fmt.Errorf("finding the root directory: %w", err)
	}
	user, err := identity.Lookup(root, p.User)
	if err != nil {
		return err
	}
	made := stub.Find(root, p.Mounts, p.RemoveStubs)
	defer func() { err = errors.Join(err, made.Remove()) }()
	if err := stub.MakeCwd(root, p.Cwd, user); err != nil {
		return ids.Explain(err, "the owner of the working directory %s is %d:%d", p.Cwd, user.UID, user.GID)
	}
	s, err := newSpec(root, p, user)
	if err != nil {
		return err
	}
	s.KeepTimes = made.Parents()
	return r.start(ctx, s, p.Stdout, p.Stderr)
}

// start runs the child to its end.
func (r *Runner) start(ctx context.Context, s *spec, stdout, stderr io.Writer) error {
	// The kernel sends the parent-death signal when the thread ends that
	// started the child, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	specR, specW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("starting a process: %w", err)
	}
	defer specR.Close()
	defer specW.Close()
	reportR, reportW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("starting a process: %w", err)
	}
	defer reportR.Close()
	defer reportW.Close()

	cmd := command(s, stdout, stderr)
	cmd.ExtraFiles = []*os.File{specR, reportW}
	if err := cmd.Start(); err != nil {
		return startError(AsRoot, err)
	}
	specR.Close()
	reportW.Close()

	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-ctx.Done():
			r.stop(cmd.Process, done)
		case <-done:
		}
	}()
	// A child that ends early does not read it all; its report says why.
	sendErr := gob.NewEncoder(specW).Encode(s)
	specW.Close()
	var told process.Report
	told.Receive(reportR)
	waitErr := cmd.Wait()
	close(done)
	<-stopped

	if waitErr != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := told.Err(r.explain, stderr); err != nil {
		return err
	}
	if exit := (*exec.ExitError)(nil); errors.As(waitErr, &exit) {
		return &sandbox.ExitError{Code: process.ExitCode(exit.Sys().(syscall.WaitStatus))}
	}
	if waitErr != nil {
		return fmt.Errorf("running a process: %w", waitErr)
	}
	if sendErr != nil {
		return fmt.Errorf("starting a process: %w", sendErr)
	}
	return nil
}

// command is the helper that becomes the process. What the process is told is
// neither in its arguments nor in its environment, where others could see it.
func command(s *spec, stdout, stderr io.Writer) *exec.Cmd {
	flags := unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if s.NoNetwork {
		flags |= unix.CLONE_NEWNET
	}
	return &exec.Cmd{
		Path: "/proc/self/exe",
		Args: []string{childName},
		Env:  []string{},
		Dir:  "/",
		// Always a pipe: the process must not get hold of our terminal.
		Stdout: onlyWriter(stdout),
		Stderr: onlyWriter(stderr),
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: uintptr(flags),
			Pdeathsig:  syscall.SIGKILL,
			Setsid:     true,
		},
	}
}

func onlyWriter(w io.Writer) io.Writer {
	if w == nil {
		return nil
	}
	return struct{ io.Writer }{w}
}
