package e2e

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/golden"
)

// entry is an input of one of our entries.
type entry struct {
	Default  any
	Required bool
}

// inputsOf reads the map of inputs or outputs at a path in the first document of
// a file.
func inputsOf(t *testing.T, file string, path ...string) map[string]entry {
	t.Helper()
	data, err := os.ReadFile(root + "/" + file)
	assert.NilError(t, err)
	var doc yaml.Node
	assert.NilError(t, yaml.NewDecoder(strings.NewReader(string(data))).Decode(&doc))
	at := doc.Content[0]
	for _, key := range path {
		i := slices.IndexFunc(at.Content, func(n *yaml.Node) bool { return n.Value == key })
		assert.Assert(t, i >= 0, "%s: no %s", file, key)
		at = at.Content[i+1]
	}
	out := map[string]entry{}
	assert.NilError(t, at.Decode(&out))
	return out
}

// The table of all inputs is made of the files: `go test ./test/e2e -run
// TestDocs_inputs -update` writes it.
func TestDocs_inputs(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("# Every input\n\nMade of the files by a test. A cell has the default; \"yes\" is an input without one. " +
		"One name is one thing everywhere.\n\nJenkins' steps take the same names in camel case, and every flag of the program.\n\n" +
		"## Inputs\n\n")
	entries := []struct {
		title string
		all   map[string]entry
	}{
		{"build", inputsOf(t, "action.yml", "inputs")},
		{"matrix", inputsOf(t, "matrix/action.yml", "inputs")},
		{"merge", inputsOf(t, "merge/action.yml", "inputs")},
		{"setup", inputsOf(t, "setup/action.yml", "inputs")},
		{"workflow", inputsOf(t, ".github/workflows/multiarch.yml", "on", "workflow_call", "inputs")},
		{"its secrets", inputsOf(t, ".github/workflows/multiarch.yml", "on", "workflow_call", "secrets")},
		{"GitLab", inputsOf(t, "gitlab/multiarch.yml", "spec", "inputs")},
		{"GitLab child", inputsOf(t, "gitlab/multiarch-child.yml", "spec", "inputs")},
	}
	names := map[string]bool{}
	head, line := "| input |", "| --- |"
	for _, e := range entries {
		head, line = head+" "+e.title+" |", line+" --- |"
		for name := range e.all {
			names[name] = true
		}
	}
	b.WriteString(head + "\n" + line + "\n")
	for _, name := range slices.Sorted(maps.Keys(names)) {
		fmt.Fprintf(&b, "| `%s` |", name)
		for _, e := range entries {
			in, ok := e.all[name]
			b.WriteString(cell(in, ok) + " |")
		}
		b.WriteString("\n")
	}
	b.WriteString("\n## Outputs\n\n")
	for _, e := range []struct {
		title string
		all   map[string]entry
	}{
		{"build", inputsOf(t, "action.yml", "outputs")},
		{"matrix", inputsOf(t, "matrix/action.yml", "outputs")},
		{"merge", inputsOf(t, "merge/action.yml", "outputs")},
		{"setup", inputsOf(t, "setup/action.yml", "outputs")},
		{"workflow", inputsOf(t, ".github/workflows/multiarch.yml", "on", "workflow_call", "outputs")},
	} {
		fmt.Fprintf(&b, "- %s: `%s`\n", e.title, strings.Join(slices.Sorted(maps.Keys(e.all)), "`, `"))
	}
	b.WriteString("- GitLab, as variables: `IMAGE_DIGEST`, `IMAGE_PLATFORMS`, `IMAGE_REF`, `IMAGE_TAGS`\n" +
		"- Jenkins, as a map: `digest`, `image`, `images`, `platforms`, `published`, `tags`\n")
	golden.Assert(t, b.String(), absolute(t, root+"/docs/inputs.md"))
}

func cell(in entry, ok bool) string {
	switch v := in.Default.(type) {
	case nil:
	case string:
		if v != "" {
			return " `" + strings.ReplaceAll(strings.Join(strings.Fields(v), " "), "|", `\|`) + "`"
		}
	case []any:
		if len(v) > 0 {
			if _, ok := v[0].(map[string]any); ok {
				return " yes"
			}
		}
		return fmt.Sprintf(" `%v`", v)
	default:
		return fmt.Sprintf(" `%v`", v)
	}
	if !ok {
		return ""
	}
	if in.Required {
		return " required"
	}
	return " yes"
}

// What the documents say of GitLab's inputs and Jenkins' keys is what there is.
func TestDocs_tables_are_complete(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(root + "/docs/gitlab.md")
	assert.NilError(t, err)
	table, _, _ := strings.Cut(string(text[strings.Index(string(text), "## Inputs"):]), "\n\nAll other")
	for name := range inputsOf(t, "gitlab/multiarch.yml", "spec", "inputs") {
		assert.Check(t, is.Contains(table, "`"+name+"`"))
	}
	keys, err := os.ReadFile(root + "/docs/jenkins.md")
	assert.NilError(t, err)
	help, err := os.ReadFile(root + "/jenkins/vars/kanikoMultiarch.txt")
	assert.NilError(t, err)
	step, err := os.ReadFile(root + "/jenkins/vars/kanikoMultiarch.groovy")
	assert.NilError(t, err)
	for _, m := range regexp.MustCompile(`config\??\.([a-zA-Z]+)`).FindAllStringSubmatch(string(step), -1) {
		if name := m[1]; name != "findAll" {
			assert.Check(t, is.Contains(string(keys), "`"+name+"`"))
			assert.Check(t, is.Contains(string(help), name))
		}
	}
}

// The workflows of the documents pass the linter, with the inputs of our actions.
func TestDocs_workflows_lint(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(root + "/docs/github.md")
	assert.NilError(t, err)
	blocks := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```").FindAllStringSubmatch(string(text), -1)
	linted := 0
	for _, m := range blocks {
		jobs, isWorkflow := strings.CutPrefix(m[1], "jobs:")
		if !isWorkflow {
			continue // steps, whose job is said in words
		}
		linted++
		workflow := strings.ReplaceAll(ownActions("on: push\njobs:"+jobs), "org/kaniko-multiarch/.github/workflows/multiarch.yml@v1", "./.github/workflows/multiarch.yml")
		assert.Check(t, is.DeepEqual(lint(t, "docs.yml", workflow), []string(nil)))
	}
	assert.Check(t, linted > 0)
}

// The README shows what the documents show, which other tests run.
func TestReadme_examples_are_those_of_the_documents(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ document, language, has string }{
		{"gitlab.md", "yaml", "include:"},
		{"jenkins.md", "groovy", "kanikoMultiarch("},
	} {
		readme := yamlBlock(t, root+"/README.md", tc.language, tc.has)
		assert.Check(t, strings.HasPrefix(yamlBlock(t, root+"/docs/"+tc.document, tc.language, tc.has), readme), readme)
		assert.Check(t, strings.Count(readme, "\n") <= 8)
	}
}

// Links between the documents lead somewhere.
func TestDocs_links(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir(root + "/docs")
	assert.NilError(t, err)
	pages := []string{"README.md"}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".md") {
			pages = append(pages, "docs/"+f.Name())
		}
	}
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	for _, page := range pages {
		text, err := os.ReadFile(root + "/" + page)
		assert.NilError(t, err)
		for _, m := range regexp.MustCompile(`\]\(([^):]+)\)`).FindAllStringSubmatch(string(text), -1) {
			path, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if path != "" {
				target = "docs/" + path
				if page == "README.md" {
					target = path
				}
			}
			linked, err := os.ReadFile(root + "/" + target)
			if info, statErr := os.Stat(root + "/" + target); statErr == nil && info.IsDir() {
				continue
			}
			assert.Check(t, err, "%s: %s", page, m[0])
			if anchor == "" {
				continue
			}
			found := false
			for _, h := range heading.FindAllStringSubmatch(string(linked), -1) {
				slug := strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-")
				found = found || slug == anchor
			}
			assert.Check(t, found, "%s: %s: no such heading", page, m[0])
		}
	}
}
