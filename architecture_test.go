package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

const module = "github.com/org/kaniko-multiarch"

// owners are the packages that may import what begins so. No type of a large
// library is seen outside its own room.
func owners() map[string][]string {
	return map[string][]string{
		"k8s.io/":      {"/internal/driver/kubernetes"},
		"sigs.k8s.io/": {"/internal/driver/kubernetes"},
		"github.com/google/go-containerregistry/": {"/internal/registry"},
		"github.com/aws/":                         {"/internal/registry"},
		"github.com/moby/buildkit/frontend/":      {"/internal/frontend"},
		// One shows vertices as BuildKit's client does.
		"github.com/moby/buildkit/":            {"/internal/frontend", "/internal/progress"},
		"github.com/alecthomas/kong":           {"/internal/cli"},
		module + "/internal/cli":               {""},
		module + "/internal/driver/kubernetes": {"/internal/cli"},
	}
}

// strangers are what a package must not link, by itself or through others.
func strangers() map[string][]string {
	ours := []string{module + "/"}
	runtime := []string{"github.com/moby/buildkit/", "k8s.io/", module + "/internal/engine", module + "/internal/sandbox", module + "/internal/rootfs"}
	return map[string][]string{
		"/internal/build":        ours,
		"/internal/graph":        ours,
		"/internal/platform":     ours,
		"/internal/record":       ours,
		"/internal/registry":     runtime,
		"/internal/job":          {"k8s.io/"},
		"/internal/driver/local": {"k8s.io/"},
		"/matrix":                append(runtime, module+"/internal/registry"),
		"/merge":                 append(runtime, module+"/internal/frontend", module+"/internal/build"),
	}
}

func TestArchitecture(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}};{{join .Imports ","}};{{join .Deps ","}}`, "./...").Output()
	assert.NilError(t, err)
	found := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimSpace(line), ";")
		name := strings.TrimPrefix(fields[0], module)
		found[name] = true
		if strings.HasPrefix(name, "/test/") {
			continue
		}
		for _, imported := range strings.Split(fields[1], ",") {
			for prefix, by := range owners() {
				assert.Check(t, !strings.HasPrefix(imported, prefix) || slices.Contains(by, name), "%s imports %s", fields[0], imported)
			}
		}
		for _, dep := range strings.Split(fields[2], ",") {
			for _, prefix := range strangers()[name] {
				assert.Check(t, !strings.HasPrefix(dep, prefix), "%s links %s", fields[0], dep)
			}
		}
	}
	for name := range strangers() {
		assert.Check(t, found[name], "there is no package %s", name)
	}
	for _, by := range owners() {
		for _, name := range by {
			assert.Check(t, found[name], "there is no package %s", name)
		}
	}
}
