package namespaces_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox/emulation"
	"github.com/org/kaniko-multiarch/internal/sandbox/namespaces"
)

// play is the test binary as another program, for what can only be seen from
// outside of a process.
func play(role string) int {
	switch role {
	case "run":
		return playRun()
	case "whoami":
		return playWhoami()
	}
	code, done, err := namespaces.Enter(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if done {
		return code
	}
	if err != nil {
		return 99
	}
	switch role {
	case "enter":
		return playEntered()
	case "enter-and-run":
		return playRun()
	case "enter-and-cancel":
		return playCancel()
	case "signals":
		return playSignals()
	case "enter-twice":
		// A program that we start must not take itself for our child.
		os.Setenv("TEST_ROLE", "enter")
		cmd := exec.Command("/proc/self/exe", "one", "two")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			fmt.Println(err)
		}
		return 0
	}
	return 98
}

// playEntered shows where it is.
func playEntered() int {
	self, _ := os.Readlink("/proc/self/ns/mnt")
	if err := unix.Mount("tmpfs", os.TempDir(), "tmpfs", 0, ""); err != nil {
		fmt.Println(err)
	}
	stdin := make([]byte, 5)
	n, _ := os.Stdin.Read(stdin)
	session, _ := unix.Getsid(0)
	fmt.Printf("pid=%d session=%d ns=%s args=%q stdin=%q var=%q\n", os.Getpid(), session, self, os.Args[1:], stdin[:n], os.Getenv("_KANIKO_MULTIARCH_ENTERED"))
	fmt.Fprintln(os.Stderr, "to stderr")
	return 7
}

// playRun runs a script that holds a FIFO open until it dies.
func playRun() int {
	p := shell(os.Getenv("TEST_ROOT"), "exec 3>/fifo; echo started >&3; sleep 1000")
	p.User = os.Getenv("TEST_USER")
	p.Stderr = os.Stderr
	if err := newRunner().Run(context.Background(), p); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// playCancel cancels a script that has said that it is ready. Waiting for the
// grace time would be noticed.
func playCancel() int {
	ctx, cancel := context.WithCancel(context.Background())
	p := shell(os.Getenv("TEST_ROOT"), os.Getenv("TEST_SCRIPT"))
	p.Stdout = &watcher{saw: "ready", then: cancel}
	if err := namespaces.New(emulation.New(os.Getenv), time.Hour).Run(ctx, p); err != nil {
		fmt.Println(err)
		return 0
	}
	fmt.Println("ended")
	return 0
}

// playSignals counts the signals that it gets; SIGQUIT ends it.
func playSignals() int {
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	fmt.Println("ready")
	for s := range signals {
		fmt.Println(s)
		if s == syscall.SIGQUIT {
			return 3
		}
	}
	return 0
}

func playWhoami() int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "Uid:") || strings.HasPrefix(line, "CapEff:") {
			fmt.Print(line)
		}
	}
	return 0
}
