package inplace_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/inplace"
)

func TestRun_what_a_process_finds(t *testing.T) {
	w := newWorld(t)
	tree := w.newTree(t)
	const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	before := w.look(t)
	for name, tc := range map[string]struct {
		process sandbox.Process
		want    string
	}{
		"env_default":      {sandbox.Process{Args: []string{"env"}}, "PATH=" + path + "\nHOME=/root\n"},
		"env_of_user":      {sandbox.Process{Args: []string{"env"}, User: "app", Env: []string{"PATH=/bin"}}, "PATH=/bin\nHOME=/home/app\n"},
		"env_not_utf8":     {sandbox.Process{Args: []string{"/bin/sh", "-c", `echo "$X"`}, Env: []string{"X=\xff\xfe"}}, "\xff\xfe\n"},
		"user_default":     {sandbox.Process{Args: []string{"id"}}, "uid=0(root) gid=0(root) groups=0(root)\n"},
		"user_name":        {sandbox.Process{Args: []string{"id"}, User: "app"}, "uid=1000(app) gid=1001(app) groups=29(audio),44(video),1001(app)\n"},
		"user_unnamed_uid": {sandbox.Process{Args: []string{"id"}, User: "4242"}, "uid=4242 gid=0(root) groups=0(root)\n"},
		"uid_and_gid":      {sandbox.Process{Args: []string{"id"}, User: "7:8"}, "uid=7 gid=8 groups=8\n"},
		"umask":            {shell("", "umask"), "0022\n"},
		"cwd_default":      {sandbox.Process{Args: []string{"pwd"}}, "/\n"},
		"cwd":              {sandbox.Process{Args: []string{"pwd"}, Cwd: "/tmp"}, "/tmp\n"},
		"cwd_is_made":      {sandbox.Process{Args: shell("", "pwd; stat -c %u:%g:%a . ..").Args, Cwd: "/new/work", User: "app"}, "/new/work\n1000:1001:755\n1000:1001:755\n"},
		"stdin_is_null":    {shell("", "readlink /proc/self/fd/0; cat"), "/dev/null\n"},
		"descriptors":      {sandbox.Process{Args: []string{"ls", "/proc/self/fd"}}, "0\n1\n2\n3\n"},
		"no_terminal":      {shell("", "(echo >/dev/tty) 2>/dev/null || echo none"), "none\n"},
		"own_session":      {shell("", "ps -o pid,sid,pgid | while read p s g; do [ $p = $$ ] && [ $s = $$ ] && [ $g = $$ ] && echo leader; done; true"), "leader\n"},
		"devices":          {shell("", "head -c3 /dev/zero | wc -c; echo x >/dev/null; echo out >/dev/stdout"), "3\nout\n"},
		"dev_of_user":      {sandbox.Process{Args: shell("", "echo out >/dev/stdout; echo y | cat /dev/fd/0").Args, User: "app"}, "out\ny\n"},
		"capabilities":     {shell("", "grep -c 'CapInh:.0000000000000000' /proc/self/status; grep CapPrm /proc/self/status"), "1\nCapPrm:\t00000000a80425fb\n"},
		"user_has_none":    {sandbox.Process{Args: shell("", "grep CapPrm /proc/self/status").Args, User: "app"}, "CapPrm:\t0000000000000000\n"},
		"root_directory":   {shell("", "ls -a / | grep -v new"), ".\n..\nbin\ndev\netc\nhome\nkaniko\nproc\nroot\nsys\ntmp\nvolume\n"},
		"limit":            {sandbox.Process{Args: shell("", "ulimit -Sn; ulimit -Hn").Args, Ulimits: []sandbox.Ulimit{{Name: "nofile", Soft: 100, Hard: 200}}}, "100\n200\n"},
		"hosts_of_a_build": {sandbox.Process{Args: shell("", "tail -n 1 /etc/hosts || cat /etc/hosts | grep db").Args, ExtraHosts: []sandbox.HostIP{{Host: "db", IP: "10.0.0.7"}}}, "10.0.0.7\tdb\n"},
		"builder_is_closed": {
			shell("", fmt.Sprintf("cd /proc/%d; cat environ 2>&1; readlink fd/1 || echo closed; ls root/ 2>&1; true", os.Getpid())), "cat: can't open 'environ': Permission denied\nclosed\nls: root/: Permission denied\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.process.Root = tree
			if name == "builder_is_closed" && !inContainer() {
				t.Skip("needs a container: elsewhere root may trace everybody")
			}
			assert.Equal(t, w.run(t, tc.process), tc.want)
		})
	}
	assert.Equal(t, w.look(t), before)
}

func TestRun_exit_codes(t *testing.T) {
	w := newWorld(t)
	tree := w.newTree(t)
	before := w.look(t)
	write(t, tree, "bin/plain", "#!/bin/sh\n", 0o644)
	write(t, tree, "bin/orphan", "#!/no/such/shell\n", 0o755)
	for name, tc := range map[string]struct {
		args   []string
		code   int
		stderr string
	}{
		"three":               {[]string{"/bin/sh", "-c", "exit 3"}, 3, ""},
		"missing_path":        {[]string{"/bin/foo"}, 127, "exec /bin/foo: no such file or directory\n"},
		"missing_name":        {[]string{"foo"}, 127, "exec: \"foo\": executable file not found in $PATH\n"},
		"of_the_builder":      {[]string{"/busybox/sh"}, 127, "exec /busybox/sh: no such file or directory\n"},
		"not_executable":      {[]string{"/bin/plain"}, 126, "exec /bin/plain: permission denied\n"},
		"interpreter_missing": {[]string{"/bin/orphan"}, 127, "exec /bin/orphan: no such file or directory: the file exists, but not the interpreter or dynamic loader that it names\n"},
		"killed":              {[]string{"/bin/sh", "-c", "kill -KILL $$"}, 137, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, stderr, err := w.try(sandbox.Process{Root: tree, Args: tc.args})
			assert.Equal(t, exitCode(t, err), tc.code)
			assert.Equal(t, stderr, tc.stderr)
		})
	}
	assert.Equal(t, w.look(t), before)
}

func TestRun_refuses(t *testing.T) {
	w := newWorld(t)
	tree := w.newTree(t)
	elsewhere := t.TempDir()
	before, files := w.look(t), list(t, tree)
	true_ := []string{"true"}
	for name, tc := range map[string]struct {
		process sandbox.Process
		want    string
	}{
		"no_command":     {sandbox.Process{}, "there is no command"},
		"unknown_user":   {sandbox.Process{Args: true_, User: "ghost"}, "unable to find user ghost"},
		"mount_at_root":  {sandbox.Process{Args: true_, Mounts: []sandbox.Mount{{Dest: "/x/.."}}}, "mounting at /"},
		"missing_source": {sandbox.Process{Args: true_, Mounts: []sandbox.Mount{{Dest: "/x", Source: "/no/such/source"}}}, "mounting /x: its source: no such file or directory"},
		"cwd_is_a_file":  {sandbox.Process{Args: true_, Cwd: "/etc/passwd"}, "working directory /etc/passwd: not a directory"},
		"other_root":     {sandbox.Process{Args: true_, Root: elsewhere}, "is not in the state directory"},
		"no_network":     {sandbox.Process{Args: true_, Network: sandbox.NetworkNone}, "--network=none"},
		"insecure":       {sandbox.Process{Args: true_, Insecure: true}, "--security=insecure"},
		"hostname":       {sandbox.Process{Args: true_, Hostname: "box"}, "host name"},
		"mount_in_proc":  {sandbox.Process{Args: true_, Mounts: []sandbox.Mount{{Dest: "/proc/x"}}}, "a mount at /proc/x"},
		"higher_limit":   {sandbox.Process{Args: true_, Ulimits: []sandbox.Ulimit{{Name: "nofile", Soft: -1, Hard: -1}}}, "cannot raise ulimit nofile"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.process.Root == "" {
				tc.process.Root = tree
			}
			_, _, err := w.try(tc.process)
			assert.ErrorContains(t, err, tc.want)
		})
	}
	assert.Equal(t, w.look(t), before)
	assert.DeepEqual(t, list(t, tree), files)
}

func TestRun_kills_what_is_left(t *testing.T) {
	w := newWorld(t)
	before := w.look(t)
	for name, script := range map[string]string{
		"background":     "sleep 1000 & echo done",
		"daemon":         "setsid nohup sleep 1000 >/dev/null 2>&1 & echo done",
		"double_fork":    "(setsid sh -c 'sleep 1000 & exec setsid sh -c \"sleep 1000 & sleep 1000\"' &) ; echo done",
		"ignores_term":   "sh -c \"trap '' TERM HUP INT; sleep 1000; sleep 1000\" & echo done",
		"keeps_spawning": "spawn() { while :; do sleep 0.001 & done; }; spawn & spawn & sleep 0.1; echo done",
		"writes_on":      "(while :; do echo x >/etc/late; rm /etc/late; done) & sleep 0.05; echo done",
	} {
		t.Run(name, func(t *testing.T) {
			tree := w.newTree(t)
			assert.Equal(t, w.run(t, shell(tree, script)), "done\n")
			// A process that lives on would still have its binary open here.
			assert.DeepEqual(t, users(t, tree), []string(nil))
		})
	}
	assert.Equal(t, w.look(t), before)
}

// users lists processes that run programs of a tree.
func users(t *testing.T, tree string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	assert.NilError(t, err)
	var out []string
	for _, link := range links {
		if exe, err := os.Readlink(link); err == nil && strings.HasPrefix(exe, tree) {
			out = append(out, exe)
		}
	}
	return out
}

func TestRun_leaves_other_processes_alone(t *testing.T) {
	w := newWorld(t)
	other := w.newTree(t)
	// A neighbour is a child of the builder, but not of the step.
	neighbour, err := os.StartProcess(filepath.Join(other, "bin/sleep"), []string{"sleep", "1000"}, &os.ProcAttr{})
	assert.NilError(t, err)
	w.run(t, shell(w.newTree(t), "sleep 1000 & true"))
	assert.NilError(t, neighbour.Kill())
	state, err := neighbour.Wait()
	assert.NilError(t, err)
	assert.Equal(t, state.String(), "signal: killed")
}

func TestRun_cancel(t *testing.T) {
	cause := errors.New("stopped by the test")
	for name, tc := range map[string]struct {
		script, want string
		grace        time.Duration
	}{
		// An hour would be noticed: these must not need the grace time.
		"handles_sigterm": {"trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done", "ready\nbye\n", time.Hour},
		"does_not_handle": {"echo ready; sleep 1000", "ready\n", time.Hour},
		"will_not_end":    {"trap 'echo no' TERM; echo ready; while :; do sleep 0.01; done", "ready\nno\n", 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			w := bareWorld(t)
			o := w.options()
			o.Grace = tc.grace
			runner, err := inplace.New(context.Background(), o)
			assert.NilError(t, err)
			tree := w.newTree(t)
			before := w.look(t)
			ctx, cancel := context.WithCancelCause(context.Background())
			out := &watcher{saw: "ready", then: func() { cancel(cause) }}
			p := shell(tree, "touch /made; "+tc.script)
			p.Stdout = out
			err = runner.Run(ctx, p)
			if name != "handles_sigterm" {
				assert.ErrorIs(t, err, cause)
			}
			assert.Equal(t, out.String(), tc.want)
			assert.Assert(t, exists(filepath.Join(tree, "made")))
			assert.Equal(t, w.look(t), before)
		})
	}
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

func TestRun_one_at_a_time(t *testing.T) {
	w := newWorld(t)
	trees := []string{w.newTree(t), w.newTree(t), w.newTree(t)}
	before := w.look(t)
	var wg sync.WaitGroup
	for i := range 9 {
		wg.Go(func() {
			var out bytes.Buffer
			p := shell(trees[i%len(trees)], fmt.Sprintf("echo %d >/only; sleep 0.02; cat /only", i))
			p.Stdout = &out
			if err := w.runner.Run(context.Background(), p); err != nil {
				t.Error(err)
			}
			if want := fmt.Sprintf("%d\n", i); out.String() != want {
				t.Errorf("got %q, want %q", out.String(), want)
			}
		})
	}
	wg.Wait()
	assert.Equal(t, w.look(t), before)
}

func TestRun_a_turn_can_be_cancelled(t *testing.T) {
	w := newWorld(t)
	cause := errors.New("stopped by the test")
	waiting, cancel := context.WithCancelCause(context.Background())
	tree, other := w.newTree(t), w.newTree(t)
	release := make(chan struct{})
	out := &watcher{saw: "ready", then: func() { close(release) }}
	var wg sync.WaitGroup
	wg.Go(func() {
		p := shell(tree, "echo ready; while ! [ -e /tmp/go ]; do sleep 0.01; done")
		p.Stdout = out
		if err := w.runner.Run(context.Background(), p); err != nil {
			t.Error(err)
		}
	})
	<-release
	cancel(cause)
	assert.ErrorIs(t, w.runner.Run(waiting, shell(other, "true")), cause)
	// While the step runs its tree is the root.
	write(t, w.root, "tmp/go", "", 0o644)
	wg.Wait()
}

func TestRun_large_output(t *testing.T) {
	w := newWorld(t)
	const size = 32 << 20
	var out, errOut counter
	p := shell(w.newTree(t), fmt.Sprintf("head -c %d /dev/zero; head -c %d /dev/zero >&2", size, size))
	p.Stdout, p.Stderr = &out, &errOut
	assert.NilError(t, w.runner.Run(context.Background(), p))
	assert.Equal(t, int(out), size)
	assert.Equal(t, int(errOut), size)
}

type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
