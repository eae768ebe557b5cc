package e2e

import (
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// A build shows what the checks find, on GitHub at the line too, and fails of it
// when the Dockerfile says so.
func TestCheck_in_a_build(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM scratch\nMAINTAINER me\nCOPY Dockerfile /x\n"})
	r := runWith(t, []string{"GITHUB_ACTIONS=true", "GITHUB_WORKSPACE=" + dir}, "build", "--context", dir, "--no-push", "--state-dir", t.TempDir(),
		"--platform", "linux/amd64,linux/arm64", "--dockerfile", dir+"/Dockerfile")
	assert.Equal(t, r.code, 0, r.stderr)
	assert.Check(t, is.Contains(r.stderr, "Dockerfile:2: MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (https://"))
	assert.Check(t, is.Contains(r.stderr, "::warning file=Dockerfile,line=2,title=MaintainerDeprecated::Maintainer instruction is deprecated"))

	for _, strict := range [][]string{{"--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true"}, {"--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all;error=true"}} {
		r = run(t, append([]string{"build", "--context", dir, "--no-push", "--state-dir", t.TempDir()}, strict...)...)
		want := 3
		if strict[1] == "BUILDKIT_DOCKERFILE_CHECK=skip=all;error=true" {
			want = 0
		}
		assert.Check(t, is.Equal(r.code, want), r.stderr)
		if want == 3 {
			assert.Check(t, is.Contains(r.stderr, "MaintainerDeprecated: "))
			assert.Check(t, is.Contains(r.stderr, "lint violation found for rules: MaintainerDeprecated"))
		}
	}
}
