package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/test/gitserver"
	"github.com/org/kaniko-multiarch/test/imagediff"
)

// ADD of a repository gives the files that BuildKit's git does.
func TestADD_git_equals_BuildKit(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry := service(t, "KMA_TEST_REGISTRY")
	service(t, "KMA_TEST_BUILDKIT")
	repositories, hashes := gitserver.Repositories(t)
	url := gitserver.Serve(t, repositories, "") + "/main.git"
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM scratch\nADD " + url + " /default\nADD --chown=3:4 --chmod=700 " + url + "#feature/x /branch/\n" +
		"ADD " + url + "#v1 /tag\nADD --checksum=" + hashes["first"] + " " + url + "#v1 /checked\nADD " + url + "#" + hashes["second"] + ":modules/sub /sub\n" +
		"ADD --link " + url + "?submodules=false /link\nADD --exclude=dir " + url + " /excluded\n"})
	ours, theirs := registry+"/git/files:ours", registry+"/git/files:theirs"
	ok(t, "build", "--context", dir, "--destination", ours, "--state-dir", t.TempDir(), "--platform", "linux/amd64")
	tool(t, "../oracle/build.sh", "--context", dir, "--destination", theirs, "--platform", "linux/amd64")
	differences, err := imagediff.Descriptors(descriptor(t, ours), descriptor(t, theirs), imagediff.Options{})
	assert.NilError(t, err)
	// BuildKit leaves a file in each submodule that names a directory of its own
	// machine.
	differences = slices.DeleteFunc(differences, func(d string) bool { return strings.HasSuffix(d, "/sub/.git: exists only in the second") })
	assert.Check(t, is.Len(differences, 0), strings.Join(differences, "\n"))
}

// A repository can be the context, and a named one; what is private wants a
// token.
func TestContext_git(t *testing.T) {
	t.Parallel()
	needRoot(t)
	repositories, _ := gitserver.Repositories(t)
	work := filepath.Join(repositories, "checkout", "main")
	for name, text := range map[string]string{
		"app/Dockerfile": "FROM scratch\nCOPY . /\nCOPY --from=other in/side /other\n", "app/.dockerignore": "skipped\n", "app/skipped": "", "app/kept": "kept",
		"Dockerfile": "FROM scratch\nCOPY . /\n",
	} {
		p := filepath.Join(work, name)
		assert.NilError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		assert.NilError(t, os.WriteFile(p, []byte(text), 0o644))
	}
	gitserver.Run(t, work, "add", ".")
	gitserver.Run(t, work, "commit", "-qm", "app")
	gitserver.Run(t, repositories, "clone", "-q", "--bare", "checkout/main", "app.git")
	url := gitserver.Serve(t, repositories, "letmein")
	build := func(t *testing.T, env []string, flags ...string) (result, []string) {
		t.Helper()
		out := filepath.Join(t.TempDir(), "out")
		r := runWith(t, env, append([]string{"build", "-o", out, "--state-dir", t.TempDir()}, flags...)...)
		if r.code != 0 {
			return r, nil
		}
		return r, listing(t, out, false)
	}
	token := []string{"--secret", "id=GIT_AUTH_TOKEN,env=TOKEN"}
	r, files := build(t, []string{"TOKEN=letmein"}, append(token, "--context", url+"/app.git#main:app", "--build-context", "other="+url+"/sub.git")...)
	assert.Equal(t, r.code, 0, r.stderr)
	all := strings.Join(files, "\n")
	assert.Check(t, is.Contains(all, "kept -rw-r--r--"))
	assert.Check(t, is.Contains(all, "other -rw-r--r--"))
	assert.Check(t, !strings.Contains(all, "skipped "), all)
	assert.Check(t, !strings.Contains(all, ".git "), all)

	r, files = build(t, []string{"GIT_TOKEN=letmein"}, "--context", url+"/app.git", "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1")
	assert.Equal(t, r.code, 0, r.stderr)
	assert.Check(t, is.Contains(strings.Join(files, "\n"), ".git/HEAD"))

	r, _ = build(t, nil, "--context", url+"/app.git")
	assert.Check(t, is.Equal(r.code, 4), r.stderr)
	assert.Check(t, is.Contains(r.stderr, "GIT_AUTH_TOKEN"))
	r, _ = build(t, []string{"TOKEN=letmein"}, append(token, "--context", url+"/app.git#nope")...)
	assert.Check(t, is.Equal(r.code, 3), r.stderr)
	assert.Check(t, !strings.Contains(r.stderr, "letmein"))
}

// An image in an OCI layout is a base and a source of files, in the digest of
// another build's registry image.
func TestContext_oci_layout(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	layout := filepath.Join(t.TempDir(), "layout")
	base := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nCOPY Dockerfile /from-base\nENV A=b\n"})
	ok(t, "build", "--context", base, "--platform", "linux/amd64,linux/arm64", "--state-dir", t.TempDir(), "-o", "type=oci,tar=false,dest="+layout+",name=example.com/base:1")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM base\nCOPY --from=files /from-base /copied\nRUN [ $A = b ] && cat /copied\n"})
	name := registry + "/layout/app:1"
	ok(t, "build", "--context", dir, "--platform", "linux/amd64", "--state-dir", t.TempDir(), "--destination", name,
		"--build-context", "base=oci-layout://"+layout+":1", "--build-context", "files=oci-layout://"+layout)
	img, err := descriptor(t, name).Image()
	assert.NilError(t, err)
	assert.Check(t, is.Equal(fileOf(t, img, "copied"), fileOf(t, img, "from-base")))
	r := run(t, "build", "--context", dir, "--no-push", "--state-dir", t.TempDir(), "--build-context", "base=oci-layout://"+layout+":2", "--build-context", "files=scratch")
	assert.Check(t, is.Equal(r.code, 3), r.stderr)
	assert.Check(t, is.Contains(r.stderr, `tag "2"`))
}
