package namespaces_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// user is an ordinary user of the tests, with the name kma.
const user = 4711

// asUser makes a command that of an ordinary user, with its own /etc/passwd,
// /etc/subuid and /etc/subgid, which nobody else sees.
func asUser(t *testing.T, cmd *exec.Cmd, subordinate string) *exec.Cmd {
	t.Helper()
	etc := t.TempDir()
	passwd, err := os.ReadFile("/etc/passwd")
	assert.NilError(t, err)
	write(t, etc, "passwd", fmt.Sprintf("%skma:x:%d:%d::/:/bin/sh\n", passwd, user, user), 0o644)
	write(t, etc, "subuid", subordinate, 0o644)
	const script = `mount --bind "$1/passwd" /etc/passwd
for file in subuid subgid; do [ -e /etc/$file ] || continue; mount --bind "$1/subuid" /etc/$file; done
shift; exec setpriv --reuid "$1" --regid "$1" --clear-groups "${@:2}"`
	args := []string{"--mount", "--propagation", "private", "bash", "-euc", script, "bash", etc, fmt.Sprint(user), cmd.Path}
	out := exec.Command("unshare", append(args, cmd.Args[1:]...)...)
	out.Env = cmd.Env
	return out
}

// userRoot is a root that belongs to an ordinary user.
func userRoot(t *testing.T, uid int) string {
	t.Helper()
	root := newRoot(t)
	assert.NilError(t, os.Chmod(filepath.Dir(root), 0o755))
	assert.NilError(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	}))
	assert.NilError(t, os.Chmod(filepath.Join(root, "tmp"), 0o1777))
	return root
}

// The test binary must be reached by its path: /proc/self/exe is unshare's.
func played(t *testing.T, role string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := program(t, role, env...)
	self, err := os.Executable()
	assert.NilError(t, err)
	cmd.Path = self
	// Where go test puts it, others may not look.
	copied := filepath.Join(t.TempDir(), "test")
	copyProgram(t, self, copied)
	for dir := filepath.Dir(copied); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		assert.NilError(t, os.Chmod(dir, 0o755))
	}
	cmd.Path = copied
	tmp := t.TempDir()
	assert.NilError(t, os.Chmod(tmp, 0o1777))
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
	return cmd
}

func needNewuidmap(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("newuidmap"); err != nil {
		t.Skip("newuidmap is not installed: run `make test` as root on Debian")
	}
}

const lines = "somebody:100000:65536\nkma:300000:1000\n4711:400000:70000\n"

func TestForms(t *testing.T) {
	t.Parallel()
	needNewuidmap(t)
	missing := "missing: setting up standard streams: the step's user is 1000: this user or group id is not there"
	unknown := "missing: setting up standard streams: the step's user is 70000: this user or group id is not there"
	for _, tc := range []struct {
		name, forms, subordinate, refuse string
		root                             bool
		want                             []string
		not                              string
	}{
		{"root", "", "", "", true, []string{"form: as root", "chown 65535 true", "mount true true 0", "0\n0\na device", "1000\n1001\na device", "70000\n"}, "missing:"},
		{"all", "all", "", "", true, []string{"form: in a user namespace with all ids", "chown 65535 true", "mount true true 0", "0\n0\na device", "1000\n1001\na device", "70000\n"}, "missing:"},
		{"root_refused", "", "", "0 0 429", true, []string{"refused 0 0 429: ask for it"}, "form"},
		{"sub", "", lines, "", false, []string{"form: in a user namespace with subordinate ids", "chown 65535 true", "mount true true 0",
			"more ids: give the user more ids", "0\n0\na device", "1000\n1001\na device", "70000\n"}, "missing:"},
		{"few_ids", "", "kma:300000:1500\n", "", false, []string{"chown 1000 true", "chown 65535 false", "1000\n1001\na device", unknown}, missing},
		{"one", "", "somebody:100000:65536\n", "", false, []string{"form: in a user namespace with one id", "chown 0 true", "chown 1 false", "mount true true 0",
			"more ids: add the line kma:165536:65536 to /etc/subuid and /etc/subgid", "0\n0\na device", missing}, "1000\n1001"},
		{"sub_refused", "", lines, "1 300000 1000", false, []string{"form: in a user namespace with one id", "more ids: ask for it"}, "subordinate ids\n"},
		{"only_sub", "sub", "", "", false, []string{"user kma has no subordinate ids in /etc/subuid and /etc/subgid: add the line kma:100000:65536"}, "form"},
		{"ids_of_nobody", "sub", "kma:4294967000:65536\n", "", false, []string{"newuidmap: exit status 1", "set-user-ID bit"}, "form"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			uid := user
			if tc.root {
				uid = 0
			}
			cmd := played(t, "place", "TEST_ROOT="+userRoot(t, uid), "TEST_FORMS="+tc.forms, "TEST_REFUSE="+tc.refuse)
			if !tc.root {
				cmd = asUser(t, cmd, tc.subordinate)
			}
			out, _ := cmd.CombinedOutput()
			for _, want := range tc.want {
				assert.Check(t, is.Contains(string(out), want))
			}
			assert.Check(t, !strings.Contains(string(out), tc.not), "%s", out)
			assert.Check(t, !strings.Contains(string(out), "remove false"), "%s", out)
			if strings.Contains(string(out), "form:") {
				assert.Check(t, is.Contains(string(out), "dies with killed"))
			}
		})
	}
}

func TestTry(t *testing.T) {
	t.Parallel()
	needNewuidmap(t)
	out, err := asUser(t, played(t, "try", "TEST_FORMS=root sub one", "TEST_REFUSE=1 300000 1000"), lines).CombinedOutput()
	assert.NilError(t, err, "%s", out)
	assert.Equal(t, string(out), `as root: cannot create namespaces: run as root with CAP_SYS_ADMIN and without a seccomp profile that forbids clone and mount, or use --isolation=inplace in a container
in a user namespace with subordinate ids: refused 1 300000 1000: ask for it
in a user namespace with one id: <nil>
`)
}

// A namespace in which there may be none below it, as a machine can be set up.
func TestEnter_no_user_namespaces(t *testing.T) {
	t.Parallel()
	cmd := played(t, "place")
	script := `echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --reuid 1000 --regid 1000 --clear-groups "$@"`
	outer := exec.Command("bash", "-euc", script, "bash", cmd.Path)
	outer.Env = append(cmd.Env, "TEST_FORMS=one")
	outer.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, GidMappingsEnableSetgroups: true,
		UidMappings: []syscall.SysProcIDMap{{Size: 65536}}, GidMappings: []syscall.SysProcIDMap{{Size: 65536}},
	}
	out, err := outer.CombinedOutput()
	assert.ErrorContains(t, err, "exit status")
	assert.Equal(t, string(out), "user namespaces are switched off here: run as root: sysctl -w user.max_user_namespaces=15000, or build as root\n")
}

// A user namespace does not keep what was started from outliving a killed
// builder.
func TestKilled_builder_of_a_user_leaves_nothing(t *testing.T) {
	t.Parallel()
	needNewuidmap(t)
	for _, subordinate := range []string{"", lines} {
		t.Run(fmt.Sprint(len(subordinate)), func(t *testing.T) {
			t.Parallel()
			root := userRoot(t, user)
			cmd := asUser(t, played(t, "enter-and-run", "TEST_ROOT="+root), subordinate)
			killedLeavesNothing(t, cmd, root)
		})
	}
}
