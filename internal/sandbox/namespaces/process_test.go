package namespaces_test

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/emulation"
	"github.com/org/kaniko-multiarch/internal/sandbox/namespaces"
)

const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func TestRun_what_a_process_finds(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	for name, tc := range map[string]struct {
		process sandbox.Process
		want    string
	}{
		"env_default":      {sandbox.Process{Args: []string{"env"}}, "PATH=" + path + "\nHOME=/root\n"},
		"env_is_exact":     {sandbox.Process{Args: []string{"/bin/env"}, Env: []string{"A=1", "PATH=/bin", "A=2", "HOME=", "odd"}}, "A=2\nPATH=/bin\nHOME=/root\n"},
		"env_not_utf8":     {sandbox.Process{Args: []string{"/bin/sh", "-c", `echo "$X"`}, Env: []string{"X=\xff\xfe"}}, "\xff\xfe\n"},
		"env_of_user":      {sandbox.Process{Args: []string{"env"}, User: "app", Env: []string{"PATH=/bin"}}, "PATH=/bin\nHOME=/home/app\n"},
		"user_default":     {sandbox.Process{Args: []string{"id"}}, "uid=0(root) gid=0(root) groups=0(root)\n"},
		"user_name":        {sandbox.Process{Args: []string{"id"}, User: "app"}, "uid=1000(app) gid=1001(app) groups=29(audio),44(video),1001(app)\n"},
		"user_uid":         {sandbox.Process{Args: []string{"id"}, User: "1000"}, "uid=1000(app) gid=1001(app) groups=29(audio),44(video),1001(app)\n"},
		"user_unnamed_uid": {sandbox.Process{Args: []string{"id"}, User: "4242"}, "uid=4242 gid=0(root) groups=0(root)\n"},
		"user_and_group":   {sandbox.Process{Args: []string{"id"}, User: "app:video"}, "uid=1000(app) gid=44(video) groups=44(video)\n"},
		"uid_and_gid":      {sandbox.Process{Args: []string{"id"}, User: "7:8"}, "uid=7 gid=8 groups=8\n"},
		"umask":            {shell("", "umask"), "0022\n"},
		"cwd_default":      {sandbox.Process{Args: []string{"pwd"}}, "/\n"},
		"cwd":              {sandbox.Process{Args: []string{"pwd"}, Cwd: "/tmp"}, "/tmp\n"},
		"relative_command": {sandbox.Process{Args: []string{"./busybox", "pwd"}, Cwd: "/bin"}, "/bin\n"},
		"hostname_default": {sandbox.Process{Args: []string{"hostname"}}, "buildkitsandbox\n"},
		"hostname":         {sandbox.Process{Args: []string{"hostname"}, Hostname: "box"}, "box\n"},
		"hosts_default":    {sandbox.Process{Args: []string{"cat", "/etc/hosts"}}, "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n"},
		"hosts": {
			sandbox.Process{Args: []string{"cat", "/etc/hosts"}, Hostname: "box", ExtraHosts: []sandbox.HostIP{{Host: "db", IP: "10.0.0.1"}}},
			"127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\tdb\n",
		},
		"hosts_are_read_only": {shell("", "echo x >>/etc/hosts || echo refused"), "refused\n"},
		"pid_1":               {shell("", "echo $$; echo /proc/[0-9]*"), "1\n/proc/1\n"},
		"stdin_is_null":       {shell("", "readlink /proc/self/fd/0; cat"), "/dev/null\n"},
		"descriptors":         {shell("", "ls /proc/1/fd; true"), "0\n1\n2\n"},
		"no_terminal":         {shell("", "(echo >/dev/tty) 2>/dev/null || echo none"), "none\n"},
		"devices":             {shell("", "head -c3 /dev/zero | wc -c; head -c3 /dev/urandom | wc -c; head -c3 /dev/random | wc -c; echo x >/dev/null; (echo x >/dev/full) 2>&1; true"), "3\n3\n3\nsh: write error: No space left on device\n"},
		"dev_fd":              {shell("", "echo hello >/tmp/x; cat /dev/fd/5 5</tmp/x; echo out >/dev/stdout; echo in | cat /dev/stdin"), "hello\nout\nin\n"},
		"dev_of_user":         {sandbox.Process{Args: shell("", "echo out >/dev/stdout; echo x >/dev/null && echo y | cat /dev/fd/0").Args, User: "app"}, "out\ny\n"},
		"dev_list":            {shell("", "cd /dev; rm -f core; echo *"), "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero\n"},
		"dev_pts":             {shell("", "ls /dev/pts; readlink /dev/ptmx; stat -c %a /dev/shm/ /dev/null"), "ptmx\npts/ptmx\n1777\n666\n"},
		"proc_is_ours":        {shell("", "cat /proc/1/comm; readlink /proc/self/root"), "sh\n/\n"},
		"proc_is_masked":      {shell("", "head -c1 /proc/kcore | wc -c; ls /sys/firmware | wc -l; (echo 1 >/proc/sys/kernel/ostype) 2>&1 | grep -c 'Read-only'"), "0\n0\n1\n"},
		"sys_is_read_only":    {shell("", "touch /sys/x 2>&1; ls /sys/class >/dev/null && echo readable"), "touch: /sys/x: Read-only file system\nreadable\n"},
		"cgroup_is_read_only": {shell("", "for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do mkdir $d/x && echo made; done 2>/dev/null; true"), ""},
		"resolv_conf":         {shell("", "cat /etc/resolv.conf"), hostFile(t, "/etc/resolv.conf")},
		"network_host":        {shell("", "readlink /proc/self/ns/net"), hostLink(t, "/proc/self/ns/net") + "\n"},
		"network_none": {
			sandbox.Process{Args: shell("", "ip -o link | wc -l; ip -o addr show lo | grep -c 127.0.0.1").Args, Network: sandbox.NetworkNone},
			"1\n1\n",
		},
		"limit":          {sandbox.Process{Args: shell("", "ulimit -Sn; ulimit -Hn").Args, Ulimits: []sandbox.Ulimit{{Name: "nofile", Soft: 100, Hard: 200}}}, "100\n200\n"},
		"limit_tiny":     {sandbox.Process{Args: shell("", "echo ok").Args, User: "app", Ulimits: []sandbox.Ulimit{{Name: "NOFILE", Soft: 4, Hard: 4}, {Name: "nproc", Soft: 1, Hard: 1}, {Name: "as", Soft: 1 << 24, Hard: 1 << 24}}}, "ok\n"},
		"limit_zero":     {sandbox.Process{Args: shell("", "ulimit -Sc").Args, Ulimits: []sandbox.Ulimit{{Name: "core", Soft: 0, Hard: 0}}}, "0\n"},
		"new_privileges": {shell("", "grep NoNewPrivs /proc/self/status"), "NoNewPrivs:\t0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.process.Root = root
			assert.Equal(t, run(t, tc.process), tc.want)
		})
	}
}

func hostFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(content)
}

func hostLink(t *testing.T, path string) string {
	t.Helper()
	link, err := os.Readlink(path)
	assert.NilError(t, err)
	return link
}

func TestRun_capabilities(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	const script = "grep ^Cap /proc/self/status | tr -d '\\t\\n'"
	const none, default14 = "0000000000000000", "00000000a80425fb"
	var ours unix.CapUserData
	caps := [2]unix.CapUserData{ours, ours}
	assert.NilError(t, unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0]))
	all := fmt.Sprintf("%08x%08x", caps[1].Permitted, caps[0].Permitted)
	for name, tc := range map[string]struct {
		user                   string
		insecure               bool
		inh, perm, bound, ambt string
	}{
		"root":          {"", false, none, default14, default14, none},
		"user":          {"app", false, none, none, default14, none},
		"insecure":      {"", true, all, all, all, all},
		"insecure_user": {"app", true, all, all, all, all},
	} {
		t.Run(name, func(t *testing.T) {
			p := shell(root, script)
			p.User, p.Insecure = tc.user, tc.insecure
			assert.Equal(t, run(t, p), "CapInh:"+tc.inh+"CapPrm:"+tc.perm+"CapEff:"+tc.perm+"CapBnd:"+tc.bound+"CapAmb:"+tc.ambt)
		})
	}
	t.Run("mount_is_refused", func(t *testing.T) {
		_, stderr, err := try(shell(root, "mount -t tmpfs none /tmp"))
		assert.Equal(t, exitCode(t, err), 1)
		assert.Assert(t, strings.Contains(stderr, "permission denied") || strings.Contains(stderr, "Operation not permitted"), stderr)
	})
	t.Run("insecure_may_mount", func(t *testing.T) {
		p := shell(root, "mount -t tmpfs none /tmp && echo >/proc/sys/kernel/hostname; stat -c %t:%T /dev/fuse /dev/net/tun /dev/loop7")
		p.Insecure = true
		assert.Equal(t, run(t, p), "a:e5\na:c8\n7:7\n")
	})
	t.Run("setuid_program", func(t *testing.T) {
		self, err := os.ReadFile("/proc/self/exe")
		assert.NilError(t, err)
		write(t, root, "whoami", string(self), 0o755|os.ModeSetuid)
		p := sandbox.Process{Root: root, Args: []string{"/whoami"}, User: "app", Env: []string{"TEST_ROLE=whoami"}, Mounts: hostLibraries()}
		assert.Equal(t, run(t, p), "Uid:\t1000\t0\t0\t0\nCapEff:\t"+default14+"\n")
	})
}

// hostLibraries lets programs of the host run.
func hostLibraries() []sandbox.Mount {
	var out []sandbox.Mount
	for _, dir := range []string{"/usr", "/lib", "/lib64"} {
		if exists(dir) {
			out = append(out, sandbox.Mount{Dest: dir, Source: dir, ReadOnly: true})
		}
	}
	return out
}

func TestRun_exit_codes(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	write(t, root, "bin/plain", "#!/bin/sh\n", 0o644)
	write(t, root, "bin/orphan", "#!/no/such/shell\n", 0o755)
	write(t, root, "bin/text", "echo hello\n", 0o755)
	for name, tc := range map[string]struct {
		args   []string
		code   int
		stderr string
	}{
		"three":                {[]string{"/bin/sh", "-c", "exit 3"}, 3, ""},
		"missing_path":         {[]string{"/bin/foo"}, 127, "exec /bin/foo: no such file or directory\n"},
		"missing_name":         {[]string{"foo"}, 127, "exec: \"foo\": executable file not found in $PATH\n"},
		"below_a_file":         {[]string{"/bin/sh/foo"}, 127, "exec /bin/sh/foo: not a directory\n"},
		"not_executable":       {[]string{"/bin/plain"}, 126, "exec /bin/plain: permission denied\n"},
		"directory":            {[]string{"/etc"}, 126, "exec /etc: permission denied\n"},
		"interpreter_missing":  {[]string{"/bin/orphan"}, 127, "exec /bin/orphan: no such file or directory: the file exists, but not the interpreter or dynamic loader that it names\n"},
		"neither_elf_nor_hash": {[]string{"/bin/text"}, 126, "exec /bin/text: exec format error: it is neither an ELF program nor a script with a \"#!\" line\n"},
	} {
		t.Run(name, func(t *testing.T) {
			_, stderr, err := try(sandbox.Process{Root: root, Args: tc.args})
			assert.Equal(t, exitCode(t, err), tc.code)
			if tc.stderr != "" {
				assert.Equal(t, stderr, tc.stderr)
			}
		})
	}
	for name, tc := range map[string]struct {
		signal string
		code   int
	}{"segmentation_fault": {"SEGV", 139}, "kill": {"KILL", 137}} {
		t.Run(name, func(t *testing.T) {
			// pid 1 cannot kill itself; a shell passes on how its child ended.
			_, _, err := try(shell(root, "sh -c 'kill -"+tc.signal+" $$'; exit $?"))
			assert.Equal(t, exitCode(t, err), tc.code)
		})
	}
}

func TestRun_refuses(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	for name, tc := range map[string]struct {
		process sandbox.Process
		want    string
	}{
		"no_command":     {sandbox.Process{}, "there is no command"},
		"unknown_user":   {sandbox.Process{Args: []string{"id"}, User: "ghost"}, "unable to find user ghost"},
		"unknown_group":  {sandbox.Process{Args: []string{"id"}, User: "app:ghosts"}, "unable to find group ghosts"},
		"unknown_limit":  {sandbox.Process{Args: []string{"id"}, Ulimits: []sandbox.Ulimit{{Name: "files"}}}, `ulimit "files": there is no such limit`},
		"odd_limit":      {sandbox.Process{Args: []string{"id"}, Ulimits: []sandbox.Ulimit{{Name: "nofile", Soft: 2, Hard: 1}}}, "setting ulimit nofile to 2:1: invalid argument"},
		"mount_at_root":  {sandbox.Process{Args: []string{"id"}, Mounts: []sandbox.Mount{{Dest: "/x/.."}}}, "mounting at /"},
		"missing_source": {sandbox.Process{Args: []string{"id"}, Mounts: []sandbox.Mount{{Dest: "/x", Source: "/no/such/source"}}}, "mounting /x: its source: no such file or directory"},
		"nul_in_secret":  {sandbox.Process{Args: []string{"id"}, Env: []string{"TOKEN=se\x00cret"}}, `environment variable "TOKEN" contains a NUL byte`},
		"cwd_is_a_file":  {sandbox.Process{Args: []string{"id"}, Cwd: "/etc/passwd"}, "working directory /etc/passwd: not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.process.Root = root
			_, _, err := try(tc.process)
			assert.ErrorContains(t, err, tc.want)
			assert.Assert(t, !strings.Contains(err.Error(), root), "%v", err)
			assert.Assert(t, !strings.Contains(err.Error(), "cret"), "%v", err)
		})
	}
	t.Run("limit_above_ours", func(t *testing.T) {
		var now unix.Rlimit
		assert.NilError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &now))
		p := sandbox.Process{Root: root, Args: []string{"true"}, Ulimits: []sandbox.Ulimit{{Name: "nofile", Soft: -1, Hard: -1}}}
		_, _, err := try(p)
		var unsupported *sandbox.UnsupportedError
		assert.Assert(t, errors.As(err, &unsupported), "%v", err)
		assert.Equal(t, unsupported.What, "cannot raise ulimit nofile to -1:-1")
	})
}

func TestRun_foreign_program(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	content, err := os.ReadFile(busybox)
	assert.NilError(t, err)
	if elf.Class(content[elf.EI_CLASS]) != elf.ELFCLASS64 || elf.Data(content[elf.EI_DATA]) != elf.ELFDATA2LSB {
		t.Skip("needs a 64 bit little-endian busybox")
	}
	for name, tc := range map[string]struct {
		machine uint16
		arch    string
		want    string
	}{
		"unknown": {0xfff0, "", "it is built for an architecture that is not known here\n"},
		"known":   {uint16(elf.EM_LOONGARCH), "loong64", "it is a program for linux/loong64 and emulation is missing: "},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := emulation.New(os.Getenv).Probe(ocispecs.Platform{OS: "linux", Architecture: tc.arch}); err != nil || got != emulation.None {
				t.Skip("needs a machine that cannot run " + tc.arch)
			}
			binary.LittleEndian.PutUint16(content[18:], tc.machine)
			write(t, root, "bin/foreign", string(content), 0o755)
			_, stderr, err := try(sandbox.Process{Root: root, Args: []string{"/bin/foreign"}})
			assert.Equal(t, exitCode(t, err), 126)
			assert.Assert(t, strings.HasPrefix(stderr, "exec /bin/foreign: exec format error: "+tc.want), stderr)
		})
	}
}

func TestRun_emulated_program(t *testing.T) {
	t.Parallel()
	arch := "arm64"
	if runtime.GOARCH == arch {
		arch = "amd64"
	}
	root := newRoot(t)
	got, err := emulation.New(os.Getenv).Probe(ocispecs.Platform{OS: "linux", Architecture: arch})
	assert.NilError(t, err)
	if got != emulation.Emulated {
		t.Skip("needs QEMU registered in binfmt_misc for " + arch)
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("needs the go command")
	}
	write(t, root, "tmp/main.go", "package main\nfunc main() { println(arch) }\nconst arch = \""+arch+"\"\n", 0o644)
	cmd := exec.Command(goTool, "build", "-o", filepath.Join(root, "bin/foreign"), filepath.Join(root, "tmp/main.go"))
	cmd.Env = append(os.Environ(), "GOARCH="+arch, "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	_, stderr, err := try(sandbox.Process{Root: root, Args: []string{"/bin/foreign"}})
	assert.NilError(t, err, stderr)
	assert.Equal(t, stderr, arch+"\n")
}

func TestRun_kills_what_is_left(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	assert.NilError(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o600))
	ended := readAll(t, filepath.Join(root, "fifo"))
	// Run must not wait for the process in the background, which also holds
	// the standard streams.
	assert.Equal(t, run(t, shell(root, "(exec 3>/fifo; echo bg >&3; echo y >/tmp/go; sleep 1000) & while ! [ -e /tmp/go ]; do :; done; echo done")), "done\n")
	assert.Equal(t, <-ended, "bg\n")
}

// readAll sends what comes from a FIFO until its last writer has gone.
func readAll(t *testing.T, fifo string) <-chan string {
	t.Helper()
	out := make(chan string, 1)
	go func() {
		content, err := os.ReadFile(fifo)
		if err != nil {
			content = []byte(err.Error())
		}
		out <- string(content)
	}()
	return out
}

func TestRun_cancel(t *testing.T) {
	t.Parallel()
	cause := errors.New("stopped by the test")
	for name, tc := range map[string]struct {
		script, want string
		grace        time.Duration
	}{
		// An hour would be noticed: these must not need the grace time.
		"handles_sigterm": {"trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done", "ready\nbye\n", time.Hour},
		"does_not_handle": {"echo ready; sleep 1000", "ready\n", time.Hour},
		"will_not_end":    {"trap '' INT; trap 'echo no' TERM; echo ready; while :; do sleep 0.01; done", "ready\nno\n", 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := newRoot(t)
			ctx, cancel := context.WithCancelCause(context.Background())
			out := &watcher{saw: "ready", then: func() { cancel(cause) }}
			p := shell(root, tc.script)
			p.Stdout = out
			p.Mounts = []sandbox.Mount{{Dest: "/made/here"}}
			p.RemoveStubs = true
			err := namespaces.New(emulation.New(os.Getenv), tc.grace).Run(ctx, p)
			if name != "handles_sigterm" {
				assert.ErrorIs(t, err, cause)
			}
			assert.Equal(t, out.String(), tc.want)
			assert.Assert(t, !exists(filepath.Join(root, "made")))
			assert.Assert(t, !exists(filepath.Join(root, "etc/hosts")))
		})
	}
	t.Run("before_the_start", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(cause)
		assert.ErrorIs(t, newRunner().Run(ctx, shell(newRoot(t), "true")), cause)
	})
}

// watcher calls then once it has seen a text.
type watcher struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	saw  string
	then func()
}

func (w *watcher) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.buf.Write(p)
	if w.then != nil && strings.Contains(w.buf.String(), w.saw) {
		w.then()
		w.then = nil
	}
	return n, err
}

func (w *watcher) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestRun_large_output(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	var out, errOut counter
	p := shell(newRoot(t), fmt.Sprintf("head -c %d /dev/zero; head -c %d /dev/zero >&2", size, size))
	p.Stdout, p.Stderr = &out, &errOut
	assert.NilError(t, newRunner().Run(context.Background(), p))
	assert.Equal(t, int(out), size)
	assert.Equal(t, int(errOut), size)
}

func TestRun_one_writer_for_both_streams(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := shell(newRoot(t), "for i in 1 2 3; do echo o$i; echo e$i >&2; done")
	p.Stdout, p.Stderr = &out, &out
	assert.NilError(t, newRunner().Run(context.Background(), p))
	assert.Equal(t, out.String(), "o1\ne1\no2\ne2\no3\ne3\n")
}

func TestRun_output_that_nobody_wants(t *testing.T) {
	t.Parallel()
	assert.NilError(t, newRunner().Run(context.Background(), shell(newRoot(t), "echo x; echo y >&2; test -c /dev/stdout")))
}

type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func TestRun_many_at_once(t *testing.T) {
	t.Parallel()
	runner := newRunner()
	var wg sync.WaitGroup
	roots := make([]string, 5)
	for i := range roots {
		roots[i] = newRoot(t)
		// With the stubs in the image, several processes can share a root.
		write(t, roots[i], "etc/hosts", "", 0o644)
		write(t, roots[i], "etc/resolv.conf", "", 0o644)
		assert.NilError(t, os.MkdirAll(filepath.Join(roots[i], "m"), 0o755))
	}
	for i := range 50 {
		wg.Go(func() {
			var out bytes.Buffer
			p := shell(roots[i%len(roots)], fmt.Sprintf("echo %d >/m/x; sleep 0.05; cat /m/x; hostname; echo $$", i))
			p.Hostname = fmt.Sprintf("box%d", i)
			p.Mounts = []sandbox.Mount{{Dest: "/m"}}
			p.Stdout = &out
			if err := runner.Run(context.Background(), p); err != nil {
				t.Error(err)
			}
			if want := fmt.Sprintf("%d\nbox%d\n1\n", i, i); out.String() != want {
				t.Errorf("got %q, want %q", out.String(), want)
			}
		})
	}
	wg.Wait()
}

func TestRun_bash_process_substitution(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash")
	}
	p := sandbox.Process{Root: root, Args: []string{bash, "-c", "cat <(echo one) <(echo two)"}}
	p.Mounts = append(hostLibraries(), sandbox.Mount{Dest: "/bin", Source: "/bin", ReadOnly: true})
	assert.Equal(t, run(t, p), "one\ntwo\n")
}
