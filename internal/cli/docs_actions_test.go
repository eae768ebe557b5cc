package cli

import (
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// action is what an action.yml says.
type action struct {
	Inputs map[string]struct {
		Description string
		Default     string
	}
	Outputs map[string]struct{ Description string }
	Runs    struct {
		Using, Image, Entrypoint string
		Args                     []string
	}
}

func readAction(t *testing.T, name string) action {
	t.Helper()
	data, err := os.ReadFile(name)
	assert.NilError(t, err)
	var a action
	assert.NilError(t, yaml.Unmarshal(data, &a))
	return a
}

// Every input of an action is one that its command reads, and what the command
// reads is an input, or listed here with the reason.
func TestActions_inputs(t *testing.T) {
	t.Parallel()
	// Those that no flag reads.
	special := []string{"row", "registry-auth", "github-token"}
	// Flags of every command about registries that hosted runners need not have:
	// each is a variable, too.
	rare := []string{
		"insecure-registry", "insecure", "insecure-pull", "skip-tls-verify-registry", "skip-tls-verify", "skip-tls-verify-pull",
		"registry-mirror", "registry-map", "skip-default-registry-fallback", "registry-certificate", "registry-client-cert",
		"credential-helpers", "push-retry", "push-retry-initial-delay", "push-retry-max-delay",
	}
	// Nor is a cluster the runner's.
	rare = append(rare, kubernetesNames()...)
	for _, tc := range []struct {
		file, command string
		special, no   []string
	}{
		{"../../action.yml", "build", append(special, "command"), []string{
			// Another input says it, or it has no meaning in an action.
			"no-push", "context-sub-path", "git", "oci-mode", "cache-ttl", "no-push-cache", "oci-layout-path", "tar-path",
			"push-ignore-immutable-tag-errors", "skip-push-permission-check", "image-name-with-digest-file", "image-name-tag-with-digest-file",
			"digest-file", "metadata-file", "state-dir", "state-size", "isolation", "force", "parallel", "profile", "check",
		}},
		{"../../matrix/action.yml", "matrix", special[1:], []string{"format", "job-image", "verbose", "build-context"}},
		{"../../merge/action.yml", "merge", special, []string{"dotenv", "push-ignore-immutable-tag-errors", "verbose"}},
	} {
		t.Run(tc.command, func(t *testing.T) {
			t.Parallel()
			a := readAction(t, tc.file)
			named := slices.Clone(tc.special)
			for _, flag := range flagsOf(t, tc.command) {
				var found []string
				for _, name := range spellings(flag.Name) {
					if in, ok := a.Inputs[name]; ok {
						assert.Check(t, in.Description != "", name)
						found = append(found, name)
					}
				}
				named = append(named, found...)
				left := flag.Name == "help" || slices.Contains(rare, flag.Name) || slices.Contains(tc.no, flag.Name)
				switch {
				case left:
					assert.Check(t, is.Len(found, 0), "%s is listed as one that is no input", flag.Name)
				default:
					assert.Check(t, is.Len(found, 1), "--%s: one input for each flag", flag.Name)
				}
			}
			for name := range a.Inputs {
				assert.Check(t, slices.Contains(named, name), "no flag reads the input %s", name)
			}
			assert.Check(t, is.Equal(a.Runs.Using, "docker"))
			assert.Check(t, is.Equal(a.Runs.Entrypoint, "/kaniko/kaniko-multiarch"))
			assert.Check(t, is.Equal(a.Runs.Args[0], actionName))
			assert.Check(t, strings.HasSuffix(a.Runs.Image, "Dockerfile") || strings.Contains(a.Runs.Image, "@sha256:"), a.Runs.Image)
		})
	}
}

// documented is what a table of the documents lists: a name, its default (where
// the thing has one) and what it is.
type documented struct{ name, byDefault, about string }

// The tables of docs/github.md are what the actions and the workflow say, name
// for name.
func TestDocs_github_tables(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/github.md")
	assert.NilError(t, err)
	for heading, file := range map[string]string{
		"Build": "../../action.yml", "Matrix": "../../matrix/action.yml", "Merge": "../../merge/action.yml", "Setup": "../../setup/action.yml",
	} {
		a := readAction(t, file)
		var inputs, outputs []documented
		for name, in := range a.Inputs {
			inputs = append(inputs, documented{name, in.Default, in.Description})
		}
		for name, out := range a.Outputs {
			outputs = append(outputs, documented{name, "", out.Description})
		}
		checkTable(t, string(text), heading, "input", inputs)
		checkTable(t, string(text), heading, "output", outputs)
	}
	data, err := os.ReadFile("../../.github/workflows/multiarch.yml")
	assert.NilError(t, err)
	type described struct {
		Default, Description string
	}
	var workflow struct {
		On struct {
			Call struct {
				Inputs, Secrets, Outputs map[string]described
			} `yaml:"workflow_call"`
		}
	}
	assert.NilError(t, yaml.Unmarshal(data, &workflow))
	for kind, all := range map[string]map[string]described{
		"input": workflow.On.Call.Inputs, "secret": workflow.On.Call.Secrets, "output": workflow.On.Call.Outputs,
	} {
		var rows []documented
		for name, d := range all {
			rows = append(rows, documented{name, d.Default, d.Description})
		}
		checkTable(t, string(text), "Reusable workflow", kind, rows)
	}
}

func checkTable(t *testing.T, text, heading, kind string, want []documented) {
	t.Helper()
	_, section, ok := strings.Cut(text, "\n### "+heading+"\n")
	assert.Assert(t, ok, heading)
	section, _, _ = strings.Cut(section, "\n### ")
	_, table, ok := strings.Cut(section, "| "+kind+" |")
	assert.Assert(t, ok, "%s has no table of %ss", heading, kind)
	table, _, _ = strings.Cut(table, "\n\n")
	rows := strings.Split(strings.TrimSpace(table), "\n")[2:]
	var lines []string
	for _, d := range want {
		line := "| `" + d.name + "` | "
		if kind == "input" {
			if d.byDefault != "" {
				line += "`" + d.byDefault + "`"
			}
			line += " | "
		}
		lines = append(lines, line+strings.ReplaceAll(d.about, "|", `\|`)+" |")
	}
	slices.Sort(rows)
	slices.Sort(lines)
	assert.Check(t, is.DeepEqual(rows, lines), heading+" "+kind)
}
