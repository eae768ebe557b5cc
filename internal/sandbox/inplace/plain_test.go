package inplace_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/inplace"
)

// Where the root is not an overlay a directory can be moved with the mounts in
// it, by a step as well.
func TestRun_moves_mounts(t *testing.T) {
	if inContainer() {
		t.Skip("needs a root that is not an overlay")
	}
	for name, tc := range map[string]struct{ script, path string }{
		"renamed":     {"mv /etc /etc2; touch /etc2/x", "/etc"},
		"moved_below": {"mkdir /a; mv /etc /a/etc", "/etc"},
	} {
		t.Run(name, func(t *testing.T) {
			plain := plainWorld(t, "")
			tree := plain.newTree(t)
			before := plain.look(t)

			_, _, err := plain.try(shell(tree, tc.script))
			var moved *inplace.MovedError
			assert.Assert(t, errors.As(err, &moved), "%v", err)
			assert.Equal(t, moved.Path, tc.path)
			assert.Equal(t, plain.look(t), before)
			assert.Equal(t, plain.run(t, shell(tree, "echo again")), "again\n")
		})
	}
}

// A full disk must not keep anything from being put back, on a file system of
// its own and under an overlay.
func TestRun_fills_the_disk(t *testing.T) {
	if inContainer() {
		t.Skip("needs a small root")
	}
	for name, newWorld := range map[string]func(*testing.T) *world{
		"plain":   func(t *testing.T) *world { return plainWorld(t, "size=8m,nr_inodes=300") },
		"overlay": smallWorld,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tree := w.newTree(t)
			cache := filepath.Join(w.sources(t), "cache")
			before := w.look(t)
			p := shell(tree, "dd if=/dev/zero of=/fill bs=4096; cd /tmp; mkdir $(seq 400); exit 3")
			p.Mounts = []sandbox.Mount{{Dest: "/c", Source: cache}, {Dest: "/token", File: token(0o400)}}
			_, stderr, err := w.try(p)
			assert.Equal(t, exitCode(t, err), 3, stderr)
			assert.Assert(t, strings.Contains(stderr, "dd: error writing '/fill': No space left on device"), stderr)
			assert.Assert(t, strings.Contains(stderr, "mkdir: can't create directory '400': No space left on device"), stderr)
			assert.Equal(t, w.look(t), before)
			assert.DeepEqual(t, list(t, cache), []string{"/old"})

			// While there is no room a step says so, and nothing is lost.
			_, _, err = w.try(shell(tree, "true"))
			if err != nil {
				assert.ErrorContains(t, err, "no space left on device")
			}
			assert.Equal(t, w.look(t), before)
			assert.NilError(t, os.Remove(filepath.Join(tree, "fill")))
			assert.NilError(t, os.RemoveAll(filepath.Join(tree, "tmp")))
			assert.Equal(t, w.run(t, shell(tree, "echo again")), "again\n")
			assert.Equal(t, w.look(t), before)
		})
	}
}

// plainWorld is a world whose root is no overlay.
func plainWorld(t *testing.T, data string) *world {
	t.Helper()
	w := bareWorld(t)
	root := t.TempDir()
	assert.NilError(t, unix.Mount("tmpfs", root, "tmpfs", 0, data))
	t.Cleanup(func() { assert.NilError(t, unix.Unmount(root, unix.MNT_DETACH)) })
	plain := &world{root: root, state: filepath.Join(root, "kaniko/state")}
	assert.NilError(t, os.MkdirAll(plain.state, 0o755))
	for _, d := range []string{"proc", "dev", "etc"} {
		assert.NilError(t, os.Mkdir(filepath.Join(root, d), 0o755))
	}
	plain.mount(t, "/proc", "proc", unix.MS_BIND|unix.MS_REC)
	plain.mountDev(t)
	plain.mountFile(t, w.root, "etc/hosts", "127.0.0.1\tlocalhost\n")
	var err error
	plain.runner, err = inplace.New(context.Background(), plain.options())
	assert.NilError(t, err)
	return plain
}

// smallWorld is a world whose overlay has its upper directory on a small disk.
func smallWorld(t *testing.T) *world {
	t.Helper()
	w := bareWorldIn(t, func(dir string) {
		assert.NilError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=10m,nr_inodes=400"))
		t.Cleanup(func() { assert.NilError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	})
	var err error
	w.runner, err = inplace.New(context.Background(), w.options())
	assert.NilError(t, err)
	return w
}

func TestNew_refuses(t *testing.T) {
	w := bareWorld(t)
	volume := filepath.Join(w.root, "volume/state")
	assert.NilError(t, os.Mkdir(volume, 0o755))
	t.Cleanup(func() { assert.NilError(t, os.RemoveAll(volume)) })
	o := w.options()
	o.StateDir = volume
	_, err := inplace.New(context.Background(), o)
	var unsupported *sandbox.UnsupportedError
	assert.Assert(t, errors.As(err, &unsupported), "%v", err)
	assert.ErrorContains(t, err, "on another file system")

	o = w.options()
	o.StateDir = w.root
	_, err = inplace.New(context.Background(), o)
	assert.ErrorContains(t, err, "--state-dir")
}
