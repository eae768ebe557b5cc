package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// These tests are the walk-through of the multi-arch guide of a fork of kaniko:
// what somebody has in her pipeline who followed it, with nothing changed but
// the executor's image and the registry. Every command runs in a default
// container. The Kubernetes ones are refused, see TestGuide_kubernetes.

// debugImage is the variant with a shell, for CI systems that start one in the
// container. It is laid out and configured as the released one is.
var debugImage = sync.OnceValues(func() (string, error) {
	program, err := os.ReadFile(binary)
	if err != nil {
		return "", err
	}
	path, err := exec.LookPath("busybox")
	if err != nil {
		return "", err
	}
	busybox, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var root bytes.Buffer
	w := tar.NewWriter(&root)
	add := func(h *tar.Header, data []byte) {
		h.Size = int64(len(data))
		err = errors.Join(err, w.WriteHeader(h))
		_, writeErr := w.Write(data)
		err = errors.Join(err, writeErr)
	}
	for _, dir := range []string{"kaniko/", "kaniko/.docker/", "busybox/"} {
		add(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil)
	}
	add(&tar.Header{Name: "kaniko/kaniko-multiarch", Mode: 0o755}, program)
	add(&tar.Header{Typeflag: tar.TypeSymlink, Name: "kaniko/executor", Linkname: "kaniko-multiarch"}, nil)
	add(&tar.Header{Name: "busybox/busybox", Mode: 0o755}, busybox)
	for _, applet := range strings.Fields("sh basename cat echo grep ls mkdir seq sleep tr") {
		add(&tar.Header{Typeflag: tar.TypeSymlink, Name: "busybox/" + applet, Linkname: "busybox"}, nil)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return "", err
	}
	const name = "kaniko-multiarch:test-debug"
	cmd := exec.Command(os.Getenv("KMA_TEST_DOCKER"), "import",
		"-c", `ENTRYPOINT ["/kaniko/executor"]`,
		"-c", "ENV HOME=/root USER=root PATH=/kaniko:/busybox SSL_CERT_DIR=/kaniko/ssl/certs DOCKER_CONFIG=/kaniko/.docker/", "-", name)
	cmd.Stdin = &root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return name, nil
})

// guide is a project of somebody who followed it.
type guide struct {
	image, dir, digests string
}

// newGuide makes one. What the guide's cases build shows on which platform it
// was built, and which argument it got.
func newGuide(t *testing.T, name string) guide {
	t.Helper()
	needRoot(t)
	host, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	service(t, "KMA_TEST_DOCKER")
	platforms(t)
	return guide{
		image: host + "/guide/" + name, digests: t.TempDir(),
		dir: contextDir(t, map[string]string{
			"Dockerfile": "FROM " + bases + `/busybox:1
RUN uname -m > /machine
COPY text /text
CMD ["cat", "/machine"]
`,
			"text": "of " + name + "\n",
		}),
	}
}

// run is a `docker run` of the guide.
func (g guide) run(t *testing.T, args ...string) result {
	t.Helper()
	return inContainer(t, []string{"-v", g.dir + ":/workspace", "-v", g.digests + ":/output"}, args...)
}

// script runs one of a CI job on its machine, with docker at hand.
func (g guide) script(t *testing.T, text string, env ...string) result {
	t.Helper()
	docker := service(t, "KMA_TEST_DOCKER")
	image, err := toolImage()
	assert.NilError(t, err)
	cmd := exec.CommandContext(t.Context(), "bash", "-c", text)
	cmd.Env = append(os.Environ(), append([]string{
		"EXECUTOR=" + docker + " run --rm --network=host -v " + g.dir + ":/workspace -v " + g.digests + ":/output " + image,
		"WORKSPACE=" + g.dir, "DIGESTS_DIR=" + g.digests, "IMAGE=" + g.image,
	}, env...)...)
	return finished(t, cmd)
}

// machines is what `uname -m` says on each platform.
func machines() map[string]string { return map[string]string{"amd64": "x86_64", "arm64": "aarch64"} }

// checkIndex looks at what users pull: an OCI index of both platforms, in order,
// each an image of what was built there.
func (g guide) checkIndex(t *testing.T, tag string) index {
	t.Helper()
	got := rawIndex(t, g.image+":"+tag)
	assert.Check(t, is.Equal(got.MediaType, "application/vnd.oci.image.index.v1+json"))
	var archs []string
	for _, m := range got.Manifests {
		archs = append(archs, m.Platform.Architecture)
		g.checkImage(t, g.image+"@"+m.Digest, m.Platform.Architecture)
	}
	assert.Check(t, is.DeepEqual(archs, []string{"amd64", "arm64"}))
	return got
}

func (g guide) checkImage(t *testing.T, ref, arch string) {
	t.Helper()
	img, err := descriptor(t, ref).Image()
	assert.NilError(t, err)
	config, err := img.ConfigFile()
	assert.NilError(t, err)
	assert.Check(t, is.Equal(config.OS+"/"+config.Architecture, "linux/"+arch))
	assert.Check(t, is.DeepEqual(config.Config.Cmd, []string{"cat", "/machine"}))
	assert.Check(t, is.Equal(fileOf(t, img, "machine"), machines()[arch]+"\n"))
	assert.Check(t, is.Equal(fileOf(t, img, "text"), "of "+filepath.Base(g.image)+"\n"))
}

func fileOf(t *testing.T, img v1.Image, name string) string {
	t.Helper()
	r := mutate.Extract(img)
	defer r.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		assert.NilError(t, err, name)
		if strings.TrimPrefix(h.Name, "/") == name {
			data, err := io.ReadAll(tr)
			assert.NilError(t, err)
			return string(data)
		}
	}
}

func exists(t *testing.T, ref string) bool {
	t.Helper()
	r, err := name.ParseReference(ref, name.Insecure)
	assert.NilError(t, err)
	_, err = remote.Head(r, remote.WithContext(t.Context()))
	return err == nil
}

// The credentials of the guide's development workflow, and GitLab's.
func TestGuide_credentials(t *testing.T) {
	t.Parallel()
	g := newGuide(t, "credentials")
	docker := service(t, "KMA_TEST_DOCKER")
	image, err := debugImage()
	assert.NilError(t, err)
	blobs := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	private := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user+password != "bobhunter2" {
			w.Header().Set("WWW-Authenticate", "Basic realm=x")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		blobs.ServeHTTP(w, r)
	}))
	t.Cleanup(private.Close)
	host := strings.TrimPrefix(private.URL, "http://")
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("bob:hunter2")))
	file := filepath.Join(t.TempDir(), "config.json")
	assert.NilError(t, os.WriteFile(file, []byte(config), 0o600))
	variable := strings.ToUpper(strings.NewReplacer(".", "_", ":", "_").Replace(host))
	for _, tc := range []struct {
		name  string
		flags []string
		code  int
	}{
		{"config", []string{"-v", file + ":/kaniko/.docker/config.json"}, 0},
		{"directory", []string{"-v", filepath.Dir(file) + ":/kaniko/.docker:ro"}, 0},
		{"gitlab", []string{"-e", "DOCKER_AUTH_CONFIG=" + config}, 0},
		{"variables", []string{"-e", "KANIKO_" + variable + "_USER=bob", "-e", "KANIKO_" + variable + "_PASSWORD=hunter2"}, 0},
		{"none", nil, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			args := slices.Concat([]string{"run", "--rm", "--network=host", "-v", g.dir + ":/workspace"}, tc.flags, []string{
				image, "--dockerfile=/workspace/Dockerfile", "--context=/workspace", "--destination=" + host + "/private/" + tc.name + ":dev",
				"--driver=local", "--cache=true", "--cache-repo=" + host + "/private/cache",
			})
			r := finished(t, exec.CommandContext(t.Context(), docker, args...))
			assert.Check(t, is.Equal(r.code, tc.code), r.stderr)
			assert.Check(t, !strings.Contains(r.stderr, "hunter2"))
			if tc.code != 0 {
				// Before anything is built.
				assert.Check(t, !strings.Contains(r.stderr, "uname"), r.stderr)
			}
		})
	}
}

// The commands that build both platforms and publish one image.
func TestGuide_local_driver(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		flags string
		// stderr is what has to be in the log.
		stderr string
	}{
		{"basic", "", ""},
		{"development", "--cache=true --cache-repo=CACHE --verbosity=info", ""},
		{"platform_validation", "--require-native-nodes=false --verbosity=debug", ""},
		{"retries", "--cache=true --push-retry=5 --push-retry-initial-delay=2000 --push-retry-max-delay=60000", ""},
		{"caching_and_compression", "--cache=true --cache-repo=CACHE --cache-ttl=168h --compression=zstd --push-retry=3", ""},
		{"optimised", "--cache=true --cache-repo=CACHE --cache-ttl=336h --compression=zstd --compression-level=3 --publish-index=true " +
			"--push-retry=3 --push-retry-initial-delay=1000 --push-retry-max-delay=30000 --verbosity=info", ""},
		{"debug", "--verbosity=debug", "level=DEBUG"},
		{"migrated_pipeline", "--publish-index=true", ""},
		{"from_docker_list", "--oci-mode=oci --publish-index=true", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			g := newGuide(t, tc.name)
			flags := strings.Fields(strings.ReplaceAll(tc.flags, "CACHE", g.image+"/cache"))
			args := append([]string{
				"--dockerfile=/workspace/Dockerfile", "--context=/workspace", "--destination=" + g.image + ":latest",
				"--platform=linux/amd64,linux/arm64", "--driver=local",
			}, flags...)
			r := g.run(t, args...)
			assert.Equal(t, r.code, 0, r.stderr)
			assert.Check(t, is.Contains(r.stderr, tc.stderr))
			first := g.checkIndex(t, "latest")
			if slices.Contains(flags, "--compression=zstd") {
				img, err := descriptor(t, g.image+"@"+first.Manifests[1].Digest).Image()
				assert.NilError(t, err)
				manifest, err := img.Manifest()
				assert.NilError(t, err)
				assert.Check(t, is.Contains(string(manifest.Layers[len(manifest.Layers)-1].MediaType), "zstd"))
			}
			if slices.Contains(flags, "--cache=true") {
				assert.Check(t, !strings.Contains(r.stderr, "CACHED"), r.stderr)
				r = g.run(t, args...)
				assert.Equal(t, r.code, 0, r.stderr)
				assert.Check(t, is.Equal(strings.Count(r.stderr, "CACHED"), 4), r.stderr)
				assert.Check(t, is.DeepEqual(g.checkIndex(t, "latest").Manifests, first.Manifests))
			}
		})
	}
}

// One platform, as before somebody had several, and as the remedy for a slow
// emulator: an image, no index.
func TestGuide_one_platform(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{nil, {"--platform=linux/amd64", "--driver=local"}} {
		g := newGuide(t, fmt.Sprintf("one-platform-%d", len(flags)))
		r := g.run(t, append([]string{"--dockerfile=/workspace/Dockerfile", "--context=/workspace", "--destination=" + g.image + ":latest"}, flags...)...)
		assert.Equal(t, r.code, 0, r.stderr)
		assert.Check(t, descriptor(t, g.image+":latest").MediaType.IsImage())
		if len(flags) > 0 {
			g.checkImage(t, g.image+":latest", "amd64")
		}
	}
}

// The checks without a destination.
func TestGuide_no_push(t *testing.T) {
	t.Parallel()
	for _, verbosity := range []string{"info", "debug"} {
		g := newGuide(t, "no-push-"+verbosity)
		r := g.run(t, "--dockerfile=/workspace/Dockerfile", "--context=/workspace", "--no-push", "--verbosity="+verbosity)
		assert.Equal(t, r.code, 0, r.stderr)
		assert.Check(t, strings.HasPrefix(r.stdout, "sha256:"), r.stdout)
		broken := contextDir(t, map[string]string{"Dockerfile": "FROM scratch\nCOPPY a b\n"})
		r = inContainer(t, []string{"-v", broken + ":/workspace"}, "--dockerfile=/workspace/Dockerfile", "--context=/workspace", "--no-push", "--verbosity="+verbosity)
		assert.Check(t, is.Equal(r.code, 3), r.stderr)
		assert.Check(t, is.Contains(r.stderr, "COPPY"))
	}
}

// The platforms are in the help.
func TestGuide_help(t *testing.T) {
	t.Parallel()
	g := newGuide(t, "help")
	r := g.script(t, `$EXECUTOR --help | grep platform`)
	assert.Check(t, is.Equal(r.code, 0), r.stderr)
	assert.Check(t, is.Contains(r.stdout, "--platform"))
	assert.Check(t, is.Contains(r.stdout, "linux/arm64"))
}

// A platform that cannot be had here fails before anything is published, and
// says which one.
func TestGuide_platform_that_cannot_be_had(t *testing.T) {
	t.Parallel()
	g := newGuide(t, "s390x")
	bases := service(t, "KMA_TEST_BASES")
	args := []string{
		"--dockerfile=/workspace/Dockerfile", "--context=/workspace", "--destination=" + g.image + ":latest",
		"--platform=linux/amd64,linux/arm64,linux/s390x", "--driver=local", "--cache=true", "--cache-repo=" + g.image + "/cache",
		"--cache-ttl=168h", "--compression=zstd", "--push-retry=3",
	}
	socket := []string{"-v", g.dir + ":/workspace", "-v", "/var/run/docker.sock:/var/run/docker.sock"}
	r := inContainer(t, socket, args...)
	assert.Check(t, is.Equal(r.code, 3), r.stderr)
	assert.Check(t, is.Contains(r.stderr, "linux/s390x"))

	// The same where the base image has it.
	ref, err := name.ParseReference(bases+"/busybox:1", name.Insecure)
	assert.NilError(t, err)
	base, err := remote.Index(ref)
	assert.NilError(t, err)
	s390x, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "s390x", RootFS: v1.RootFS{Type: "layers"}})
	assert.NilError(t, err)
	to, err := name.ParseReference(g.image+"-base:1", name.Insecure)
	assert.NilError(t, err)
	assert.NilError(t, remote.WriteIndex(to, mutate.AppendManifests(base, mutate.IndexAddendum{
		Add: s390x, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}},
	})))
	assert.NilError(t, os.WriteFile(filepath.Join(g.dir, "Dockerfile"), []byte("FROM "+g.image+"-base:1\nRUN uname -m > /machine\n"), 0o644))
	r = inContainer(t, socket, args...)
	assert.Check(t, is.Equal(r.code, 6), r.stderr)
	assert.Check(t, is.Contains(r.stderr, "linux/s390x"))

	// And where nobody wants an emulator.
	r = g.run(t, append(slices.Clone(args[:3]), "--platform=linux/amd64,linux/arm64", "--require-native-nodes=true")...)
	assert.Check(t, is.Equal(r.code, 6), r.stderr)
	assert.Check(t, is.Contains(r.stderr, "--require-native-nodes"))

	for _, ref := range []string{g.image + ":latest", g.image + "@" + descriptor(t, g.image+"-base:1").Digest.String()} {
		assert.Check(t, !exists(t, ref), ref)
	}
	tags, err := remote.List(to.Context())
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(tags, []string{"1"}))
}

// perPlatform is the loop of GitHub's and Jenkins' jobs.
const perPlatform = `set -e
mkdir -p "$DIGESTS_DIR"
for platform in $(echo "$PLATFORMS" | tr ',' ' '); do
  $EXECUTOR --dockerfile=/workspace/Dockerfile --context=/workspace \
    --destination=$IMAGE:$BUILD-${platform//\//-} --platform=$platform --driver=local \
    --cache=true --cache-repo=$IMAGE/cache --digest-file=/output/${platform//\//-}.digest
done
ls -la "$DIGESTS_DIR"
`

// publish is the step after it.
const publish = `set -e
for file in "$DIGESTS_DIR"/*.digest; do echo "$(basename "$file" .digest | tr - /): $(cat "$file")"; done
$EXECUTOR --dockerfile=/workspace/Dockerfile --context=/workspace --destination=$IMAGE:$BUILD \
  --platform=$PLATFORMS --driver=ci --digests-from=/output --publish-index=true \
  --index-annotations="org.opencontainers.image.title=$TITLE" --index-annotations="org.opencontainers.image.revision=$BUILD"
`

// A job that loops over the platforms, and one that publishes the index.
func TestGuide_ci_driver(t *testing.T) {
	t.Parallel()
	for _, system := range []string{"github", "jenkins"} {
		t.Run(system, func(t *testing.T) {
			t.Parallel()
			g := newGuide(t, system)
			env := []string{"PLATFORMS=linux/amd64,linux/arm64", "BUILD=0a1b2c3", "TITLE=acme/app, the app"}
			r := g.script(t, perPlatform, env...)
			assert.Equal(t, r.code, 0, r.stderr)
			g.checkDigests(t, g.digests, "0a1b2c3")
			assert.Check(t, !exists(t, g.image+":0a1b2c3"))

			// What the guide's troubleshooting says to look with.
			r = g.script(t, `$EXECUTOR --driver=ci --digests-from=/output`)
			assert.Check(t, is.Equal(r.code, 0), r.stderr)
			for arch := range machines() {
				assert.Check(t, is.Contains(r.stdout, "/output/linux-"+arch+".digest "+g.digest(t, g.digests, arch)))
			}
			r = g.script(t, publish, env...)
			assert.Equal(t, r.code, 0, r.stderr)
			g.checkPublished(t, g.digests, "0a1b2c3", "acme/app, the app")

			// A second run finds all of it in the cache.
			r = g.script(t, perPlatform, env...)
			assert.Equal(t, r.code, 0, r.stderr)
			assert.Check(t, is.Equal(strings.Count(r.stderr, "CACHED"), 4), r.stderr)
		})
	}
}

func (g guide) digest(t *testing.T, dir, arch string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "linux-"+arch+".digest"))
	assert.NilError(t, err)
	return string(data)
}

// checkDigests compares the files with what the registry has.
func (g guide) checkDigests(t *testing.T, dir, tag string) {
	t.Helper()
	for arch := range machines() {
		ref := g.image + ":" + tag + "-linux-" + arch
		assert.Check(t, is.Equal(g.digest(t, dir, arch), descriptor(t, ref).Digest.String()))
		g.checkImage(t, ref, arch)
	}
}

func (g guide) checkPublished(t *testing.T, dir, tag, title string) {
	t.Helper()
	got := g.checkIndex(t, tag)
	assert.Check(t, is.DeepEqual(got.Annotations, map[string]string{
		"org.opencontainers.image.title": title, "org.opencontainers.image.revision": tag,
	}))
	for _, m := range got.Manifests {
		assert.Check(t, is.Equal(m.Digest, g.digest(t, dir, m.Platform.Architecture)))
	}
}

// A job of GitLab is a container of the executor's image: the loop runs in it,
// one build after the other.
func TestGuide_gitlab(t *testing.T) {
	t.Parallel()
	g := newGuide(t, "gitlab")
	docker := service(t, "KMA_TEST_DOCKER")
	image, err := debugImage()
	assert.NilError(t, err)
	job := func(script string) result {
		const project = "/builds/acme/app"
		cmd := exec.CommandContext(t.Context(), docker, "run", "--rm", "--network=host", "-i", "-v", g.dir+":"+project, "-w", project,
			"-e", "CI_PROJECT_DIR="+project, "-e", "DIGESTS_DIR="+project+"/digests", "-e", "PLATFORMS=linux/amd64,linux/arm64",
			"-e", "CI_REGISTRY_IMAGE="+g.image, "-e", "CI_COMMIT_SHA=0a1b2c3", "-e", "CI_PROJECT_NAME=app",
			"--entrypoint", "/busybox/sh", image)
		// The runner sends the script to the shell's input.
		cmd.Stdin = strings.NewReader(script)
		return finished(t, cmd)
	}
	r := job(`set -e
mkdir -p $DIGESTS_DIR
for platform in $(echo $PLATFORMS | tr ',' ' '); do
  /kaniko/executor --dockerfile=Dockerfile --context=$CI_PROJECT_DIR \
    --destination=$CI_REGISTRY_IMAGE:$CI_COMMIT_SHA-${platform//\//-} --platform=$platform --driver=local \
    --cache=true --cache-repo=$CI_REGISTRY_IMAGE/cache --digest-file=$DIGESTS_DIR/${platform//\//-}.digest
done
ls -la $DIGESTS_DIR/
`)
	assert.Equal(t, r.code, 0, r.stderr)
	digests := filepath.Join(g.dir, "digests")
	g.checkDigests(t, digests, "0a1b2c3")
	merge := `set -e
/kaniko/executor --dockerfile=Dockerfile --context=$CI_PROJECT_DIR --destination=$CI_REGISTRY_IMAGE:$CI_COMMIT_SHA \
  --platform=$PLATFORMS --driver=ci --digests-from=$DIGESTS_DIR --publish-index=true \
  --index-annotations="org.opencontainers.image.title=$CI_PROJECT_NAME" --index-annotations="org.opencontainers.image.revision=$CI_COMMIT_SHA"
`
	// Without one of the two nothing is published.
	kept := filepath.Join(t.TempDir(), "kept")
	assert.NilError(t, os.Rename(filepath.Join(digests, "linux-arm64.digest"), kept))
	r = job(merge)
	assert.Check(t, is.Equal(r.code, 7), r.stderr)
	assert.Check(t, is.Contains(r.stderr, "linux/arm64"))
	assert.Check(t, !exists(t, g.image+":0a1b2c3"))
	data, err := os.ReadFile(kept)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(filepath.Join(digests, "linux-arm64.digest"), data, 0o644))
	r = job(merge)
	assert.Equal(t, r.code, 0, r.stderr)
	g.checkPublished(t, digests, "0a1b2c3", "app")
}

// A build that fails is tried again, and leaves no tag.
func TestGuide_retry_loop(t *testing.T) {
	t.Parallel()
	g := newGuide(t, "failing")
	assert.NilError(t, os.WriteFile(filepath.Join(g.dir, "Dockerfile"),
		[]byte("FROM "+service(t, "KMA_TEST_BASES")+"/busybox:1\nRUN [ $(uname -m) != aarch64 ] || exit 42\n"), 0o644))
	r := g.script(t, `for attempt in $(seq 1 2); do
  $EXECUTOR --dockerfile=/workspace/Dockerfile --context=/workspace --destination=$IMAGE:latest \
    --platform=linux/amd64,linux/arm64 --driver=local --digest-file=/output/digest && exit 0
  echo "exit code $?"
done
exit 1`)
	assert.Check(t, is.Equal(r.code, 1), r.stderr)
	assert.Check(t, is.Equal(strings.Count(r.stdout, "exit code 42"), 2), r.stderr)
	assert.Check(t, !exists(t, g.image+":latest"))
	_, err := os.Stat(filepath.Join(g.digests, "digest"))
	assert.Check(t, errors.Is(err, os.ErrNotExist))
}

// A stage of the builder's platform beside those of each target, as the guide's
// migration has it.
func TestGuide_build_platform(t *testing.T) {
	t.Parallel()
	g := newGuide(t, "build-platform")
	bases := service(t, "KMA_TEST_BASES")
	assert.NilError(t, os.WriteFile(filepath.Join(g.dir, "Dockerfile"), []byte("FROM --platform=$BUILDPLATFORM "+bases+`/debian:12 AS builder
RUN uname -m > /built-on
FROM `+bases+`/busybox:1
COPY --from=builder /built-on /built-on
COPY text /text
RUN uname -m > /machine
CMD ["cat", "/machine"]
`), 0o644))
	r := g.run(t, "--dockerfile=/workspace/Dockerfile", "--context=/workspace", "--destination="+g.image+":latest",
		"--platform=linux/amd64,linux/arm64", "--driver=local")
	assert.Equal(t, r.code, 0, r.stderr)
	var on []string
	for _, m := range g.checkIndex(t, "latest").Manifests {
		img, err := descriptor(t, g.image+"@"+m.Digest).Image()
		assert.NilError(t, err)
		on = append(on, fileOf(t, img, "built-on"))
	}
	assert.Check(t, is.Equal(on[0], on[1]))
}

// The guide's Kubernetes commands, where there is no cluster, say what is missing
// before anything is read. With one, see TestCluster.
func TestGuide_kubernetes(t *testing.T) {
	t.Parallel()
	g := newGuide(t, "kubernetes")
	r := g.run(t, "--dockerfile=/workspace/Dockerfile", "--context=/workspace", "--destination="+g.image+":latest",
		"--platform=linux/amd64,linux/arm64", "--driver=k8s", "--cache=true", "--cache-repo="+g.image+"/cache", "--push-retry=3")
	assert.Check(t, is.Equal(r.code, 2), r.stderr)
	for _, want := range []string{"--driver=k8s", "--k8s-kubeconfig", "service account"} {
		assert.Check(t, is.Contains(r.stderr, want))
	}
	assert.Check(t, !exists(t, g.image+":latest"))
}
