package namespaces_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// The usual root: what a step that does nothing leaves in the upper directory
// would become a layer.
func TestRun_on_an_overlay(t *testing.T) {
	t.Parallel()
	lower, dir := newRoot(t), t.TempDir()
	for _, name := range []string{"upper", "work", "merged"} {
		assert.NilError(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	merged := filepath.Join(dir, "merged")
	options := "lowerdir=" + lower + ",upperdir=" + filepath.Join(dir, "upper") + ",workdir=" + filepath.Join(dir, "work")
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		t.Skip("needs overlayfs on " + dir + ": " + err.Error())
	}
	mounted := true
	t.Cleanup(func() {
		if mounted {
			_ = unix.Unmount(merged, unix.MNT_DETACH)
		}
	})
	before, err := os.Stat(filepath.Join(lower, "etc"))
	assert.NilError(t, err)

	p := shell(merged, "cat /etc/hosts >/dev/null; echo new >/tmp/new")
	p.Mounts = []sandbox.Mount{{Dest: "/run/secrets/x", Source: "/proc/version", ReadOnly: true}, {Dest: "/cache"}}
	p.RemoveStubs = true
	run(t, p)

	// Nothing of the process may still use the tree.
	assert.NilError(t, unix.Unmount(merged, 0))
	mounted = false
	assert.DeepEqual(t, list(t, filepath.Join(dir, "upper")), []string{"/dev", "/etc", "/proc", "/sys", "/tmp", "/tmp/new"})
	after, err := os.Stat(filepath.Join(dir, "upper/etc"))
	assert.NilError(t, err)
	assert.Equal(t, after.ModTime(), before.ModTime())
}
