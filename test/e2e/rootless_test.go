package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// ordinary is a user who is nobody special, with the name kma.
const ordinary = 4711

// Lines of /etc/subuid: with subordinate ids, and with none but root's.
const (
	withIDs = "kma:300000:65536\n"
	oneID   = "somebody:100000:65536\n"
)

// ordinaryUser is a home of the user, whose files nobody else may read.
type ordinaryUser struct{ home, subordinate string }

func newOrdinaryUser(t *testing.T, subordinate string) ordinaryUser {
	t.Helper()
	needRoot(t)
	if _, err := exec.LookPath("newuidmap"); err != nil {
		t.Skip("newuidmap is not installed: run `make test` as root on Debian")
	}
	home := t.TempDir()
	assert.NilError(t, os.Chmod(filepath.Dir(home), 0o755))
	assert.NilError(t, os.Chown(home, ordinary, ordinary))
	return ordinaryUser{home, subordinate}
}

// command is a program of the user's, who has an /etc/passwd, /etc/subuid and
// /etc/subgid that nobody else sees.
func (u ordinaryUser) command(t *testing.T, ctx context.Context, env []string, args ...string) *exec.Cmd {
	t.Helper()
	etc := contextDir(t, map[string]string{"subuid": u.subordinate})
	passwd, err := os.ReadFile("/etc/passwd")
	assert.NilError(t, err)
	line := fmt.Sprintf("kma:x:%d:%d::%s:/bin/sh\n", ordinary, ordinary, u.home)
	assert.NilError(t, os.WriteFile(filepath.Join(etc, "passwd"), append(passwd, line...), 0o644))
	const script = `mount --bind "$1/passwd" /etc/passwd
for file in subuid subgid; do mount --bind "$1/subuid" /etc/$file; done
shift; exec setpriv --reuid "$1" --regid "$1" --clear-groups "${@:2}"`
	unshare := []string{"--mount", "--propagation", "private", "bash", "-euc", script, "bash", etc, fmt.Sprint(ordinary)}
	cmd := exec.CommandContext(ctx, "unshare", append(unshare, args...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + u.home, "TMPDIR=" + u.home}, env...)
	return cmd
}

func (u ordinaryUser) run(t *testing.T, env []string, args ...string) result {
	t.Helper()
	cmd := u.command(t, t.Context(), env, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// shared gives a directory of the test to the ordinary user.
func shared(t *testing.T, dir string) string {
	t.Helper()
	assert.NilError(t, os.Chmod(filepath.Dir(dir), 0o755))
	tool(t, "chown", "-hR", fmt.Sprintf("%d:%d", ordinary, ordinary), dir)
	return dir
}

// notForUsers are what a user namespace cannot have, and what differs there by
// its nature: devices are those of the host.
func notForUsers(text string) string {
	return withoutLines(strings.ReplaceAll(text, " && mknod /null c 1 3", ""), []string{"ls -l /dev"})
}

// rootBuilt is the manifest that root's namespaces give.
func rootBuilt(t *testing.T, dir, image string) string {
	t.Helper()
	ok(t, "build", "--isolation", "namespaces", "--context", dir, "--destination", image, "--state-dir", sharedState, "--platform", "linux/amd64", "--reproducible")
	return string(descriptor(t, image).Manifest)
}

// An ordinary user with subordinate ids builds the bytes that root builds.
func TestRootless_equals_root(t *testing.T) {
	t.Parallel()
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	user := newOrdinaryUser(t, withIDs)
	for name, dockerfile := range equalCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := shared(t, equalContext(t, notForUsers(strings.ReplaceAll(dockerfile, "BASE", bases))))
			want := rootBuilt(t, dir, registry+"/rootless/"+name+":root")
			image := registry + "/rootless/" + name + ":user"
			r := user.run(t, nil, binary, "build", "--isolation", "namespaces", "--context", dir, "--destination", image, "--platform", "linux/amd64", "--reproducible")
			assert.Equal(t, r.code, 0, r.stderr)
			assert.Check(t, is.Equal(string(descriptor(t, image).Manifest), want))
		})
	}
}

// Root in a container that seccomp does not confine has all ids, if there is a
// volume for the trees.
func TestRootless_in_a_container(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	service(t, "KMA_TEST_DOCKER")
	state := t.TempDir()
	flags := []string{"--security-opt", "seccomp=unconfined"}
	for name, dockerfile := range equalCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := equalContext(t, withoutLines(notForUsers(strings.ReplaceAll(dockerfile, "BASE", bases)), []string{
				"ulimit",         // docker's
				"/sys/class/net", // a container's /sys is not for us to mount anew
			}))
			want := rootBuilt(t, dir, registry+"/unconfined/"+name+":root")
			image := registry + "/unconfined/" + name + ":container"
			r := inContainer(t, slices.Concat(flags, []string{"-v", dir + ":/workspace", "-v", state + ":/state"}),
				"--context=/workspace", "--state-dir=/state", "--isolation=namespaces", "--destination="+image, "--reproducible", "--custom-platform=linux/amd64")
			assert.Equal(t, r.code, 0, r.stderr)
			assert.Check(t, is.Equal(string(descriptor(t, image).Manifest), want))
		})
	}
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nRUN [ $(hostname) != buildkitsandbox ]\n"})
	mount := []string{"-v", dir + ":/workspace"}
	t.Run("no_volume", func(t *testing.T) {
		t.Parallel()
		r := inContainer(t, slices.Concat(flags, mount), "--context=/workspace", "--isolation=namespaces", "--no-push")
		assert.Check(t, is.Equal(r.code, 6), r.stderr)
		assert.Check(t, is.Contains(r.stderr, "on overlayfs itself: use a directory on a volume or a tmpfs"))
	})
	t.Run("no_volume_auto", func(t *testing.T) {
		t.Parallel()
		r := inContainer(t, slices.Concat(flags, mount), "--context=/workspace", "--no-push")
		assert.Check(t, is.Equal(r.code, 0), r.stderr)
	})
	t.Run("tmpfs_auto", func(t *testing.T) {
		t.Parallel()
		r := inContainer(t, slices.Concat(flags, mount, []string{"--tmpfs", "/state"}), "--context=/workspace", "--no-push", "--state-dir=/state")
		assert.Check(t, is.Equal(r.code, 1), "in namespaces the host has the usual name: %s", r.stderr)
	})
	t.Run("confined", func(t *testing.T) {
		t.Parallel()
		r := inContainer(t, mount, "--context=/workspace", "--isolation=namespaces", "--no-push")
		assert.Check(t, is.Equal(r.code, 6), r.stderr)
		assert.Check(t, is.Contains(r.stderr, "seccomp=unconfined"))
	})
}

// With one id what is root's can be built, and nothing else is built wrong.
func TestRootless_one_id(t *testing.T) {
	t.Parallel()
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	user := newOrdinaryUser(t, oneID)
	others := registry + "/oneid/base:1"
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + `/debian:12
RUN chgrp 42 /etc/shadow && mkdir -p /var/local && chmod 2775 /var/local && chown 0:50 /var/local && echo x > /var/local/x && chown 1000:1000 /var/local/x
`})
	rootBuilt(t, dir, others)
	const fix = "add the line kma:165536:65536 to /etc/subuid and /etc/subgid"
	for _, tc := range []struct{ name, dockerfile, fails string }{
		{"roots", "FROM OTHERS AS build\nRUN cat /etc/shadow >/dev/null; echo made >/made; echo more >>/etc/passwd\nFROM OTHERS\nCOPY --from=build /made /etc/passwd /there/\nCOPY a.txt /\nUSER 5:6\n", ""},
		{"removed", "FROM OTHERS\nRUN rm -r /etc/shadow /var/local\n", ""},
		{"as_user", "FROM OTHERS\nUSER 5:6\nRUN true\n", "the step's user is 5"},
		{"workdir", "FROM OTHERS\nUSER 5:6\nWORKDIR /new\n", "/new"},
		{"copied_for_user", "FROM OTHERS\nCOPY --chown=5:6 a.txt /\n", "/a.txt"},
		{"archive", "FROM OTHERS\nADD archive.tar.gz /\n", "its owner is 3:4"},
		{"changed", "FROM OTHERS\nRUN echo >>/etc/shadow\n", "/etc/shadow cannot be put into a layer: its owner is 0:42"},
		{"in_a_directory", "FROM OTHERS\nRUN mkdir /var/local/new\n", "/var/local cannot be put into a layer: its owner is 0:50"},
		{"copied_from", "FROM OTHERS AS build\nFROM OTHERS\nCOPY --from=build /var/local/x /y\n", "/y cannot be put into a layer: its owner is 1000:1000"},
		{"copied_from_to_scratch", "FROM OTHERS AS build\nFROM scratch\nCOPY --from=build /var/local /y\n", "cannot be put into a layer: its owner is "},
		{"secret", "FROM OTHERS\nRUN --mount=type=secret,id=x,uid=5 true\n", "its owner is 5:0"},
		{"chown", "FROM OTHERS\nRUN chown 5 /etc/issue\n", "exit code: 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := shared(t, equalContext(t, strings.ReplaceAll(tc.dockerfile, "OTHERS", others)))
			image := registry + "/oneid/" + tc.name + ":user"
			r := user.run(t, []string{"x=secret"}, binary, "build", "--context", dir, "--destination", image, "--platform", "linux/amd64", "--reproducible", "--secret=id=x")
			if tc.fails == "" {
				assert.Equal(t, r.code, 0, r.stderr)
				assert.Check(t, is.Equal(string(descriptor(t, image).Manifest), rootBuilt(t, dir, registry+"/oneid/"+tc.name+":root")))
				return
			}
			assert.Check(t, is.Contains(r.stderr, tc.fails))
			if tc.name == "chown" {
				assert.Check(t, is.Equal(r.code, 1), r.stderr)
				return
			}
			assert.Check(t, is.Equal(r.code, 6), r.stderr)
			assert.Check(t, is.Contains(r.stderr, fix))
		})
	}
}

// What a killed build leaves belongs to ids that are not the user's, and the
// next build removes it.
func TestRootless_after_a_kill(t *testing.T) {
	t.Parallel()
	bases := service(t, "KMA_TEST_BASES")
	user := newOrdinaryUser(t, withIDs)
	build := func(steps string) []string {
		dir := shared(t, contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\n" + steps}))
		return []string{binary, "build", "--context", dir, "--no-push"}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := user.command(t, ctx, nil, build("RUN mkdir -m 700 /x && touch /x/y && chown -R 1000:1000 /x && echo made; sleep 4716\n")...)
	assert.NilError(t, cmd.Start())
	left := func() []string {
		found, err := filepath.Glob(filepath.Join(user.home, ".cache/kaniko-multiarch/user-*/builds/*/w/*/u/x/y"))
		assert.NilError(t, err)
		return found
	}
	for len(left()) == 0 { // hangs, and so fails, when the step never gets there
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	_ = cmd.Wait()
	assert.Equal(t, len(left()), 1)
	r := user.run(t, nil, build("RUN true\n")...)
	assert.Equal(t, r.code, 0, r.stderr)
	assert.Equal(t, len(left()), 0)
}

// quickBases are the example's base images, with a compiler that needs a moment
// only: what it makes is a script.
func quickBases(t *testing.T, registry, bases, list string) string {
	t.Helper()
	const compiler = `#!/bin/sh
while [ "$1" != -o ]; do shift; done
mkdir -p "${2%/*}"
cat >"$2" <<END
#!/bin/sh
echo "Hello from $GOOS/$GOARCH: this image's RUN saw \$(cat /etc/hello/machine), I am uid \$(id -u)"
END
`
	quick := registry + "/rootless/bases"
	for name, dockerfile := range map[string]string{"debian:12": "ENV A=b\n", "golang:1.26": "COPY --chmod=0755 go /usr/local/bin/go\n"} {
		dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/debian:12\n" + dockerfile, "go": compiler})
		ok(t, "build", "--context", dir, "--destination", quick+"/"+name, "--platform", list, "--state-dir", sharedState)
	}
	return quick
}

// The example for both platforms, as `make demo` makes it: by an ordinary
// user, with QEMU in a user namespace in which the user is root. With one id it
// is built the same, but nobody can be its user 10001.
func TestRootless_demo(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, list := service(t, "KMA_TEST_REGISTRY"), platforms(t)
	bases := quickBases(t, registry, service(t, "KMA_TEST_BASES"), list)
	for name, tc := range map[string]struct {
		lines string
		want  []string
	}{
		"ids": {withIDs, []string{"Hello from linux/amd64: this image's RUN saw x86_64, I am uid 10001", "Hello from linux/arm64: this image's RUN saw aarch64, I am uid 10001"}},
		"one_id": {oneID, []string{
			"linux/amd64 was built and not run", "linux/arm64 was built and not run", "add the line",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, name := range []string{"skopeo", "umoci", "runc", "jq"} {
				if _, err := exec.LookPath(name); err != nil {
					t.Skipf("%s is not installed: run `make test` as root on Debian", name)
				}
			}
			user := newOrdinaryUser(t, tc.lines)
			tool(t, "cp", "-r", "../../examples", "../../test", user.home)
			sameDay(t)
			example := filepath.Join(user.home, "examples/hello")
			args := func(image string) []string {
				return append([]string{"build", "--context", example, "--destination", image, "--platform", list, "--reproducible"}, helloContexts(bases)...)
			}
			ofRoot, ofUser := registry+"/rootless/hello-"+name+":root", registry+"/rootless/hello-"+name+":user"
			ok(t, append(args(ofRoot), "--state-dir", sharedState)...)
			r := user.run(t, nil, append([]string{binary}, args(ofUser)...)...)
			assert.Equal(t, r.code, 0, r.stderr)
			assert.DeepEqual(t, rawIndex(t, ofUser).Manifests, rawIndex(t, ofRoot).Manifests)

			// The demo finds the program where make puts it.
			assert.NilError(t, os.Mkdir(filepath.Join(user.home, "bin"), 0o755))
			tool(t, "cp", binary, filepath.Join(user.home, "bin"))
			r = user.run(t, nil, filepath.Join(user.home, "test/with-services.sh"), "bash", "-c", `cat /proc/sys/fs/binfmt_misc/kma-*
export KMA_TEST_BASES="$1" && exec "$HOME/examples/hello/demo.sh"`, "bash", bases)
			assert.Equal(t, r.code, 0, r.stdout+r.stderr)
			for _, want := range tc.want {
				assert.Check(t, is.Contains(r.stdout+r.stderr, want))
			}
			assert.Check(t, is.Contains(r.stdout, "interpreter /"), "its own registration")
		})
	}
}
