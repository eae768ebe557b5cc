package e2e

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
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

// kept is a container that is not removed when its process ends.
type kept struct {
	docker, id string
}

// keep makes a container of the program that waits to be started.
func keep(t *testing.T, flags []string, args ...string) *kept {
	t.Helper()
	k := &kept{docker: service(t, "KMA_TEST_DOCKER")}
	image, err := toolImage()
	assert.NilError(t, err)
	k.id = strings.TrimSpace(k.do(t, slices.Concat([]string{"create", "--network=host"}, flags, []string{image}, args)...))
	t.Cleanup(func() { k.do(t, "rm", "-f", k.id) })
	return k
}

func (k *kept) do(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(k.docker, args...).CombinedOutput()
	assert.NilError(t, err, "docker %s: %s", strings.Join(args, " "), out)
	return string(out)
}

// start starts the container, again too.
func (k *kept) start(t *testing.T) { k.do(t, "start", k.id) }

// wait returns how the process ended.
func (k *kept) wait(t *testing.T) result {
	t.Helper()
	var code int
	_, err := fmt.Sscan(k.do(t, "wait", k.id), &code)
	assert.NilError(t, err)
	return result{code: code, stderr: k.do(t, "logs", k.id)}
}

// until waits for a line of a step.
func (k *kept) until(t *testing.T, text string) {
	t.Helper()
	for !strings.Contains(k.do(t, "logs", k.id), text) {
		running := strings.TrimSpace(k.do(t, "inspect", "-f", "{{.State.Running}}", k.id))
		assert.Equal(t, running, "true", k.do(t, "logs", k.id))
		time.Sleep(20 * time.Millisecond)
	}
}

// top lists the container's root directory.
func (k *kept) top(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command(k.docker, "export", k.id)
	out, err := cmd.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, cmd.Start())
	seen := map[string]bool{}
	for r := tar.NewReader(out); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		assert.NilError(t, err)
		name, _, _ := strings.Cut(h.Name, "/")
		seen[name] = true
	}
	assert.NilError(t, cmd.Wait())
	var names []string
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// A builder that is killed in the middle of a step, with its container, leaves
// one that can be started again: its first act is to put "/" back.
func TestInPlace_killed(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	service(t, "KMA_TEST_DOCKER")
	const usual = "/kaniko/state"
	for name, tc := range map[string]struct {
		signal, state string
		code          int
	}{
		"killed": {"KILL", usual, 137}, "told_to_end": {"TERM", usual, 130}, "killed_with_a_state_directory": {"KILL", "/mine/state", 137},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := contextDir(t, map[string]string{"kept": "kept", "Dockerfile": "FROM " + bases + `/busybox:1
RUN mkdir -p /var/run /github && echo image > /var/run/file && echo image > /github/file
COPY kept /kept
RUN rm -rf /home /bin/vi && touch /half && echo rea""dy && while ! [ -e /control/go ]; do sleep 0.1; done
RUN [ -e /half ] && cat /var/run/file /github/file /kept && [ ! -e /github/workspace ] && [ ! -e /var/run/docker.sock ]
`})
			control := t.TempDir()
			image := registry + "/inplace/" + name
			k := keep(t, []string{
				"-v", dir + ":/github/workspace", "-v", "/var/run/docker.sock:/var/run/docker.sock", "-v", control + ":/control",
			}, "--context=/github/workspace", "--destination="+image+":1", "--reproducible", "--state-dir="+tc.state)
			k.start(t)
			k.until(t, "ready")
			k.do(t, "kill", "-s", tc.signal, k.id)
			assert.Equal(t, k.wait(t).code, tc.code)
			assert.NilError(t, os.WriteFile(filepath.Join(control, "go"), nil, 0o644))
			k.start(t)
			r := k.wait(t)
			assert.Equal(t, r.code, 0, r.stderr)
			top := []string{".dockerenv", "control", "dev", "etc", "github", "kaniko", "proc", "sys", "var"}
			if tc.state != usual {
				top = slices.Insert(top, 6, "mine")
			}
			assert.Check(t, is.DeepEqual(k.top(t), top))
			left, err := os.ReadDir(dir)
			assert.NilError(t, err)
			assert.Check(t, is.Len(left, 2))

			// What it gave is what an undisturbed build gives.
			again := inContainer(t, []string{
				"-v", dir + ":/github/workspace", "-v", "/var/run/docker.sock:/var/run/docker.sock", "-v", control + ":/control",
			}, "--context=/github/workspace", "--destination="+image+":2", "--reproducible")
			assert.Equal(t, again.code, 0, again.stderr)
			assert.Check(t, is.Equal(string(descriptor(t, image+":1").Manifest), string(descriptor(t, image+":2").Manifest)))
		})
	}
}

// A step may delete all that it sees. What belongs to the container is not in
// sight, and survives.
func TestInPlace_deletes_the_places_of_CI(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	service(t, "KMA_TEST_DOCKER")
	dir := contextDir(t, map[string]string{"kept": "kept", "Dockerfile": "FROM " + bases + `/busybox:1
RUN mkdir -p /workspace/mine /github/workspace && rm -rf /workspace /github /var/run /run /.dockerenv /etc/mtab
RUN cp /bin/busybox / && /busybox rm -rf /bin /usr /etc /home /root /tmp /var /workspace /github /.dockerenv /busybox-none; exec /busybox true
RUN ["/busybox", "rm", "/busybox"]
COPY kept /kept
`})
	secret := contextDir(t, map[string]string{"token": "token"})
	k := keep(t, []string{
		"-v", dir + ":/github/workspace", "-v", "/var/run/docker.sock:/var/run/docker.sock",
		"-v", secret + ":/var/run/secrets/kubernetes.io/serviceaccount", "-v", secret + ":/workspace/source",
	}, "--context=/github/workspace", "--no-push")
	for range 2 { // and the container is good for another build
		k.start(t)
		r := k.wait(t)
		assert.Equal(t, r.code, 0, r.stderr)
	}
	assert.Check(t, is.DeepEqual(k.top(t), []string{".dockerenv", "dev", "etc", "github", "kaniko", "proc", "sys", "var", "workspace"}))
	for dir, want := range map[string]int{dir: 2, secret: 1} {
		left, err := os.ReadDir(dir)
		assert.NilError(t, err)
		assert.Check(t, is.Len(left, want))
	}
	k.do(t, "cp", k.id+":/etc/mtab", filepath.Join(t.TempDir(), "mtab")) // it is there
}

// A step that walks through all of "/" finds the builder's directory, and the
// files of other stages and of the context in it. They give the same image all the
// same.
func TestInPlace_walks_through_everything(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	service(t, "KMA_TEST_DOCKER")
	dir := contextDir(t, map[string]string{"kept": "kept", "late.conf": "late", "Dockerfile": "FROM " + bases + `/busybox:1 AS one
RUN echo one > /one.conf && chmod 4755 /one.conf
COPY kept /copied.conf

FROM ` + bases + `/busybox:1 AS two
COPY --from=one /one.conf /two.conf
RUN touch /mine.conf && find / -xdev -name '*.conf' -delete; find / -xdev -type f -perm -4000 -exec chmod a-s {} +; true
RUN chown -R 5:5 /bin /kaniko; du -s / >/dev/null; true

FROM one
COPY --from=two /bin/busybox /from-two
COPY late.conf /
RUN ls -l /one.conf /copied.conf /late.conf
`})
	image := registry + "/inplace/walks"
	r := inContainer(t, []string{"-v", dir + ":/workspace"}, "--context=/workspace", "--destination="+image+":container", "--reproducible")
	assert.Equal(t, r.code, 0, r.stderr)
	ok(t, "build", "--isolation", "namespaces", "--context", dir, "--destination", image+":namespaces", "--state-dir", t.TempDir(), "--reproducible")
	assert.Check(t, is.Equal(string(descriptor(t, image+":container").Manifest), string(descriptor(t, image+":namespaces").Manifest)))
}

// Contexts as people mount them.
func TestInPlace_contexts(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	service(t, "KMA_TEST_DOCKER")
	below := contextDir(t, map[string]string{"x": "below"})
	for name, tc := range map[string]struct {
		flags []string
		copy  string
		code  int
		want  string
	}{
		"read_only":           {flags: []string{"-v", "DIR:/workspace:ro"}, copy: "RUN cat /kept"},
		"mount_below":         {flags: []string{"-v", "DIR:/workspace", "-v", below + ":/workspace/below"}, copy: "COPY below/x /x\nRUN grep below /x"},
		"read_only_below":     {flags: []string{"-v", "DIR:/ci/build/workspace:ro", "-v", below + ":/ci/build/workspace/below:ro", "-w", "/ci/build/workspace"}, copy: "COPY below/x /x\nRUN grep below /x && [ ! -e /ci ]"},
		"writes_to_the_mount": {flags: []string{"-v", "DIR:/workspace"}, copy: "RUN touch /workspace/new", code: 1, want: "mount point of the builder's container"},
		"image_has_the_mount": {flags: []string{"-v", "DIR:/workspace"}, copy: "COPY kept /workspace/kept\nRUN true", code: 1, want: "mount that volume elsewhere"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := contextDir(t, map[string]string{"kept": "kept", "below/y": "hidden", "Dockerfile": "FROM " + bases + "/busybox:1\nCOPY kept /kept\n" + tc.copy + "\n"})
			var flags []string
			for _, f := range tc.flags {
				flags = append(flags, strings.Replace(f, "DIR", dir, 1))
			}
			at, _, _ := strings.Cut(strings.TrimPrefix(flags[1], dir+":"), ":")
			r := inContainer(t, flags, "--context="+at, "--no-push")
			assert.Check(t, is.Equal(r.code, tc.code), r.stderr)
			assert.Check(t, is.Contains(r.stderr, tc.want))
		})
	}
}

// Two builds in one container, as a script of a CI job starts them: they take
// turns with "/", and the second is not disturbed by the first one's death.
func TestInPlace_two_builders(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	service(t, "KMA_TEST_DOCKER")
	dir := contextDir(t, map[string]string{
		"first/Dockerfile":  "FROM " + bases + "/busybox:1\nRUN touch /first && echo rea\"\"dy && sleep 1000\n",
		"second/Dockerfile": "FROM " + bases + "/busybox:1\nRUN [ ! -e /first ] && touch /second\nRUN [ -e /second ]\n",
	})
	k := keep(t, []string{"-v", dir + ":/ci/context"}, "--context=/ci/context/first", "--no-push")
	k.start(t)
	k.until(t, "ready")
	second := exec.Command(k.docker, "exec", k.id, "/kaniko/executor", "--context=/ci/context/second", "--no-push")
	var stderr bytes.Buffer
	second.Stderr = &stderr
	assert.NilError(t, second.Start())
	k.do(t, "kill", "-s", "TERM", k.id)
	err := second.Wait()
	// The end of the first, which is the container's, ends the second as well;
	// unless that was done.
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	assert.Equal(t, k.wait(t).code, 130)
	assert.Check(t, is.DeepEqual(k.top(t), []string{".dockerenv", "ci", "dev", "etc", "kaniko", "proc", "sys"}))
}
