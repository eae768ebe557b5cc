package namespaces_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// program is this test binary in one of the roles of play.
func program(t *testing.T, role string, env ...string) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cmd := exec.Command("/proc/self/exe", "one", "two")
	cmd.Env = append(os.Environ(), append(env, "TEST_ROLE="+role)...)
	return cmd
}

func TestEnter(t *testing.T) {
	t.Parallel()
	cmd := program(t, "enter", "TMPDIR="+t.TempDir())
	cmd.Stdin = strings.NewReader("input")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	assert.Assert(t, errors.As(err, &exit), "%v", err)
	assert.Equal(t, exit.ExitCode(), 7)
	assert.Equal(t, stderr.String(), "to stderr\n")
	assert.Assert(t, strings.HasPrefix(string(out), "pid=1 session=1 ns=mnt:["), "%s", out)
	assert.Assert(t, strings.HasSuffix(string(out), ` args=["one" "two"] stdin="input" var=""`+"\n"), "%s", out)
	assert.Assert(t, !strings.Contains(string(out), hostLink(t, "/proc/self/ns/mnt")), "%s", out)
}

func TestEnter_in_a_child(t *testing.T) {
	t.Parallel()
	out, err := program(t, "enter-twice", "TMPDIR="+t.TempDir()).Output()
	assert.NilError(t, err)
	assert.Assert(t, strings.HasPrefix(string(out), "pid=1 "), "%s", out)
	assert.Assert(t, strings.HasSuffix(string(out), "exit status 7\n"), "%s", out)
}

func TestEnter_forwards_signals_once(t *testing.T) {
	t.Parallel()
	cmd := program(t, "signals")
	// A group of its own, to be signalled as a terminal does on Ctrl-C.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := cmd.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, cmd.Start())
	lines := bufio.NewReader(stdout)
	next := func() string {
		line, err := lines.ReadString('\n')
		assert.NilError(t, err)
		return line
	}
	assert.Equal(t, next(), "ready\n")
	assert.NilError(t, unix.Kill(-cmd.Process.Pid, unix.SIGINT))
	assert.Equal(t, next(), "interrupt\n")
	assert.NilError(t, cmd.Process.Signal(syscall.SIGTERM))
	assert.Equal(t, next(), "terminated\n")
	assert.NilError(t, cmd.Process.Signal(syscall.SIGQUIT))
	rest, err := io.ReadAll(lines)
	assert.NilError(t, err)
	assert.Equal(t, string(rest), "quit\n")
	var exit *exec.ExitError
	assert.Assert(t, errors.As(cmd.Wait(), &exit))
	assert.Equal(t, exit.ExitCode(), 3)
}

// A killed builder must leave nothing, not even a process that has changed its
// user and thereby lost its parent-death signal.
func TestKilled_builder_leaves_nothing(t *testing.T) {
	t.Parallel()
	for name, role := range map[string]string{"runner": "run", "entered": "enter-and-run"} {
		for _, user := range []string{"", "app"} {
			t.Run(name+"_"+user, func(t *testing.T) {
				t.Parallel()
				root := newRoot(t)
				killedLeavesNothing(t, program(t, role, "TEST_ROOT="+root, "TEST_USER="+user), root)
			})
		}
	}
}

func killedLeavesNothing(t *testing.T, cmd *exec.Cmd, root string) {
	t.Helper()
	fifo := filepath.Join(root, "fifo")
	assert.NilError(t, unix.Mkfifo(fifo, 0o666))
	assert.NilError(t, os.Chmod(fifo, 0o666))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	assert.NilError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		// Lets us go when nothing has opened the other end.
		if f, err := os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
			f.Close()
		}
	}()
	f, err := os.Open(fifo)
	assert.NilError(t, err)
	defer f.Close()
	lines := bufio.NewReader(f)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(<-ended, stderr.String())
	}
	assert.Equal(t, line, "started\n")
	assert.NilError(t, cmd.Process.Kill())
	assert.ErrorContains(t, <-ended, "killed")
	// The end of the file comes when the last process is gone.
	rest, err := io.ReadAll(lines)
	assert.NilError(t, err)
	assert.Equal(t, string(rest), "")
}

func TestEnter_cancelling_a_process(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"handles_sigterm": "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done",
		"does_not_handle": "echo ready; sleep 1000",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := program(t, "enter-and-cancel", "TEST_ROOT="+newRoot(t), "TEST_SCRIPT="+script)
			out, err := cmd.CombinedOutput()
			assert.NilError(t, err, "%s", out)
			assert.Equal(t, string(out), map[string]string{"handles_sigterm": "ended\n", "does_not_handle": "context canceled\n"}[name])
		})
	}
}

func TestUnprivileged(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	assert.NilError(t, os.Chmod(filepath.Dir(root), 0o755))
	cmd := program(t, "run", "TEST_ROOT="+root)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	assert.ErrorContains(t, err, "exit status")
	assert.Assert(t, strings.HasPrefix(string(out), "cannot create namespaces: run as root"), "%s", out)
}

func TestEnter_reports_a_killed_child(t *testing.T) {
	t.Parallel()
	cmd := program(t, "signals")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	assert.NilError(t, err)
	assert.Equal(t, line, "ready\n")
	assert.NilError(t, unix.Kill(childOf(t, cmd.Process.Pid), unix.SIGKILL))
	var exit *exec.ExitError
	assert.Assert(t, errors.As(cmd.Wait(), &exit))
	assert.Equal(t, exit.ExitCode(), 137)
	assert.Equal(t, stderr.String(), "the builder was killed (killed); if the machine ran out of memory, give it more\n")
}

func childOf(t *testing.T, parent int) int {
	t.Helper()
	statuses, err := filepath.Glob("/proc/[0-9]*/status")
	assert.NilError(t, err)
	for _, path := range statuses {
		content, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(content), fmt.Sprintf("\nPPid:\t%d\n", parent)) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		assert.NilError(t, err)
		return pid
	}
	t.Fatal("the child was not found")
	return 0
}
