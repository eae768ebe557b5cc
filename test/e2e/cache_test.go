package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// A fresh machine with the registry's cache runs nothing again and publishes
// the same image; what changed is built, and what depends on it.
func TestCache(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	build := func(name, text string, flags ...string) (digest, log string) {
		dir := contextDir(t, map[string]string{
			"file": text,
			"Dockerfile": "FROM " + bases + `/debian:12 AS build
RUN cat /proc/sys/kernel/random/uuid > /random
FROM ` + bases + `/debian:12
COPY --from=build /random /random
RUN cp /random /again
COPY file /file
RUN cat /file /random > /both
`,
		})
		image := registry + "/cached/" + name + ":1"
		r := run(t, append([]string{"build", "--context", dir, "--destination", image, "--state-dir", t.TempDir(), "--progress", "plain",
			"--cache", "--cache-repo", registry + "/cached/layers"}, flags...)...)
		assert.Equal(t, r.code, 0, r.stderr)
		return descriptor(t, image).Digest.String(), r.stderr
	}
	one, log := build("one", "a")
	assert.Check(t, !strings.Contains(log, "CACHED"), log)
	two, log := build("two", "a")
	assert.Check(t, is.Equal(one, two))
	assert.Check(t, is.Equal(strings.Count(log, "CACHED"), 5), log)
	three, log := build("three", "b")
	assert.Check(t, three != one)
	assert.Check(t, is.Equal(strings.Count(log, "CACHED"), 3), log)
	_, log = build("four", "a", "--no-cache")
	assert.Check(t, !strings.Contains(log, "CACHED"), log)
	_, log = build("five", "a", "--cache-ttl", "1ns")
	assert.Check(t, !strings.Contains(log, "CACHED"), log)
}

// What is written to the disk is read by a tool that is not ours.
func TestOutputs(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nRUN echo x > /x\nLABEL a=b\n"})
	out := t.TempDir()
	layout, archive := filepath.Join(out, "layout"), filepath.Join(out, "image.tar")
	digest := ok(t, "build", "--context", dir, "--no-push", "--state-dir", t.TempDir(), "--destination", "example.com/app:1", "--compression", "zstd",
		"--oci-layout-path", layout, "--tar-path", archive)
	assert.Check(t, is.Contains(tool(t, "skopeo", "inspect", "oci:"+layout+":1"), digest))
	assert.Check(t, is.Contains(tool(t, "skopeo", "inspect", "--raw", "oci:"+layout+":1"), "tar+zstd"))
	assert.Check(t, is.Contains(tool(t, "skopeo", "inspect", "--config", "docker-archive:"+archive), `"a": "b"`))
}
