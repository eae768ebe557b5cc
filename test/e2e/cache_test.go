package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// A directory keeps the same entries. What is damaged there is built again.
func TestCache_directory(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	dir := contextDir(t, map[string]string{
		"file":       "a",
		"Dockerfile": "FROM " + bases + "/busybox:1\nRUN cat /proc/sys/kernel/random/uuid > /random\nCOPY file /file\n",
	})
	cache := filepath.Join(t.TempDir(), "cache")
	build := func() (digest, log string) {
		r := run(t, "build", "--context", dir, "--no-push", "--destination", "example.com/app:1", "--state-dir", t.TempDir(), "--progress", "plain",
			"--cache-from", "type=local,src="+cache, "--cache-to", "type=local,dest="+cache+",mode=max")
		assert.Equal(t, r.code, 0, r.stderr)
		return r.stdout, r.stderr
	}
	one, log := build()
	assert.Check(t, !strings.Contains(log, "CACHED"), log)
	two, log := build()
	assert.Check(t, is.Equal(one, two))
	assert.Check(t, is.Equal(strings.Count(log, "CACHED"), 2), log)
	blobs, err := filepath.Glob(filepath.Join(cache, "blobs", "sha256", "*"))
	assert.NilError(t, err)
	for _, b := range blobs {
		data, err := os.ReadFile(b)
		assert.NilError(t, err)
		if !bytes.HasPrefix(data, []byte("{")) {
			// The size is right, the content is not.
			assert.NilError(t, os.WriteFile(b, bytes.Repeat([]byte("x"), len(data)), 0o644))
		}
	}
	r := run(t, "build", "--context", dir, "--output", "type=local,dest="+t.TempDir(), "--state-dir", t.TempDir(), "--progress", "plain",
		"--cache-from", "type=local,src="+cache)
	assert.Equal(t, r.code, 0, r.stderr)
	assert.Check(t, is.Contains(r.stderr, "the cache is broken"))
}

// A directory that takes the place of another has all that the build used, of
// stages that were not built, too, and nothing else.
func TestCache_directory_by_turns(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	caches := t.TempDir()
	dockerfile := func(text string) string {
		return "FROM " + bases + "/busybox:1 AS b\nRUN cat /proc/sys/kernel/random/uuid > /random\nFROM " + bases + "/busybox:1\nCOPY --from=b /random /random\nRUN echo " + text + "\n"
	}
	dir := contextDir(t, map[string]string{"Dockerfile": dockerfile("old")})
	build := func(n int) (cached int) {
		r := run(t, "build", "--context", dir, "--no-push", "--destination", "example.com/app:1", "--state-dir", t.TempDir(), "--progress", "plain",
			"--cache-from", fmt.Sprintf("type=local,src=%s/%d", caches, n), "--cache-to", fmt.Sprintf("type=local,dest=%s/%d", caches, n+1))
		assert.Equal(t, r.code, 0, r.stderr)
		return strings.Count(r.stderr, "CACHED")
	}
	assert.Equal(t, build(0), 0)
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile("new")), 0o644))
	assert.Equal(t, build(1), 2)
	for n := 2; n < 4; n++ {
		assert.NilError(t, os.RemoveAll(fmt.Sprintf("%s/%d", caches, n-1)))
		assert.Equal(t, build(n), 3)
	}
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile("old")), 0o644))
	assert.Equal(t, build(4), 2, "what no build used any more is still there")
}

// What a copy keeps of a file is what makes another layer of it, and no more.
func TestCache_changes_of_files(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry := service(t, "KMA_TEST_REGISTRY")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY d /\nCOPY link /link\n", "d/a": "a", "d/b": "b", "target": "1", "other": "1"})
	assert.NilError(t, os.Symlink("target", filepath.Join(dir, "link")))
	at := func(name string) string { return filepath.Join(dir, name) }
	cached := func() int {
		r := run(t, "build", "--context", dir, "--destination", registry+"/changes/app:1", "--state-dir", t.TempDir(), "--progress", "plain", "--cache")
		assert.Equal(t, r.code, 0, r.stderr)
		return strings.Count(r.stderr, "CACHED")
	}
	assert.Equal(t, cached(), 0)
	for _, step := range []struct {
		name   string
		change func() error
		want   int
	}{
		{"nothing", func() error { return nil }, 2},
		{"times", func() error { return os.Chtimes(at("d/a"), time.Unix(1, 0), time.Unix(1, 0)) }, 2},
		{"what_nobody_copies", func() error { return os.WriteFile(at("other"), []byte("2"), 0o644) }, 2},
		{"chmod_only", func() error { return os.Chmod(at("d/a"), 0o755) }, 0},
		{"xattr", func() error { return unix.Setxattr(at("d/a"), "user.x", []byte("1"), 0) }, 0},
		{"deleted", func() error { return os.Remove(at("d/b")) }, 0},
		{"content_behind_a_link", func() error { return os.WriteFile(at("target"), []byte("2"), 0o644) }, 1},
		{"content_behind_a_link_as_before", func() error { return os.WriteFile(at("target"), []byte("1"), 0o644) }, 2},
	} {
		assert.NilError(t, step.change())
		assert.Check(t, is.Equal(cached(), step.want), step.name)
	}
}

// Two builders with one cache do not meet, and leave one that works.
func TestCache_two_builders(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	dir := contextDir(t, map[string]string{
		"Dockerfile": "FROM " + bases + "/busybox:1\nRUN cat /proc/sys/kernel/random/uuid > /random\nRUN cp /random /again\n",
	})
	args := func(name string) []string {
		return []string{"build", "--context", dir, "--destination", registry + "/race/" + name + ":1", "--state-dir", t.TempDir(), "--progress", "plain",
			"--cache", "--cache-repo", registry + "/race/layers"}
	}
	var group sync.WaitGroup
	for _, name := range []string{"one", "two"} {
		list := args(name)
		group.Go(func() {
			r := run(t, list...)
			assert.Check(t, is.Equal(r.code, 0), r.stderr)
		})
	}
	group.Wait()
	r := run(t, append(args("three"), "--output", "type=local,dest="+dir+"/out", "--push")...)
	assert.Equal(t, r.code, 0, r.stderr)
	random, err := os.ReadFile(filepath.Join(dir, "out", "random"))
	assert.NilError(t, err)
	again, err := os.ReadFile(filepath.Join(dir, "out", "again"))
	assert.NilError(t, err)
	assert.Check(t, is.Equal(string(random), string(again)), "layers of two builders in one image")
}

// A build of which everything is cached moves no layer, and asks little.
func TestCache_requests(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	var mu sync.Mutex
	var asked []string
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: registry})
	proxy.ModifyResponse = func(r *http.Response) error {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, fmt.Sprint(r.Request.Method, " ", r.Request.URL.RequestURI(), " ", r.StatusCode, " ", r.ContentLength))
		return nil
	}
	s := httptest.NewServer(proxy)
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "http://")
	base := strings.Replace(bases, registry, host, 1)
	dir := contextDir(t, map[string]string{
		"file": "a",
		"Dockerfile": "FROM " + base + "/debian:12 AS build\nCOPY file /in\nRUN cp /in /out\nFROM " + base + "/debian:12\n" +
			"RUN echo 1 > /1\nRUN echo 2 > /2\nRUN echo 3 > /3\nCOPY --from=build /out /out\nCOPY file /file\n",
	})
	build := func(name string) {
		r := run(t, "build", "--context", dir, "--destination", host+"/requests/"+name+":1", "--state-dir", t.TempDir(), "--cache", "--cache-repo", host+"/requests/layers")
		assert.Equal(t, r.code, 0, r.stderr)
	}
	build("one")
	asked = nil
	build("two")
	const vertices = 10 // with two bases and the context
	assert.Check(t, len(asked) <= 20+vertices, "%d requests:\n%s", len(asked), strings.Join(asked, "\n"))
	sent := 0
	for _, a := range asked {
		method, rest, _ := strings.Cut(a, " ")
		assert.Check(t, method != http.MethodGet || !strings.Contains(rest, "/requests/layers/blobs/"), "a layer was read: %s", a)
		// What is small goes with the PUT, what is not with a PATCH before it.
		if method == http.MethodPut && strings.Contains(rest, "/blobs/uploads/") || method == http.MethodPatch {
			sent++
		}
	}
	assert.Check(t, is.Equal(sent, 1), "more than the config was sent:\n%s", strings.Join(asked, "\n"))
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

// What builds leave on a machine can be limited and removed.
func TestPrune(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nRUN --mount=type=cache,target=/c echo x > /c/x\n"})
	stateDir := t.TempDir()
	left := func() (n int) {
		for _, kind := range []string{"layers", "cache"} {
			found, err := filepath.Glob(filepath.Join(stateDir, kind, "*"))
			assert.NilError(t, err)
			n += len(found)
		}
		return n
	}
	build := []string{"build", "--context", dir, "--no-push", "--state-dir", stateDir}
	ok(t, build...)
	before := left()
	assert.Check(t, before > 1, before)
	ok(t, append(build, "--state-size", "1g")...)
	assert.Check(t, is.Equal(left(), before))
	assert.Check(t, is.Contains(ok(t, "prune", "--state-dir", stateDir, "--keep", "1g"), "removed 0"))
	assert.Check(t, is.Contains(ok(t, "prune", "--state-dir", stateDir), "left 0B"))
	assert.Check(t, is.Equal(left(), 0))
	ok(t, append(build, "--state-size", "0")...)
	assert.Check(t, is.Equal(left(), 0))
}

// The profile is that of the process that builds, which is not the first one.
func TestProfile(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nRUN sleep 1 && echo x > /x\n"})
	out := filepath.Join(t.TempDir(), "profile")
	ok(t, "build", "--context", dir, "--no-push", "--state-dir", t.TempDir(), "--profile", out)
	var steps []struct {
		Name    string
		Seconds float64
	}
	data, err := os.ReadFile(filepath.Join(out, "timeline.json"))
	assert.NilError(t, err)
	assert.NilError(t, json.Unmarshal(data, &steps))
	slept := slices.ContainsFunc(steps, func(s struct {
		Name    string
		Seconds float64
	}) bool {
		return strings.Contains(s.Name, "sleep 1") && s.Seconds >= 1
	})
	assert.Check(t, slept, "%s", data)
	for _, name := range []string{"cpu.pprof", "heap.pprof"} {
		tops, err := exec.CommandContext(t.Context(), "go", "tool", "pprof", "-top", "-nodecount=100000", filepath.Join(out, name)).CombinedOutput()
		assert.NilError(t, err, "%s", tops)
	}
}
