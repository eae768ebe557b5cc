package inplace

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox/process"
)

// guardName is the whole command line of the helper that stays beside a
// process: it starts it, adopts and kills what it leaves behind, and puts
// everything back if the builder dies.
const guardName = "kaniko-multiarch-guard"

// Descriptors of the guard. The root's lock is only held.
const orderFD, resultFD, journalFD, lockFD = 3, 4, 5, 6

// order is what the builder tells the guard.
type order struct {
	// Start is the process to start.
	Start *start
	// Stop ends it: SIGTERM, then SIGKILL after Grace.
	Stop  bool
	Grace time.Duration
	// Done lets the guard go. If the orders end without it the builder is dead.
	Done bool
}

// start is a process in the root.
type start struct {
	process.Spec
	Root string
}

// result is how a process ended, when none of its descendants is left.
type result struct {
	Report process.Report
	Status int
	// Failed is why nothing is known of it.
	Failed string
}

// guard runs in the helper.
func guard() error {
	// A process may look at every process of its user that is dumpable.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	// Signals are for the builder. Ignoring them would be inherited.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	for fd := range 4 {
		unix.CloseOnExec(orderFD + fd)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopting orphans: %w", err)
	}
	// The kernel sends the parent-death signal when the starting thread ends.
	runtime.LockOSThread()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("starting a guard: %w", err)
	}
	orders := receive(os.NewFile(orderFD, "orders"))
	results := gob.NewEncoder(os.NewFile(resultFD, "results"))

	for o := range orders {
		if o.Done {
			return nil
		}
		if o.Start == nil {
			continue
		}
		end := oversee(o.Start, orders)
		// This is the end of what the process prints.
		for fd := 1; fd <= 2; fd++ {
			if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
				return err
			}
		}
		// The builder reads it, or is dead.
		_ = results.Encode(end)
	}
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", journalFD))
	if err != nil {
		return err
	}
	return putBack(os.NewFile(journalFD, name))
}

// receive closes its channel when the orders end.
func receive(from io.Reader) <-chan order {
	out := make(chan order)
	go func() {
		defer close(out)
		for dec := gob.NewDecoder(from); ; {
			var o order
			if dec.Decode(&o) != nil {
				return
			}
			out <- o
		}
	}()
	return out
}

// oversee runs a process to its end, and all that it started.
func oversee(s *start, orders <-chan order) result {
	var r result
	pid, report, err := launch(s)
	if err != nil {
		r.Failed = err.Error()
		return r
	}
	told := make(chan process.Report, 1)
	go func() {
		var t process.Report
		t.Receive(report)
		told <- t
	}()
	ended := make(chan syscall.WaitStatus, 1)
	go func() { ended <- await(pid) }()
	var patience <-chan time.Time
	for waiting := true; waiting; {
		select {
		case status := <-ended:
			r.Status = int(status)
			waiting = false
		case o, ok := <-orders:
			switch {
			case !ok:
				orders = nil
				_ = unix.Kill(pid, unix.SIGKILL)
			case o.Stop:
				_ = unix.Kill(pid, unix.SIGTERM)
				patience = time.After(o.Grace)
			}
		case <-patience:
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	if err := killDescendants(); err != nil {
		r.Failed = err.Error()
	}
	r.Report = <-told
	return r
}

// await reaps every child until the one with the given number ends.
func await(pid int) syscall.WaitStatus {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		if got == pid || errors.Is(err, unix.ECHILD) {
			return status
		}
	}
}

// launch starts the helper that becomes the process. What it reports ends when
// it has become it.
func launch(s *start) (pid int, report *os.File, err error) {
	specR, specW, err := os.Pipe()
	if err != nil {
		return 0, nil, fmt.Errorf("starting a process: %w", err)
	}
	reportR, reportW, err := os.Pipe()
	if err != nil {
		return 0, nil, fmt.Errorf("starting a process: %w", err)
	}
	// Not os.StartProcess: its child is not ours to wait for.
	pid, err = syscall.ForkExec("/proc/self/exe", []string{childName}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{},
		Files: []uintptr{0, 1, 2, specR.Fd(), reportW.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	})
	specR.Close()
	reportW.Close()
	if err != nil {
		return 0, nil, fmt.Errorf("starting a process: %w", err)
	}
	// A child that ends early does not read it all; its report says why.
	_ = gob.NewEncoder(specW).Encode(s)
	specW.Close()
	return pid, reportR, nil
}
