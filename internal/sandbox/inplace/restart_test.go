package inplace

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// A container that was killed during a step and started again has its mounts
// among the step's files, where the runtime made the mount points anew.
func TestRecover_after_a_restart_of_the_container(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for name, records := range map[string]int{"step_was_running": 1000, "on_the_way_in": 20, "beginning": 3} {
		t.Run(name, func(t *testing.T) {
			root := crashRoot(t)
			assert.NilError(t, os.Remove(filepath.Join(root, "github/workspace/src")))
			before := tell(t, root)
			err := crashRun(t, root, records, true)
			assert.Equal(t, err == nil, records == 1000)
			if err == nil {
				write(t, root, "var/run/of-the-step", "x")
			}
			// The old mounts are gone with the old mount namespace.
			volume := t.TempDir()
			write(t, volume, "src", "on the volume")
			mountFresh(t, volume, filepath.Join(root, "github/workspace"))
			mountFresh(t, volume, filepath.Join(root, "var/run/secrets/token"))
			write(t, root, "etc/hosts", "127.0.0.1 localhost\n10.9.8.7 new-name\n")
			state := filepath.Join(root, "kaniko/state")
			forget(t, state)

			assert.NilError(t, Recover(context.Background(), state))
			assert.Assert(t, !exists(filepath.Join(state, journalName)))
			for _, at := range []string{"github/workspace/src", "var/run/secrets/token/src"} {
				got, err := os.ReadFile(filepath.Join(root, at))
				assert.NilError(t, err)
				assert.Equal(t, string(got), "on the volume")
			}
			hosts, err := os.ReadFile(filepath.Join(root, "etc/hosts"))
			assert.NilError(t, err)
			assert.Equal(t, string(hosts), "127.0.0.1 localhost\n10.9.8.7 new-name\n")
			// All else is as it was; the tree is that of a dead build.
			after := tell(t, root)
			for line := range strings.Lines(before) {
				name, _, _ := strings.Cut(line, " ")
				if strings.HasPrefix(name, "kaniko/state/tree") || strings.HasPrefix(name, "github/workspace") || name == "etc/hosts" {
					continue
				}
				assert.Assert(t, strings.Contains(after, line), "%s is missing in\n%s", line, after)
			}
			assert.Assert(t, !strings.Contains(after, "\nbin/sh") && !strings.Contains(after, "\nvar/run/of-the-step"), after)
			assert.NilError(t, Recover(context.Background(), state))
		})
	}
}

func mountFresh(t *testing.T, volume, at string) {
	t.Helper()
	assert.NilError(t, os.MkdirAll(at, 0o755))
	err := unix.Mount(volume, at, "", unix.MS_BIND, "")
	if errors.Is(err, unix.EPERM) {
		t.Skip("needs a place where mounting is allowed")
	}
	assert.NilError(t, err)
	t.Cleanup(func() { assert.NilError(t, unix.Unmount(at, unix.MNT_DETACH)) })
}

// forget makes the journal one of another mount namespace.
func forget(t *testing.T, state string) {
	t.Helper()
	name := filepath.Join(state, journalName)
	content, err := os.ReadFile(name)
	assert.NilError(t, err)
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	assert.NilError(t, err)
	j, err := readJournal(file)
	assert.NilError(t, err)
	assert.NilError(t, file.Close())
	j.Space = "mnt:[1]"
	again, file, err := newJournal(name, j.state)
	assert.NilError(t, err)
	again.Phase = phase(content[0])
	assert.NilError(t, again.reach(phase(content[0])))
	assert.NilError(t, file.Close())
}

// What is not complete does not count, wherever it lies.
func TestJournal_is_read_to_the_last_good_record(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), journalName)
	j, file, err := newJournal(name, state{Root: "/r", Tree: "/r/t", Stash: "/r/s"})
	assert.NilError(t, err)
	defer file.Close()
	assert.NilError(t, j.note(record{Stashed: []string{"a"}}))
	good := j.end
	assert.NilError(t, j.note(record{Placed: []string{strings.Repeat("long", 100)}}))
	content, err := os.ReadFile(name)
	assert.NilError(t, err)
	for cut := good; cut < int64(len(content)); cut++ {
		assert.NilError(t, os.WriteFile(name, content[:cut], 0o600))
		got := mustRead(t, name)
		assert.DeepEqual(t, got.Stashed, []string{"a"})
		assert.Equal(t, len(got.Placed), 0)
	}
	// A disk that was full for a moment: a short record on a torn long one.
	assert.NilError(t, os.WriteFile(name, content[:len(content)-9], 0o600))
	j.end = good
	assert.NilError(t, j.note(record{Placed: []string{"b"}}))
	assert.DeepEqual(t, mustRead(t, name).Placed, []string{"b"})

	assert.NilError(t, os.WriteFile(name, []byte("\x01not a journal"), 0o600))
	err = Recover(context.Background(), filepath.Dir(name))
	assert.ErrorContains(t, err, "start the next build in a fresh container")
}

func mustRead(t *testing.T, name string) *journal {
	t.Helper()
	file, err := os.Open(name)
	assert.NilError(t, err)
	defer file.Close()
	j, err := readJournal(file)
	assert.NilError(t, err)
	return j
}

// Two builders at once: a journal that another one has only just begun is not
// taken away from it, and one that was replaced meanwhile is not put back twice.
func TestRecover_waits_for_a_busy_builder(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	stateDir := filepath.Join(root, "state")
	write(t, stateDir, "tree/x", "x")
	lock, err := lockRoot(context.Background(), root)
	assert.NilError(t, err)
	name := filepath.Join(stateDir, journalName)
	begin := state{Root: root, Tree: filepath.Join(stateDir, "tree"), Stash: filepath.Join(stateDir, stashName)}
	j, file, err := newJournal(name, begin)
	assert.NilError(t, err)
	defer file.Close()
	impatient, cancel := context.WithCancel(context.Background())
	cancel()
	assert.ErrorIs(t, Recover(impatient, stateDir), context.Canceled)
	assert.Assert(t, exists(name))

	done := make(chan error)
	go func() { done <- Recover(context.Background(), stateDir) }()
	// It is replaced by that of another builder, which ends before we look.
	assert.NilError(t, j.note(record{Placed: []string{"tree-of-the-first"}}))
	next, file, err := newJournal(name, begin)
	assert.NilError(t, err)
	defer file.Close()
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	assert.NilError(t, next.close())
	assert.NilError(t, lock.Close())
	assert.NilError(t, <-done)
}
