package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/test/imagediff"
)

func descriptor(t *testing.T, ref string) *remote.Descriptor {
	t.Helper()
	r, err := name.ParseReference(ref, name.Insecure)
	assert.NilError(t, err)
	d, err := remote.Get(r, remote.WithContext(t.Context()))
	assert.NilError(t, err)
	return d
}

type index struct {
	MediaType   string            `json:"mediaType"`
	Annotations map[string]string `json:"annotations"`
	Manifests   []struct {
		Digest   string `json:"digest"`
		Platform struct{ Architecture, OS, Variant string }
	}
}

// rawIndex reads an index with a tool that is not ours.
func rawIndex(t *testing.T, ref string) index {
	t.Helper()
	var i index
	assert.NilError(t, json.Unmarshal([]byte(tool(t, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+ref)), &i))
	return i
}

// The main road of a CI pipeline: a matrix, a job for each of its rows, a merge.
func TestMatrix_build_merge(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases, list := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES"), platforms(t)
	image := registry + "/road/hello"

	var plan struct {
		Key    string
		Matrix struct {
			Include []struct{ Platform, Key, Image, Slug string }
		}
		Platforms string
	}
	out := ok(t, "matrix", "--platform", list, "--image", image, "--destination", image+":1")
	assert.NilError(t, json.Unmarshal([]byte(out), &plan))
	assert.Assert(t, is.Len(plan.Matrix.Include, 2))

	digests := t.TempDir()
	for _, row := range plan.Matrix.Include {
		args := append([]string{"build", "--context", hello, "--platform", row.Platform, "--image", row.Image, "--key", row.Key,
			"--digests-to", digests, "--state-dir", sharedState, "--progress", "plain"}, helloContexts(bases)...)
		ok(t, args...)
		_, err := os.Stat(filepath.Join(digests, row.Key+"."+row.Slug+".json"))
		assert.NilError(t, err)
	}
	report := filepath.Join(t.TempDir(), "report.json")
	ok(t, "merge", "--digests-from", digests, "--destination", image+":1,"+image+":latest", "--platform", plan.Platforms, "--key", plan.Key,
		"--index-annotations", "org.opencontainers.image.title=hello, there", "--report", report)

	got := rawIndex(t, image+":1")
	assert.Check(t, is.Equal(got.MediaType, "application/vnd.oci.image.index.v1+json"))
	assert.Check(t, is.Equal(got.Annotations["org.opencontainers.image.title"], "hello, there"))
	assert.Assert(t, is.Len(got.Manifests, 2))
	assert.Check(t, is.Equal(got.Manifests[0].Platform.Architecture, "amd64"))
	assert.Check(t, is.Equal(got.Manifests[1].Platform.Architecture, "arm64"))
	assert.Check(t, is.DeepEqual(rawIndex(t, image+":latest"), got))

	var written struct {
		Published bool
		Digest    string
	}
	data, err := os.ReadFile(report)
	assert.NilError(t, err)
	assert.NilError(t, json.Unmarshal(data, &written))
	assert.Check(t, written.Published)
	assert.Check(t, is.Equal(written.Digest, descriptor(t, image+":1").Digest.String()))

	for _, arch := range []string{"amd64", "arm64"} {
		says := runImage(t, image+":1", arch)
		assert.Check(t, is.Contains(says, " from linux/"+arch))
		assert.Check(t, is.Contains(says, "uid 10001"))
	}
	refusesOneMissing(t, digests, image)
}

// refusesOneMissing shows that merge moves no tag when a platform is missing.
func refusesOneMissing(t *testing.T, digests, image string) {
	t.Helper()
	r := run(t, "merge", "--digests-from", digests, "--destination", image+":wrong", "--platform", "linux/amd64,linux/arm64,linux/s390x")
	assert.Check(t, is.Equal(r.code, 7))
	assert.Check(t, is.Contains(r.stderr, "linux/s390x"))
	r = run(t, "merge", "--digests-from", digests, "--destination", image+":wrong", "--dry-run")
	assert.Check(t, is.Equal(r.code, 0), r.stderr)
	out, err := exec.Command("skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+image+":wrong").CombinedOutput()
	assert.Check(t, err != nil, "the tag exists: %s", out)
}

// runImage unpacks an image with foreign tools and runs its entry point.
func runImage(t *testing.T, ref, arch string) string {
	t.Helper()
	dir := t.TempDir()
	layout := filepath.Join(dir, "oci")
	tool(t, "skopeo", "copy", "--quiet", "--override-arch", arch, "--src-tls-verify=false", "docker://"+ref, "oci:"+layout+":x")
	bundle := filepath.Join(dir, "bundle")
	tool(t, "umoci", "unpack", "--image", layout+":x", bundle)
	return tool(t, "chroot", "--userspec=10001:10001", filepath.Join(bundle, "rootfs"), "/usr/local/bin/hello")
}

// What we build of the example equals what BuildKit builds of it.
func TestHello_equals_BuildKit(t *testing.T) {
	t.Parallel()
	sameDay(t)
	needRoot(t)
	registry, bases, list := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES"), platforms(t)
	service(t, "KMA_TEST_BUILDKIT")
	ours, theirs := registry+"/equal/ours:1", registry+"/equal/theirs:1"
	ok(t, append([]string{"build", "--context", hello, "--platform", list, "--destination", ours, "--state-dir", sharedState}, helloContexts(bases)...)...)
	tool(t, "../oracle/build.sh", append([]string{"--context", hello, "--platform", list, "--destination", theirs}, helloContexts(bases)...)...)
	differences, err := imagediff.Descriptors(descriptor(t, ours), descriptor(t, theirs), imagediff.Options{})
	assert.NilError(t, err)
	assert.Check(t, is.Len(differences, 0), strings.Join(differences, "\n"))
}

// Two runs that share nothing make the same bytes.
func TestReproducible(t *testing.T) {
	t.Parallel()
	sameDay(t)
	needRoot(t)
	registry, bases, list := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES"), platforms(t)
	dockerfile := "FROM " + bases + `/debian:12
RUN date > /dev/null && mkdir -p /a/b && uname -m > /a/b/machine && ln /a/b/machine /a/link && touch -d tomorrow /a/later
COPY --link . /src/
COPY --chmod=0700 Dockerfile /x/
RUN rm -r /a/b /var/lib && chmod 4755 /usr/bin/id
WORKDIR /w
`
	build := func(name string, flags ...string) string {
		image := registry + "/reproducible/" + name + ":1"
		dir := contextDir(t, map[string]string{"Dockerfile": dockerfile, "file": "text"})
		ok(t, append([]string{"build", "--context", dir, "--platform", list, "--destination", image, "--state-dir", t.TempDir()}, flags...)...)
		return string(descriptor(t, image).Manifest)
	}
	one := build("one", "--reproducible")
	assert.Check(t, is.Equal(one, build("two", "--reproducible")))
	// Without the flag times are real, so the test above can fail.
	assert.Check(t, one != build("three"))
}
