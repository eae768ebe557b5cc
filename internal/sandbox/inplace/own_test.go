package inplace_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox/inplace"
)

// What was moved aside is within reach of a step that walks through "/". It
// must be as it was, or the step has failed.
func TestRun_walks_through_the_builder(t *testing.T) {
	w := newWorld(t)
	for name, tc := range map[string]struct{ script, changed string }{
		"reads":   {"find / >/dev/null; ls -R /kaniko >/dev/null", ""},
		"modes":   {"find /kaniko -xdev -type f -exec chmod 4777 {} +", ""},
		"owners":  {"find /kaniko -xdev -exec chown 5:6 {} +", ""},
		"content": {"echo x >>/kaniko/state/swap.stash/.dockerenv; exit 3", "/.dockerenv"},
		"kind":    {"cd /kaniko/state/swap.stash; rm .dockerenv; mkdir .dockerenv", "/.dockerenv"},
	} {
		t.Run(name, func(t *testing.T) {
			if inContainer() && tc.changed != "" {
				t.Skip("leaves the container changed")
			}
			before := w.look(t)
			_, _, err := w.try(shell(w.newTree(t), tc.script))
			if tc.changed == "" {
				assert.NilError(t, err)
				assert.Equal(t, w.look(t), before)
				return
			}
			var changed *inplace.ChangedError
			assert.Assert(t, errors.As(err, &changed), "%v", err)
			assert.Equal(t, changed.Path, filepath.Join(w.root, tc.changed))
			if name == "content" {
				assert.Equal(t, exitCode(t, err), 3)
			}
			assert.NilError(t, os.RemoveAll(filepath.Join(w.root, ".dockerenv")))
			write(t, w.root, ".dockerenv", "", 0o755)
		})
	}
}

// The state directory need not be below the builder's own.
func TestRun_with_a_state_directory_elsewhere(t *testing.T) {
	if inContainer() {
		t.Skip("leaves the container changed")
	}
	w := bareWorld(t)
	w.state = filepath.Join(w.root, "mine/state")
	assert.NilError(t, os.MkdirAll(w.state, 0o755))
	var err error
	w.runner, err = inplace.New(context.Background(), w.options())
	assert.NilError(t, err)
	tree := w.newTree(t)
	// Long enough for a file's time to change.
	assert.Equal(t, w.run(t, shell(tree, "touch /made; sleep 0.1; echo $(ls /mine)")), "state\n")
	assert.Assert(t, exists(filepath.Join(tree, "made")) && !exists(filepath.Join(w.root, "made")))
	_, _, err = w.try(shell(tree, "echo x >/kaniko/executor"))
	var changed *inplace.ChangedError
	assert.Assert(t, errors.As(err, &changed), "%v", err)
}

// Whoever keeps files beside the trees is asked when all is back.
func TestRun_is_watched(t *testing.T) {
	w := bareWorld(t)
	tree := w.newTree(t)
	fault := errors.New("touched")
	o := w.options()
	var own []string
	o.Watch = func(paths []string) (func(context.Context) error, error) {
		own = paths
		return func(context.Context) error {
			assert.Check(t, exists(filepath.Join(tree, "made")) && !exists(filepath.Join(w.root, "made")))
			return fault
		}, nil
	}
	runner, err := inplace.New(context.Background(), o)
	assert.NilError(t, err)
	err = runner.Run(context.Background(), shell(tree, "touch /made; exit 7"))
	assert.ErrorIs(t, err, fault)
	assert.Equal(t, exitCode(t, err), 7)
	assert.DeepEqual(t, own, []string{tree})

	o.Watch = func([]string) (func(context.Context) error, error) { return nil, fault }
	runner, err = inplace.New(context.Background(), o)
	assert.NilError(t, err)
	before := w.look(t)
	assert.ErrorIs(t, runner.Run(context.Background(), shell(tree, "true")), fault)
	assert.Equal(t, w.look(t), before)
}

// What a step puts where things were moved aside fails it, and the next one too,
// with a word on what to do.
func TestRun_leaves_files_with_the_builder(t *testing.T) {
	if inContainer() {
		t.Skip("leaves the container changed")
	}
	w := newWorld(t)
	tree := w.newTree(t)
	for _, script := range []string{"echo x >/kaniko/state/swap.stash/mine", "true"} {
		_, _, err := w.try(shell(tree, script))
		assert.ErrorContains(t, err, "start the next build in a fresh container")
		assert.ErrorContains(t, err, "swap.stash")
	}
	assert.NilError(t, os.Remove(filepath.Join(w.state, "swap.stash/mine")))
	assert.Equal(t, w.run(t, shell(tree, "echo again")), "again\n")
}
