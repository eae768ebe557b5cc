package e2e

import (
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/test/imagediff"
)

// ciPlaces are the ways in which a build gets its context in a container: each
// returns docker's flags and the builder's.
var ciPlaces = map[string]func(t *testing.T, dir string) (docker, builder []string){
	"volume": func(_ *testing.T, dir string) ([]string, []string) {
		return []string{"-v", dir + ":/workspace"}, []string{"--context=/workspace"}
	},
	"ci": func(t *testing.T, dir string) ([]string, []string) {
		token := contextDir(t, map[string]string{"token": "a token"})
		return []string{
			"-v", "/var/run/docker.sock:/var/run/docker.sock",
			"-v", dir + ":/github/workspace", "-w", "/github/workspace",
			"-v", token + ":/var/run/secrets/kubernetes.io/serviceaccount:ro",
		}, []string{"--context=dir:///github/workspace"}
	},
}

// notInPlace are the lines of the corpus that a default container cannot have,
// or that differ between two places by their nature.
var notInPlace = []string{
	"--network=none",
	"hostname", "/etc/hosts", // the container's, not ours to set
	"/proc/self", "ls -l /dev", "ulimit", // of the container
}

func withoutLines(text string, parts []string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(line, part) }) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// In a default container and in namespaces the same Dockerfile gives the same
// bytes, on both platforms, whatever else a CI system mounts.
func TestInPlace_equals_namespaces(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases := service(t, "KMA_TEST_BASES")
	for name, dockerfile := range equalCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := withoutLines(strings.ReplaceAll(dockerfile, "BASE", bases), notInPlace)
			sameEverywhere(t, "inplace/"+name, equalContext(t, text), sharedState+"-"+name)
		})
	}
}

func TestInPlace_hello_equals_namespaces(t *testing.T) {
	t.Parallel()
	needRoot(t)
	sameEverywhere(t, "inplace/hello", hello, sharedState, helloContexts(service(t, "KMA_TEST_BASES"))...)
}

// sameEverywhere builds the context for both platforms in namespaces and in
// every place of ciPlaces, and compares digests.
func sameEverywhere(t *testing.T, repository, dir, state string, flags ...string) {
	t.Helper()
	sameDay(t)
	registry, list := service(t, "KMA_TEST_REGISTRY"), platforms(t)
	service(t, "KMA_TEST_DOCKER")
	image := registry + "/" + repository
	flags = append(flags, "--reproducible", "--platform="+list)
	ok(t, slices.Concat([]string{"build", "--isolation=namespaces", "--context=" + dir, "--destination=" + image + ":namespaces", "--state-dir=" + state}, flags)...)
	want := descriptor(t, image+":namespaces")
	for name, place := range ciPlaces {
		docker, builder := place(t, absolute(t, dir))
		r := inContainer(t, append(docker, "--entrypoint=/kaniko/kaniko-multiarch"),
			slices.Concat([]string{"build", "--isolation=inplace", "--destination=" + image + ":" + name}, builder, flags)...)
		assert.Equal(t, r.code, 0, "%s: %s", name, r.stderr)
		got := descriptor(t, image+":"+name)
		if got.Digest == want.Digest {
			continue
		}
		differences, err := imagediff.Descriptors(want, got, imagediff.Options{})
		t.Errorf("%s: %s, in namespaces %s: %v\n%s", name, got.Digest, want.Digest, err, strings.Join(differences, "\n"))
	}
}
