package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rhysd/actionlint"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

const root = "../.."

// readmeWorkflow is the README's example for GitHub.
func readmeWorkflow(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(root + "/README.md")
	assert.NilError(t, err)
	_, rest, ok := strings.Cut(string(data), "GitHub Actions:\n\n```yaml\n")
	assert.Assert(t, ok, "the README has no example for GitHub")
	text, _, ok := strings.Cut(rest, "```")
	assert.Assert(t, ok)
	return text
}

// ownActions makes the published names of our actions paths in the tree, so that
// their inputs and outputs are checked, too.
func ownActions(text string) string {
	for _, dir := range []string{"/matrix", "/merge", "/setup", ""} {
		text = strings.ReplaceAll(text, "uses: org/kaniko-multiarch"+dir+"@v1\n", "uses: ."+dir+"/\n")
	}
	return text
}

func lint(t *testing.T, name, text string) []string {
	t.Helper()
	var out bytes.Buffer
	l, err := actionlint.NewLinter(&out, &actionlint.LinterOptions{})
	assert.NilError(t, err)
	dir, err := filepath.Abs(root)
	assert.NilError(t, err)
	project, err := actionlint.NewProjects().At(filepath.Join(dir, "README.md"))
	assert.NilError(t, err)
	assert.Assert(t, project != nil, "the tree is no repository with workflows")
	found, err := l.Lint(filepath.Join(dir, ".github", "workflows", name), []byte(text), project)
	assert.NilError(t, err)
	var list []string
	for _, e := range found {
		// An entrypoint is a path in the image, which the linter looks for here.
		if strings.Contains(e.Message, `"/kaniko/kaniko-multiarch" does not exist`) {
			continue
		}
		list = append(list, e.Error())
	}
	return list
}

func TestWorkflows_lint(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(root + "/.github/workflows/*.yml")
	assert.NilError(t, err)
	assert.Assert(t, len(files) > 0)
	texts := map[string]string{"readme.yml": readmeWorkflow(t)}
	for _, name := range files {
		data, err := os.ReadFile(name)
		assert.NilError(t, err)
		texts[filepath.Base(name)] = string(data)
	}
	for name, text := range texts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Check(t, is.DeepEqual(lint(t, name, ownActions(text)), []string(nil)))
		})
	}
	// The linter must look into our actions.
	wrong := strings.Replace(ownActions(readmeWorkflow(t)), "handover:", "hand-over:", 1)
	assert.Check(t, is.Contains(strings.Join(lint(t, "readme.yml", wrong), "\n"), "hand-over"))
}

func TestReadme_workflow_is_short(t *testing.T) {
	t.Parallel()
	lines := strings.Count(readmeWorkflow(t), "\n")
	assert.Check(t, lines <= 25, "%d lines", lines)
}
