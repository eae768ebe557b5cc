package namespaces_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/emulation"
	"github.com/org/kaniko-multiarch/internal/sandbox/namespaces"
)

const busybox = "/bin/busybox"

func TestMain(m *testing.M) {
	namespaces.Child()
	if role, ok := os.LookupEnv("TEST_ROLE"); ok {
		os.Exit(play(role))
	}
	os.Exit(runAll(m))
}

// runAll fails when the tests leave a mount or a process behind.
func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sandbox-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// Users other than root must get at the roots.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	os.Setenv("TMPDIR", dir)
	// What outlives a test becomes a child of ours.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// A descriptor that a caller passes to the builder must not reach a process.
	if err := unix.Dup3(0, 200, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	mounts, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return !strings.HasPrefix(i.Mountpoint, dir), false
	})
	if err != nil || len(mounts) > 0 {
		fmt.Fprintln(os.Stderr, "mounts left behind:", mounts, err)
		code = 1
	}
	// A killed process takes a moment to end.
	for patience := 1000; ; patience-- {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return code
		case pid == 0 && patience == 0:
			fmt.Fprintln(os.Stderr, "processes left behind")
			return 1
		case pid == 0:
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func newRunner() *namespaces.Runner {
	return namespaces.New(emulation.New(os.Getenv), namespaces.DefaultGrace)
}

// newRoot makes a root directory with a shell and the usual users.
func newRoot(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := os.Stat(busybox); err != nil {
		t.Skip("needs a static busybox at " + busybox)
	}
	root := t.TempDir()
	assert.NilError(t, os.Chmod(root, 0o755))
	for _, dir := range []string{"bin", "etc", "root", "tmp", "home/app"} {
		assert.NilError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	copyProgram(t, busybox, filepath.Join(root, "bin/busybox"))
	for _, name := range strings.Fields("sh cat ls id env pwd hostname grep sleep stat touch mkdir dd head wc echo umask kill mount readlink rm ln true ip tr yes ps ulimit mv chown find") {
		assert.NilError(t, os.Symlink("busybox", filepath.Join(root, "bin", name)))
	}
	write(t, root, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n", 0o644)
	write(t, root, "etc/group", "root:x:0:\napp:x:1001:\nvideo:x:44:app\naudio:x:29:app\n", 0o644)
	return root
}

// copyProgram lets another process do it: a child that another test has just
// forked would hold our descriptor until it execs (golang.org/issue/22315).
func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	out, err := exec.Command("cp", from, to).CombinedOutput()
	assert.NilError(t, err, "%s", out)
	assert.NilError(t, os.Chmod(to, 0o755))
}

func write(t *testing.T, root, name, content string, mode os.FileMode) {
	t.Helper()
	assert.NilError(t, os.WriteFile(filepath.Join(root, name), []byte(content), mode))
	assert.NilError(t, os.Chmod(filepath.Join(root, name), mode))
}

// shell is a process that runs a script.
func shell(root, script string) sandbox.Process {
	return sandbox.Process{Root: root, Args: []string{"/bin/sh", "-c", script}}
}

// run returns what p prints; stderr is added to a failure.
func run(t *testing.T, p sandbox.Process) string {
	t.Helper()
	out, errOut, err := try(p)
	assert.NilError(t, err, "stdout: %s\nstderr: %s", out, errOut)
	return out
}

func try(p sandbox.Process) (stdout, stderr string, err error) {
	var out, errOut bytes.Buffer
	p.Stdout, p.Stderr = &out, &errOut
	err = newRunner().Run(context.Background(), p)
	return out.String(), errOut.String(), err
}

// exitCode returns the code of an *sandbox.ExitError and fails for other errors.
func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *sandbox.ExitError
	assert.Assert(t, errors.As(err, &exit), "%v", err)
	return exit.Code
}

// list names all files below root, to see what is left.
func list(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	assert.NilError(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if path != root && !strings.HasPrefix(path, filepath.Join(root, "bin")) {
			out = append(out, strings.TrimPrefix(path, root))
		}
		return err
	}))
	return out
}
