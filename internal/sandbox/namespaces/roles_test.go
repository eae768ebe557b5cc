package namespaces_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/ids"
	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/emulation"
	"github.com/org/kaniko-multiarch/internal/sandbox/namespaces"
)

// The parent-death signal is that of the main thread alone, and what asks for
// it must run there. Only an init function is sure to.
func init() {
	if os.Getenv("TEST_ROLE") == "place" {
		runtime.LockOSThread()
	}
}

// play is the test binary as another program, for what can only be seen from
// outside of a process.
func play(role string) int {
	switch role {
	case "run":
		return playRun()
	case "whoami":
		return playWhoami()
	case "try":
		for _, form := range formsOf(os.Getenv("TEST_FORMS")) {
			fmt.Printf("%v: %v\n", form, namespaces.Try(form, trial))
		}
		return 0
	}
	in, code, err := namespaces.Enter(context.Background(), formsOf(os.Getenv("TEST_FORMS")), trial)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 99)
	}
	if in == nil {
		return code
	}
	switch role {
	case "place":
		return playPlace(in)
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

// formsOf reads the names of forms; none are all that are worth trying.
func formsOf(names string) []namespaces.Form {
	var out []namespaces.Form
	for name := range strings.FieldsSeq(names) {
		out = append(out, map[string]namespaces.Form{
			"root": namespaces.AsRoot, "all": namespaces.AllIDs, "sub": namespaces.SubordinateIDs, "one": namespaces.OneID,
		}[name])
	}
	if out == nil {
		return namespaces.Forms()
	}
	return out
}

// trial fails in the forms that TEST_REFUSE names.
func trial() error {
	maps, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return err
	}
	if text := os.Getenv("TEST_REFUSE"); text != "" && strings.Contains(strings.Join(strings.Fields(string(maps)), " "), text) {
		return &sandbox.UnsupportedError{What: "refused " + text, Fix: "ask for it"}
	}
	return nil
}

// playPlace shows where it is, and what it may do there.
func playPlace(in *namespaces.Place) int {
	fmt.Println("form:", in.Form)
	fmt.Println("more ids:", in.MoreIDs)
	for _, id := range []int{0, 1, 1000, 65535} {
		f, err := os.CreateTemp("", "")
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("chown", id, os.Chown(f.Name(), id, id) == nil)
		fmt.Println("remove", os.Remove(f.Name()) == nil)
	}
	var status unix.Stat_t
	fmt.Println("mount", unix.Mount("tmpfs", os.TempDir(), "tmpfs", 0, "") == nil, unix.Stat("/proc/self", &status) == nil, status.Uid)
	death := 0
	if err := unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&death)), 0, 0, 0); err != nil {
		fmt.Println(err)
	}
	fmt.Println("dies with", syscall.Signal(death))
	return playRunIn(os.Getenv("TEST_ROOT"))
}

// playRunIn runs a script as root, and as a user, in a root that is ours.
func playRunIn(root string) int {
	for _, user := range []string{"", "app", "70000"} {
		p := shell(root, "id -u; id -g; head -c 0 /dev/null && echo a device; ls -d /proc/self/fd; echo >/tmp/$(id -u)")
		p.User, p.Stdout, p.Stderr = user, os.Stdout, os.Stdout
		if err := newRunner().Run(context.Background(), p); err != nil {
			missing, _ := errors.AsType[*ids.MissingError](err)
			fmt.Printf("missing: %v\n", missing)
		}
	}
	return 0
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
