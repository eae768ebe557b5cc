package inplace_test

import (
	"bufio"
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox/inplace"
)

// builder starts another builder in the world.
func (w *world) builder(t *testing.T, role, tree, script string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "TEST_ROLE="+role, "TEST_ROOT="+w.root, "TEST_STATE="+w.state,
		"TEST_OWN="+filepath.Join(w.root, "kaniko"), "TEST_TREE="+tree, "TEST_SCRIPT="+script)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, cmd.Start())
	return cmd, bufio.NewReader(out)
}

// settled waits for the guard of a killed builder to put everything back, where
// New would do it if there were no guard.
func (w *world) settled(t *testing.T) {
	t.Helper()
	for exists(filepath.Join(w.state, "swap.journal")) {
		time.Sleep(time.Millisecond)
	}
}

func TestRun_builder_is_killed(t *testing.T) {
	w := newWorld(t)
	tree := w.newTree(t)
	before := w.look(t)
	cmd, out := w.builder(t, "once", tree, "touch /made; setsid sleep 1000 & echo ready; sleep 1000")
	line, err := out.ReadString('\n')
	assert.NilError(t, err)
	assert.Equal(t, line, "ready\n")
	assert.Assert(t, exists(filepath.Join(w.root, "made")))
	assert.NilError(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	w.settled(t)
	assert.Equal(t, w.look(t), before)
	assert.Assert(t, exists(filepath.Join(tree, "made")))
	assert.DeepEqual(t, users(t, tree), []string(nil))
	assert.Equal(t, w.run(t, shell(tree, "ls /made")), "/made\n")
}

// Where the guard is killed as well, as with a whole container, the next start
// puts everything back.
func TestRecover_after_all_were_killed(t *testing.T) {
	w := newWorld(t)
	tree := w.newTree(t)
	before := w.look(t)
	cmd, out := w.builder(t, "once", tree, "touch /made; rm -rf /home; echo ready; sleep 1000")
	line, err := out.ReadString('\n')
	assert.NilError(t, err)
	assert.Equal(t, line, "ready\n")
	killFamily(t, cmd)
	assert.Assert(t, exists(filepath.Join(w.root, "made")))
	runner, err := inplace.New(context.Background(), w.options())
	assert.NilError(t, err)
	assert.Equal(t, w.look(t), before)
	assert.Assert(t, exists(filepath.Join(tree, "made")))
	assert.Assert(t, !exists(filepath.Join(tree, "home")))
	assert.NilError(t, runner.Run(context.Background(), shell(tree, "true")))
	assert.Equal(t, w.look(t), before)
}

// killFamily kills a builder and its descendants. Both are stopped first: a
// guard that sees its builder die would put everything back.
func killFamily(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var family []int
	for len(family) < len(descendants(t, cmd.Process.Pid)) {
		family = descendants(t, cmd.Process.Pid)
		for _, pid := range family {
			_ = unix.Kill(pid, unix.SIGSTOP) // it may have ended
		}
	}
	for _, pid := range family {
		_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
	}
	_ = cmd.Wait() // it was killed
	for _, pid := range family[1:] {
		// Its parent is dead, so it is ours.
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}
}

// descendants are a process and those below it, parents first.
func descendants(t *testing.T, pid int) []int {
	t.Helper()
	out := []int{pid}
	entries, err := filepath.Glob("/proc/[0-9]*/stat")
	assert.NilError(t, err)
	children := map[int][]int{}
	for _, e := range entries {
		stat, err := os.ReadFile(e)
		if err != nil {
			continue
		}
		head, _, _ := strings.Cut(string(stat), " ")
		after := strings.Fields(string(stat)[strings.LastIndexByte(string(stat), ')')+1:])
		child, err := strconv.Atoi(head)
		assert.NilError(t, err)
		parent, err := strconv.Atoi(after[1])
		assert.NilError(t, err)
		children[parent] = append(children[parent], child)
	}
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i]]...)
	}
	return out
}

// Wherever the builder and its guard are killed, nothing is lost.
func TestRecover_after_a_kill_at_any_time(t *testing.T) {
	w := newWorld(t)
	tree := w.newTree(t)
	files := list(t, tree)
	before := w.look(t)
	for i := range 20 {
		cmd, out := w.builder(t, "many", tree, "echo ready")
		_, err := out.ReadString('\n')
		assert.NilError(t, err)
		time.Sleep(time.Duration(rand.IntN(40000)) * time.Microsecond)
		if i%2 == 0 {
			assert.NilError(t, cmd.Process.Kill())
			_ = cmd.Wait() // it was killed
		} else {
			killFamily(t, cmd)
		}
		assert.NilError(t, inplace.Recover(context.Background(), w.state))
		assert.Equal(t, w.look(t), before)
		assert.DeepEqual(t, list(t, tree), files)
	}
}

// Two builders in one container take turns.
func TestRun_two_builders(t *testing.T) {
	w := newWorld(t)
	tree, other := w.newTree(t), w.newTree(t)
	before := w.look(t)
	cmd, out := w.builder(t, "once", tree, "echo ready; while ! [ -e /tmp/go ]; do sleep 0.01; done; echo end")
	_, err := out.ReadString('\n')
	assert.NilError(t, err)
	done := make(chan error, 1)
	go func() {
		_, _, err := w.try(shell(other, "true"))
		done <- err
	}()
	write(t, w.root, "tmp/go", "", 0o644)
	line, err := out.ReadString('\n')
	assert.NilError(t, err)
	assert.Equal(t, line, "end\n")
	assert.NilError(t, cmd.Wait())
	assert.NilError(t, <-done)
	assert.Equal(t, w.look(t), before)
}
