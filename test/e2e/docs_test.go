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

// docs runs the blocks of a document in their order, in a context with a
// Dockerfile: sh must succeed, the commands of console print what is below them,
// dockerfile replaces the Dockerfile. ghcr.io/acme is the test registry.
func docs(t *testing.T, document, dockerfile string) {
	t.Helper()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	platforms(t)
	place := registry + "/docs/" + strings.TrimSuffix(document, ".md")
	dir := contextDir(t, map[string]string{"Dockerfile": dockerfile, "bin/executor": ""})
	assert.NilError(t, os.Remove(filepath.Join(dir, "bin/executor")))
	assert.NilError(t, os.Symlink(binary, filepath.Join(dir, "bin/executor")))
	ok(t, "build", "--context", dir, "--platform", "linux/amd64,linux/arm64", "--image", place+"/app", "--digests-to", t.TempDir(), "--state-dir", sharedState,
		"--registry-map", "docker.io="+bases)
	shell := func(script string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "sh", "-euc", script)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + dir + "/bin:" + filepath.Dir(binary) + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + os.TempDir(),
			"KANIKO_MULTIARCH_STATE_DIR=" + sharedState}
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
		}
		ran++
	}
	assert.Check(t, ran > 3, "%s has no blocks", document)
}

func TestDocs_guide(t *testing.T) {
	t.Parallel()
	docs(t, "guide.md", "FROM scratch\nCOPY Dockerfile /\n")
}

func TestDocs_troubleshooting(t *testing.T) {
	t.Parallel()
	docs(t, "troubleshooting.md", "FROM scratch\nCOPY Dockerfile /\n")
}
