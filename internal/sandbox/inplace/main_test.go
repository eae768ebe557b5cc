package inplace_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/emulation"
	"github.com/org/kaniko-multiarch/internal/sandbox/inplace"
)

// containerVar is set where "/" is that of a container made for these tests.
const containerVar = "KMA_TEST_IN_CONTAINER"

func inContainer() bool { return os.Getenv(containerVar) != "" }

func TestMain(m *testing.M) {
	inplace.Child()
	if role, ok := os.LookupEnv("TEST_ROLE"); ok {
		os.Exit(play(role))
	}
	if os.Geteuid() == 0 && !inContainer() && os.Getenv("TEST_NAMESPACE") == "" {
		os.Exit(inNamespace())
	}
	// What outlives a test becomes a child of ours.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	for patience := 1000; ; patience-- {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if errors.Is(err, unix.ECHILD) {
			os.Exit(code)
		}
		if pid == 0 && patience == 0 {
			fmt.Fprintln(os.Stderr, "processes left behind")
			os.Exit(1)
		}
		if pid == 0 {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// inNamespace runs the tests where they may mount.
func inNamespace() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), "TEST_NAMESPACE=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// world is a container, or a directory that looks like one from inside.
type world struct {
	root, state string
	runner      *inplace.Runner
}

// newWorld is a container that has these mounts, among others: /etc/hosts,
// /var/run/docker.sock, /github/workspace, /var/run/secrets/token, /volume. Its
// image has /kaniko and /busybox.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := bareWorld(t)
	var err error
	w.runner, err = inplace.New(context.Background(), w.options())
	assert.NilError(t, err)
	return w
}

// mounts are those of the container that can be moved aside.
func (w *world) mounts() []string {
	switch os.Getenv(containerVar) {
	case "volume":
		return nil
	case "github_actions":
		return []string{"/github/workspace/mine", "/var/run/docker.sock"}
	case "kubernetes":
		return []string{"/var/run/secrets/token/mine"}
	}
	return []string{"/github/workspace/mine", "/var/run/docker.sock", "/var/run/secrets/token/mine"}
}

func (w *world) options() inplace.Options {
	return inplace.Options{
		Root: w.root, StateDir: w.state, Own: []string{filepath.Join(w.root, "kaniko")},
		Explain: emulation.New(os.Getenv), Grace: inplace.DefaultGrace,
	}
}

func bareWorld(t testing.TB) *world {
	t.Helper()
	return bareWorldIn(t, func(string) {})
}

// bareWorldIn makes it where prepare has made a place for it.
func bareWorldIn(t testing.TB, prepare func(dir string)) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if inContainer() {
		w := &world{root: "/", state: "/kaniko/state"}
		assert.NilError(t, os.MkdirAll(w.state, 0o755))
		t.Cleanup(func() { assert.NilError(t, os.RemoveAll(w.state)) })
		return w
	}
	if t, ok := t.(*testing.T); ok {
		t.Parallel()
	}
	if _, err := os.Stat(busybox()); err != nil {
		t.Skip("needs a static busybox at " + busybox())
	}
	dir := t.TempDir()
	prepare(dir)
	w := &world{root: filepath.Join(dir, "root")}
	w.state = filepath.Join(w.root, "kaniko/state")
	w.mountRoot(t, dir)
	for _, d := range []string{"etc", "dev", "proc", "sys", "kaniko/state"} {
		assert.NilError(t, os.MkdirAll(filepath.Join(w.root, d), 0o755))
	}
	w.mount(t, "/proc", "proc", unix.MS_BIND|unix.MS_REC)
	w.mount(t, "/sys", "sys", unix.MS_BIND|unix.MS_REC)
	w.mountDev(t)
	for name, content := range map[string]string{
		"etc/hosts": "127.0.0.1\tlocalhost\n", "etc/hostname": "abc\n", "etc/resolv.conf": "nameserver 10.0.0.1\n",
		"var/run/docker.sock": "",
	} {
		w.mountFile(t, dir, name, content)
	}
	write(t, w.root, ".dockerenv", "", 0o755)
	for _, name := range []string{"github/workspace", "var/run/secrets/token", "volume"} {
		assert.NilError(t, os.MkdirAll(filepath.Join(w.root, name), 0o755))
		w.mount(t, "tmpfs", name, 0)
		write(t, w.root, name+"/mine", "keep\n", 0o600)
	}
	return w
}

// mountRoot makes the root an overlay as docker does, if that is possible here.
func (w *world) mountRoot(t testing.TB, dir string) {
	t.Helper()
	for _, d := range []string{"lower/kaniko", "lower/busybox", "lower/etc", "lower/proc", "upper", "work", "root"} {
		assert.NilError(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	write(t, dir, "lower/kaniko/executor", "the builder\n", 0o755)
	write(t, dir, "lower/busybox/sh", "a shell\n", 0o755)
	assert.NilError(t, os.Symlink("/proc/mounts", filepath.Join(dir, "lower/etc/mtab")))
	data := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work,redirect_dir=off", dir)
	if err := unix.Mount("overlay", w.root, "overlay", 0, data); err != nil {
		t.Logf("no overlay: %v", err)
		assert.NilError(t, os.Remove(w.root))
		assert.NilError(t, os.Rename(filepath.Join(dir, "lower"), w.root))
		return
	}
	t.Cleanup(func() { assert.NilError(t, unix.Unmount(w.root, unix.MNT_DETACH)) })
}

func (w *world) mount(t testing.TB, what, at string, flags uintptr) {
	t.Helper()
	at = filepath.Join(w.root, at)
	assert.NilError(t, unix.Mount(what, at, "tmpfs", flags, ""))
	t.Cleanup(func() {
		// The process in the test may have moved it.
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			t.Error(at, err)
		}
	})
}

func (w *world) mountFile(t testing.TB, dir, name, content string) {
	t.Helper()
	source := filepath.Join(dir, filepath.Base(name))
	assert.NilError(t, os.WriteFile(source, []byte(content), 0o644))
	assert.NilError(t, os.MkdirAll(filepath.Dir(filepath.Join(w.root, name)), 0o755))
	write(t, w.root, name, "", 0o644)
	w.mount(t, source, name, unix.MS_BIND)
}

func (w *world) mountDev(t testing.TB) {
	t.Helper()
	w.mount(t, "tmpfs", "dev", 0)
	dev := filepath.Join(w.root, "dev")
	assert.NilError(t, os.Chmod(dev, 0o755))
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9} {
		assert.NilError(t, unix.Mknod(filepath.Join(dev, name), unix.S_IFCHR, int(unix.Mkdev(1, minor))))
		assert.NilError(t, unix.Chmod(filepath.Join(dev, name), 0o666))
	}
	assert.NilError(t, unix.Mknod(filepath.Join(dev, "tty"), unix.S_IFCHR|0o666, int(unix.Mkdev(5, 0))))
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		assert.NilError(t, os.Symlink(target, filepath.Join(dev, name)))
	}
	assert.NilError(t, os.Mkdir(filepath.Join(dev, "shm"), 0o1777))
	w.mount(t, "tmpfs", "dev/shm", 0)
}

func busybox() string {
	if inContainer() {
		return "/kaniko/busybox"
	}
	return "/bin/busybox"
}

// newTree makes a tree with a shell and the usual users.
func (w *world) newTree(t testing.TB) string {
	t.Helper()
	tree, err := os.MkdirTemp(w.state, "tree-")
	assert.NilError(t, err)
	assert.NilError(t, os.Chmod(tree, 0o755))
	for _, dir := range []string{"bin", "etc", "root", "tmp", "home/app", "proc", "sys", "dev"} {
		assert.NilError(t, os.MkdirAll(filepath.Join(tree, dir), 0o755))
	}
	content, err := os.ReadFile(busybox())
	assert.NilError(t, err)
	write(t, tree, "bin/busybox", string(content), 0o755)
	for _, name := range strings.Fields("sh cat ls id env pwd grep sleep stat touch mkdir dd head wc echo umask kill mount readlink rm ln true tr ps ulimit mv chown chmod find setsid nohup cp test rmdir mknod seq") {
		assert.NilError(t, os.Symlink("busybox", filepath.Join(tree, "bin", name)))
	}
	write(t, tree, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n", 0o644)
	write(t, tree, "etc/group", "root:x:0:\napp:x:1001:\nvideo:x:44:app\naudio:x:29:app\n", 0o644)
	return tree
}

func write(t testing.TB, root, name, content string, mode os.FileMode) {
	t.Helper()
	assert.NilError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(root, name), []byte(content), mode))
	assert.NilError(t, os.Chmod(filepath.Join(root, name), mode))
}

func read(t *testing.T, root, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	assert.NilError(t, err)
	return string(content)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// shell is a process that runs a script.
func shell(tree, script string) sandbox.Process {
	return sandbox.Process{Root: tree, Args: []string{"/bin/sh", "-c", script}, RemoveStubs: true}
}

// run returns what p prints; stderr is added to a failure.
func (w *world) run(t testing.TB, p sandbox.Process) string {
	t.Helper()
	out, errOut, err := w.try(p)
	assert.NilError(t, err, "stdout: %s\nstderr: %s", out, errOut)
	return out
}

func (w *world) try(p sandbox.Process) (stdout, stderr string, err error) {
	var out, errOut bytes.Buffer
	p.Stdout, p.Stderr = &out, &errOut
	err = w.runner.Run(context.Background(), p)
	return out.String(), errOut.String(), err
}

// exitCode returns the code of an *sandbox.ExitError and fails for other errors.
func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *sandbox.ExitError
	assert.Assert(t, errors.As(err, &exit), "%v", err)
	return exit.Code
}

// look describes all of the world that a step must not change, one line each:
// "/" without the trees, and the mounts that belong to it.
func (w *world) look(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	assert.NilError(t, filepath.WalkDir(w.root, func(path string, d os.DirEntry, err error) error {
		rel := strings.TrimPrefix(path, strings.TrimSuffix(w.root, "/"))
		if err != nil {
			return err
		}
		if rel == "/proc" || rel == "/sys" || rel == "/dev/pts" || strings.HasPrefix(rel, "/kaniko/state/tree-") || strings.HasPrefix(rel, "/kaniko/state/source-") {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if rel == "/kaniko/state/swap.journal.new" {
			return nil // a journal that was not begun, which the next one replaces
		}
		if strings.HasPrefix(rel, "/kaniko/state/swap.reserve") {
			return filepath.SkipDir // where the disk is not full
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %o %d:%d", rel, st.Mode, st.Uid, st.Gid)
		// The trees come and go in the state directory; links in /dev are made
		// again.
		if rel != "/kaniko/state" && !strings.HasPrefix(rel, "/dev") {
			fmt.Fprintf(&b, " %d.%d", st.Mtim.Sec, st.Mtim.Nsec)
		}
		if d.Type().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %.40q", content)
		}
		fmt.Fprintln(&b)
		return nil
	}))
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	assert.NilError(t, err)
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); strings.HasPrefix(f[4]+"/", strings.TrimSuffix(w.root, "/")+"/") {
			fmt.Fprintln(&b, f[4])
		}
	}
	return b.String()
}

// list names all files of a tree, apart from its programs.
func list(t *testing.T, tree string) []string {
	t.Helper()
	var out []string
	assert.NilError(t, filepath.WalkDir(tree, func(path string, _ os.DirEntry, err error) error {
		if path != tree && !strings.HasPrefix(path, filepath.Join(tree, "bin")) {
			out = append(out, strings.TrimPrefix(path, tree))
		}
		return err
	}))
	return out
}
