package namespaces

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/process"
)

// enteredVar tells a process that it is the child of Enter: "NAMESPACE:FD", the
// parent's mount namespace and a socket to it. The child removes it from its
// environment.
const enteredVar = "_KANIKO_MULTIARCH_ENTERED"

// Place is where the child of Enter is.
type Place struct {
	Form Form
	// MoreIDs is what to do when a user or group ID is not there.
	MoreIDs string
}

// hello is what the parent tells the child once that has its IDs.
type hello struct {
	Place Place
	// Trial means that the child ends after the trial.
	Trial bool
}

// Enter starts this program again, with the same arguments, in a mount and a
// pid namespace of its own, in the first of the given forms that works: the
// child calls try, which may be nil, to find out whether what the caller needs
// works there. In the parent Enter waits for that child, and returns no place
// and the exit code to end with; a child that was killed has code 128 plus the
// signal's number, and err says so. In the child it returns the place at once.
// When no form works the error is that of the last one, and an
// *sandbox.UnsupportedError when something is missing here.
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
func Enter(ctx context.Context, forms []Form, try func() error) (in *Place, code int, err error) {
	if in, err := settle(try); in != nil || err != nil {
		return in, 0, err
	}
	var lack error
	for _, form := range forms {
		c, err := start(form, lack, false)
		if err == nil {
			code, err := c.wait(ctx)
			return nil, code, err
		}
		lack = err
		if _, ok := errors.AsType[*sandbox.UnsupportedError](err); !ok {
			break
		}
	}
	return nil, 0, lack
}

// Try is Enter with a child that ends after try. It returns why the form does
// not work.
func Try(form Form, try func() error) error {
	if in, err := settle(try); in != nil || err != nil {
		return errors.Join(err, errors.New("a trial did not end"))
	}
	c, err := start(form, nil, true)
	if err != nil {
		return err
	}
	defer c.end()
	return c.cmd.Wait()
}

// child is a started process that said that it is ready.
type child struct {
	cmd     *exec.Cmd
	signals chan os.Signal
}

// start starts a child, and waits for its trial. The caller's thread is locked
// until the child has ended: the kernel sends the parent-death signal when the
// starting thread ends.
func start(form Form, lack error, trial bool) (_ *child, err error) {
	self, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("finding the mount namespace: %w", err)
	}
	var uids, gids []string
	if form == SubordinateIDs {
		if uids, gids, err = idMaps(); err != nil {
			return nil, err
		}
	}
	attr, err := form.attributes()
	if err != nil {
		return nil, err
	}
	// The child inherits its end under its own number: a fixed number could be
	// one that the user has passed to us.
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, fmt.Errorf("entering a mount namespace: %w", err)
	}
	unix.CloseOnExec(pair[0])
	ours := os.NewFile(uintptr(pair[0]), "child")
	defer ours.Close()

	runtime.LockOSThread()
	c := &child{signals: make(chan os.Signal, 16)}
	defer func() {
		if err != nil {
			c.end()
		}
	}()
	signal.Notify(c.signals, forwarded()...)
	c.cmd = &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        os.Args,
		Env:         append(os.Environ(), fmt.Sprintf("%s=%s:%d", enteredVar, self, pair[1])),
		Stdin:       os.Stdin,
		Stdout:      os.Stdout,
		Stderr:      os.Stderr,
		SysProcAttr: attr,
	}
	err = c.cmd.Start()
	unix.Close(pair[1])
	if err != nil {
		return nil, startError(form, err)
	}
	if form == SubordinateIDs {
		if err := writeMaps(c.cmd.Process.Pid, uids, gids); err != nil {
			c.kill()
			return nil, err
		}
	}
	// A child that ends early does not read it; it has not said why.
	sendErr := gob.NewEncoder(ours).Encode(hello{Place{form, moreIDs(form, lack)}, trial})
	var told process.Report
	if err := gob.NewDecoder(ours).Decode(&told); err != nil {
		c.kill()
		return nil, fmt.Errorf("starting the builder %s: it ended (%v)", form, errors.Join(sendErr, err))
	}
	if err := told.Err(nil, nil); err != nil {
		_ = c.cmd.Wait() // it ends now, with a code that says less
		return nil, err
	}
	return c, nil
}

func startError(form Form, err error) error {
	if why := refused(form, err, os.DirFS("/proc/sys")); why != err {
		return why
	}
	return fmt.Errorf("starting a process %s: %w", form, err)
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

func (c *child) end() {
	signal.Stop(c.signals)
	runtime.UnlockOSThread()
}

func (c *child) wait(ctx context.Context) (code int, err error) {
	defer c.end()
	stop := make(chan struct{})
	go forward(ctx, c.signals, stop, func(s os.Signal) {
		_ = c.cmd.Process.Signal(s) // it may have ended
	})
	err = c.cmd.Wait()
	close(stop)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("waiting for the builder: %w", err)
	}
	status := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return process.ExitCode(status), fmt.Errorf("the builder was killed (%v); if the machine ran out of memory, give it more", status.Signal())
	}
	return process.ExitCode(status), nil
}

// settle tells whether this process is the child, and makes it ready. A child
// that cannot be what was wanted ends here.
func settle(try func() error) (*Place, error) {
	value, ok := os.LookupEnv(enteredVar)
	if !ok {
		return nil, nil
	}
	os.Unsetenv(enteredVar)
	parent, number, _ := strings.Cut(value, "]:")
	self, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("finding the mount namespace: %w", err)
	}
	fd, err := strconv.Atoi(number)
	if err != nil || self == parent+"]" {
		return nil, nil // not meant for us
	}
	unix.CloseOnExec(fd)
	socket := os.NewFile(uintptr(fd), "parent")
	defer socket.Close()
	var from hello
	if err := gob.NewDecoder(socket).Decode(&from); err != nil {
		// The parent is gone, or has given up: nobody wants to know.
		os.Exit(1)
	}
	trialErr := from.Place.prepare(try)
	if err := answer(socket, trialErr); err != nil || trialErr != nil {
		os.Exit(1)
	}
	if from.Trial {
		os.Exit(0)
	}
	return &from.Place, nil
}

func (p Place) prepare(try func() error) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		if why := refused(p.Form, err, os.DirFS("/proc/sys")); why != err {
			return why
		}
		return fmt.Errorf("making mounts private: %w", err)
	}
	if try == nil {
		return nil
	}
	return try()
}

func answer(to io.Writer, err error) error {
	var report process.Report
	if err != nil {
		report = process.Told(err)
	}
	return gob.NewEncoder(to).Encode(report)
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
