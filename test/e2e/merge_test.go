package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// mergeReport is what merge prints.
type mergeReport struct {
	Digest    string
	Published bool
	Platforms []string
	Unchanged []string
	Images    []struct{ Digest, Source, CopiedFrom string }
}

func merged(t *testing.T, args ...string) mergeReport {
	t.Helper()
	var r mergeReport
	assert.NilError(t, json.Unmarshal([]byte(ok(t, append([]string{"merge"}, args...)...)), &r))
	return r
}

// What buildx, crane and docker made before is a source, too; a tool that is not
// ours reads the result back, with all its blobs.
func TestMerge_from_existing_images(t *testing.T) {
	t.Parallel()
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	name := registry + "/merge/debian"
	source := bases + "/debian:12"

	// A copy has the digest of its source, and goes to several repositories.
	first := merged(t, "--from", source, "--destination", name+":copy,"+registry+"/merge/other:copy")
	assert.Check(t, is.Equal(first.Digest, descriptor(t, source).Digest.String()))
	assert.Check(t, is.Equal(descriptor(t, registry+"/merge/other:copy").Digest.String(), first.Digest))
	pull(t, registry+"/merge/other:copy")
	again := merged(t, "--from", source, "--destination", name+":copy", "--immutable-tags", "true")
	assert.Check(t, is.DeepEqual(again.Unchanged, []string{name + ":copy"}))

	// From Docker's list to an OCI index, with annotations.
	tool(t, "skopeo", "copy", "--all", "--format", "v2s2", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+source, "docker://"+name+":docker")
	assert.Check(t, is.Contains(rawIndex(t, name+":docker").MediaType, "docker"))
	oci := merged(t, "--from", name+":docker", "--destination", name+":oci", "--oci-mode", "oci", "--annotation", "a=100% <b>")
	got := rawIndex(t, name+":oci")
	assert.Check(t, is.Equal(got.MediaType, "application/vnd.oci.image.index.v1+json"))
	assert.Check(t, is.Equal(got.Annotations["a"], "100% <b>"))
	assert.Check(t, is.Len(got.Manifests, len(oci.Platforms)))
	for _, img := range oci.Images {
		assert.Check(t, img.Digest != img.Source)
	}
	pull(t, name+":oci")

	// One platform alone, then the other beside it, then the first gone.
	merged(t, "--from", source, "--platform", "linux/amd64", "--destination", name+":grown")
	assert.Check(t, is.Len(rawIndex(t, name+":grown").Manifests, 1))
	grown := merged(t, "--append", "--from", "linux/arm64="+source, "--destination", name+":grown", "--platform", "linux/amd64,linux/arm64")
	assert.Check(t, is.DeepEqual(grown.Platforms, []string{"linux/amd64", "linux/arm64"}))
	shrunk := merged(t, "--append", "--remove", "linux/amd64", "--destination", name+":grown")
	assert.Check(t, is.DeepEqual(shrunk.Platforms, []string{"linux/arm64"}))
	r := run(t, "merge", "--from", source, "--destination", name+":new,"+name+":grown", "--immutable-tags", "*")
	assert.Check(t, is.Equal(r.code, 7))
	assert.Check(t, is.Contains(r.stderr, name+":grown names "))
	r = run(t, "merge", "--from", name+":new", "--destination", name+":x", "--push-retry", "0")
	assert.Check(t, is.Equal(r.code, 7), "the guard published half of it: %s", r.stderr)

	layout := filepath.Join(t.TempDir(), "layout")
	written := merged(t, "--from", source, "--destination", name+":copy", "--oci-layout", layout)
	assert.Check(t, is.Equal(written.Digest, first.Digest))
	tool(t, "skopeo", "copy", "--all", "oci:"+layout+":copy", "dir:"+t.TempDir())
}

// pull reads an index with everything below it.
func pull(t *testing.T, ref string) {
	t.Helper()
	dir := t.TempDir()
	tool(t, "skopeo", "copy", "--all", "--src-tls-verify=false", "docker://"+ref, "dir:"+dir)
	files, err := os.ReadDir(dir)
	assert.NilError(t, err)
	assert.Check(t, len(files) > 4, "only %d files came", len(files))
}

// The child pipeline of GitLab is run as its runner would: every script in a
// shell, the records handed over in a directory.
func TestMatrix_child_pipeline_runs(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry := service(t, "KMA_TEST_REGISTRY")
	image := registry + "/merge/pipeline"
	dir := contextDir(t, map[string]string{"it's/Dockerfile": "FROM scratch\nARG A\nLABEL a=$A\nCOPY Dockerfile /\n"})
	out := ok(t, "matrix", "--format", "gitlab", "--platform", "linux/amd64,linux/s390x", "--destination", image+":{V}", "--context", filepath.Join(dir, "it's"),
		"--dimension", "V=1,2", "--build-arg", `A=$x 'y' % "z" \ {V}`, "--exclude", "V=1,platform=linux/s390x")
	work, bin := t.TempDir(), t.TempDir()
	assert.NilError(t, os.Symlink(binary, filepath.Join(bin, "kaniko-multiarch")))
	all := scripts(t, out)
	// No step runs, so both platforms of the second image share a job.
	assert.Assert(t, is.Len(all, 4))
	for _, script := range all {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
		cmd.Dir = work
		cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + work, "KANIKO_MULTIARCH_PROGRESS=plain"}
		text, err := cmd.CombinedOutput()
		assert.NilError(t, err, "%s\n%s", script, text)
	}
	assert.Check(t, is.Len(rawIndex(t, image+":1").Manifests, 1))
	assert.Check(t, is.Len(rawIndex(t, image+":2").Manifests, 2))
	labels := tool(t, "skopeo", "inspect", "--config", "--tls-verify=false", "--override-arch=s390x", "docker://"+image+":2")
	assert.Check(t, is.Contains(labels, `"a": "$x 'y' % \"z\" \\ 2"`))
	env, err := os.ReadFile(filepath.Join(work, "merge.env"))
	assert.NilError(t, err)
	assert.Check(t, is.Contains(string(env), "IMAGE_TAGS="+image+":2\n"))
}

func scripts(t *testing.T, pipeline string) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(pipeline) {
		text, ok := strings.CutPrefix(strings.TrimSpace(line), `- "kaniko-multiarch`)
		if !ok {
			continue
		}
		var script string
		assert.NilError(t, json.Unmarshal([]byte(`"kaniko-multiarch`+text), &script))
		out = append(out, script)
	}
	return out
}
