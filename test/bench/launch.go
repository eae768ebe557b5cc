package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// launch as the first argument makes this program run the rest of them, and write
// what that took to descriptor 3. The kernel counts the memory of whoever forked a
// process as the process' own, so that has to be a small one.
const launch = "-launch"

type usageReport struct {
	CPU     time.Duration
	PeakMiB float64
}

func launched(args []string) (code int) {
	// Pdeathsig is of the thread that starts the process.
	runtime.LockOSThread()
	report := os.NewFile(3, "report")
	syscall.CloseOnExec(3)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	go func() {
		for s := range signals {
			cmd.Process.Signal(s) //nolint:errcheck // it may have ended
		}
	}()
	err := cmd.Wait()
	r := usageReport{CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.PeakMiB = float64(usage.Maxrss) / 1024
	}
	if wrote := json.NewEncoder(report).Encode(r); wrote != nil {
		fmt.Fprintln(os.Stderr, wrote)
		return 127
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	return 0
}
