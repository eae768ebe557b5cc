package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

const small = "FROM scratch\nCOPY Dockerfile /\n"

// docs runs the blocks of a document in their order, in a context with a
// Dockerfile: sh must succeed, the commands of console print what is below them,
// dockerfile replaces the Dockerfile. ghcr.io/acme is the test registry.
func docs(t *testing.T, document string, prepare func(place, dir string)) (place string) {
	t.Helper()
	needRoot(t)
	registry := service(t, "KMA_TEST_REGISTRY")
	service(t, "KMA_TEST_BASES")
	platforms(t)
	place = registry + "/docs/" + strings.TrimSuffix(document, ".md")
	dir := contextDir(t, map[string]string{"Dockerfile": small})
	programs := t.TempDir()
	assert.NilError(t, os.Symlink(binary, filepath.Join(programs, "executor")))
	if prepare != nil {
		prepare(place, dir)
	}
	shell := func(script string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "sh", "-euc", script)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + programs + ":" + filepath.Dir(binary) + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + os.TempDir(),
			"KANIKO_MULTIARCH_STATE_DIR=" + sharedState, "KANIKO_REGISTRY_MIRROR=" + place + "/mirror"}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		return out.String(), err
	}
	text, err := os.ReadFile("../../docs/" + document)
	assert.NilError(t, err)
	ran := 0
	for _, m := range regexp.MustCompile("(?ms)^```(sh|console|dockerfile)\n(.*?)^```").FindAllStringSubmatch(string(text), -1) {
		block := strings.ReplaceAll(m[2], "ghcr.io/acme", place)
		switch m[1] {
		case "sh":
			out, err := shell(block)
			assert.NilError(t, err, "%s\n%s", block, out)
		case "console":
			command, want, _ := strings.Cut(strings.TrimPrefix(block, "$ "), "\n")
			out, _ := shell(command)
			for line := range strings.Lines(want) {
				assert.Check(t, is.Contains(out, strings.TrimSpace(line)), command)
			}
		case "dockerfile":
			assert.NilError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(block), 0o644))
			if strings.Contains(block, "go build") {
				// Compiling takes long, and other tests do it.
				out, err := shell("kaniko-multiarch build --check --platform linux/amd64,linux/arm64")
				assert.NilError(t, err, out)
				assert.NilError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(small), 0o644))
			}
		}
		ran++
	}
	assert.Check(t, ran > 3, "%s has no blocks", document)
	return place
}

func TestDocs_guide(t *testing.T) {
	t.Parallel()
	docs(t, "guide.md", nil)
}

func TestDocs_troubleshooting(t *testing.T) {
	t.Parallel()
	docs(t, "troubleshooting.md", nil)
}

func TestDocs_migration(t *testing.T) {
	t.Parallel()
	place := docs(t, "migration.md", func(place, dir string) {
		bases := service(t, "KMA_TEST_BASES")
		for _, image := range []string{"golang:1.26", "debian:12"} {
			ok(t, "merge", "--from", bases+"/"+image, "--destination", place+"/mirror/library/"+image)
		}
		for _, arch := range []string{"amd64", "arm64"} {
			ok(t, "build", "--context", dir, "--platform", arch, "--destination", place+"/app:"+arch, "--state-dir", sharedState)
		}
		ok(t, "merge", "--from", place+"/app:amd64", "--from", place+"/app:arm64", "--destination", place+"/oci:1.0")
		tool(t, "skopeo", "copy", "--quiet", "--all", "--format=v2s2", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+place+"/oci:1.0", "docker://"+place+"/list:1.0")
		assert.Equal(t, rawIndex(t, place+"/list:1.0").MediaType, "application/vnd.docker.distribution.manifest.list.v2+json")
	})
	assert.Equal(t, rawIndex(t, place+"/list:1.0").MediaType, "application/vnd.oci.image.index.v1+json")
}
