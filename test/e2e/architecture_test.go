package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// The program compiled for another architecture makes the same bytes of the
// same input: a pipeline may build one platform on one machine today and on
// another tomorrow. The other binary runs under QEMU, in a default container:
// QEMU cannot make namespaces. It cannot adopt orphans either, so nothing of the
// corpus that has a RUN is built, and a RUN is refused.
func TestArchitectures_make_equal_blobs(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	service(t, "KMA_TEST_DOCKER")
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	if other == "" || !slices.Contains(strings.Split(service(t, "KMA_TEST_EMULATED"), ","), "linux/"+other) {
		t.Skipf("programs for another architecture than %s do not run here", runtime.GOARCH)
	}
	foreign := filepath.Join(t.TempDir(), "kaniko-multiarch")
	compile := exec.CommandContext(t.Context(), "go", "build", "-o", foreign, "../..")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+other)
	out, err := compile.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	native, err := toolImage()
	assert.NilError(t, err)
	tool, err := importTool(foreign, "kaniko-multiarch:"+other)
	assert.NilError(t, err)

	for _, name := range []string{"files", "archives", "links"} {
		for _, compression := range []string{"gzip", "zstd"} {
			t.Run(name+"_"+compression, func(t *testing.T) {
				t.Parallel()
				dir := equalContext(t, strings.ReplaceAll(equalCases[name], "BASE", bases))
				image := registry + "/architecture/" + name + ":" + compression
				flags := []string{"--reproducible", "--compression=" + compression, "--custom-platform=linux/" + runtime.GOARCH}
				var manifests []string
				for _, tool := range []string{native, tool} {
					r := inContainerOf(t, tool, []string{"-v", dir + ":/workspace"},
						append(flags, "--context=/workspace", "--destination="+image)...)
					assert.Equal(t, r.code, 0, "%s: %s", tool, r.stderr)
					manifests = append(manifests, string(descriptor(t, image).Manifest))
				}
				assert.Check(t, is.Equal(manifests[0], manifests[1]))
			})
		}
	}
	t.Run("a_step_is_refused", func(t *testing.T) {
		t.Parallel()
		dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nRUN true\n"})
		r := inContainerOf(t, tool, []string{"-v", dir + ":/workspace"}, "--context=/workspace", "--no-push", "--custom-platform=linux/"+runtime.GOARCH)
		assert.Check(t, is.Equal(r.code, 6), r.stderr)
		assert.Check(t, is.Contains(r.stderr, "emulated"))
	})
}
