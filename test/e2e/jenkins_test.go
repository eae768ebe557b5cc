package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/test/gitserver"
)

// javaHome is a Java that Debian's Groovy runs with. Its own choice need not be
// installed.
func javaHome(t *testing.T) string {
	t.Helper()
	for _, pattern := range []string{"/usr/lib/jvm/default-java", "/usr/lib/jvm/java-1[0-9]-openjdk-*", "/usr/lib/jvm/java-1.*-openjdk-*"} {
		found, err := filepath.Glob(pattern + "/bin/java")
		assert.NilError(t, err)
		if len(found) > 0 {
			return filepath.Dir(filepath.Dir(found[0]))
		}
	}
	t.Skip("no Java for Groovy in /usr/lib/jvm: apt-get install default-jre-headless groovy")
	return ""
}

// jenkins runs a Jenkinsfile with our library on files. It returns what was
// called, a line a step.
func jenkins(t *testing.T, jenkinsfile string, files map[string]string, env ...string) (string, error) {
	t.Helper()
	groovy, err := exec.LookPath("groovy")
	if err != nil {
		t.Skip("groovy is not installed: apt-get install default-jre-headless groovy")
	}
	home := javaHome(t)
	repository, work := contextDir(t, files), t.TempDir()
	gitserver.Run(t, repository, "init", "-q")
	gitserver.Run(t, repository, "add", ".")
	gitserver.Run(t, repository, "commit", "-qm", "one")
	script := filepath.Join(work, "Jenkinsfile")
	assert.NilError(t, os.WriteFile(script, []byte(jenkinsfile), 0o644))
	cmd := exec.CommandContext(t.Context(), groovy, "-cp", "../jenkins", "../jenkins/run.groovy", "../../jenkins", script, repository, work)
	cmd.Env = []string{"PATH=" + filepath.Dir(binary) + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "JAVA_HOME=" + home,
		"KANIKO_MULTIARCH_STATE_DIR=" + sharedState}
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Logf("%.3000s", out)
	}
	log, _ := os.ReadFile(filepath.Join(work, "log"))
	return string(log), err
}

// moving is a repository to which somebody pushes between checkouts.
const moving = "KMA_TEST_MOVING=yes"

func linesOf(log, prefix string) []string {
	var out []string
	for line := range strings.Lines(log) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), prefix+" "); ok {
			out = append(out, rest)
		}
	}
	return out
}

// The Jenkinsfile of the documents, as printed.
func TestJenkins_multiarch(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	platforms(t)
	pipeline := yamlBlock(t, "../../docs/jenkins.md", "groovy", "kanikoMultiarch(")
	assert.Check(t, strings.Count(pipeline, "\n") <= 8, "more than 8 lines:\n%s", pipeline)
	image := registry + "/jenkins/app"
	pipeline = strings.ReplaceAll(pipeline, "registry.example.com/acme/app", image)
	log, err := jenkins(t, pipeline, map[string]string{"Dockerfile": "FROM " + bases + archDockerfile}, moving)
	assert.NilError(t, err, log)

	assert.Check(t, is.Len(rawIndex(t, image+":1.0").Manifests, 2))
	digest := descriptor(t, image+":1.0").Digest.String()
	assert.Check(t, is.DeepEqual(linesOf(log, "echo"), []string{"published " + image + "@" + digest}))
	assert.Check(t, is.DeepEqual(linesOf(log, "node"), []string{"amd64", "amd64", "arm64", "amd64"}))
	commits := linesOf(log, "checkout")
	assert.Assert(t, is.Len(commits, 3))
	assert.Check(t, commits[0] == commits[1] && commits[1] == commits[2], "branches had other commits: %v", commits)
	env := strings.Join(linesOf(log, "env"), "\n")
	assert.Check(t, is.Equal(strings.Count(env, "GIT_COMMIT="+commits[0]), 3), env)
	stashes := linesOf(log, "stash")
	assert.Assert(t, is.Len(stashes, 2))
	assert.Check(t, stashes[0] != stashes[1])
	host := regexp.MustCompile(`[^A-Z0-9]`).ReplaceAllString(strings.ToUpper(registry), "_")
	for _, c := range linesOf(log, "credentials") {
		assert.Check(t, is.Equal(c, "registry KANIKO_"+host+"_USER KANIKO_"+host+"_PASSWORD"))
	}
	assert.Check(t, !strings.Contains(log, "sh kaniko-multiarch build --password"))
}

// The parts, one by one, as in the documents.
func TestJenkins_parts(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	platforms(t)
	pipeline := yamlBlock(t, "../../docs/jenkins.md", "groovy", "kanikoMerge(")
	image := registry + "/jenkins/parts"
	pipeline = strings.ReplaceAll(pipeline, "registry.example.com/acme/app", image)
	files := map[string]string{"Dockerfile": "FROM " + bases + archDockerfile}
	// Two commits do not make one image.
	log, err := jenkins(t, pipeline, files, moving)
	assert.Check(t, err != nil, log)
	assert.Check(t, is.Len(linesOf(log, "stash"), 2))
	log, err = jenkins(t, pipeline, files)
	assert.NilError(t, err, log)
	assert.Check(t, is.Len(rawIndex(t, image+":1.0").Manifests, 2))
}

// Several images, odd values, pods, and steps that are used one by one.
func TestJenkins_keys(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	image := registry + "/jenkins/keys"
	pipeline := `
def all = kanikoMultiarch(
  builds: '[{context: one, tags: IMAGE/one:1}, {context: two, tags: "IMAGE/two:1,IMAGE/two:2"}]',
  platforms: 'x86_64', kubernetes: true, jobImage: 'example.com/kaniko:debug',
  buildArgs: [A: "it's \$HOME; \"two\"", 'B': "${1 + 1}"], labels: ['a=b', 'c=d'],
  annotations: ['org.opencontainers.image.title': 'a title'], push: true,
)
echo "images ${all.images.size()} ${all.tags} ${all.images[1].tags}"
node('by hand') {
  checkout scm
  def built = kanikoBuild(tags: 'IMAGE/hand:1', platform: 'linux/amd64', context: 'one', buildArgs: ['A=x', 'B=2'], credentials: ['quay.io': 'quay'])
  def merged = kanikoMerge(tags: 'IMAGE/hand:1', platforms: ['linux/amd64'], stashes: [built.stash])
  echo "hand ${built.digest} ${merged.image}"
}
`
	one := "FROM " + bases + "/busybox:1\nARG A B\nRUN test \"$B\" = 2 && printf %s \"$A\" > /a\n"
	log, err := jenkins(t, strings.ReplaceAll(pipeline, "IMAGE", image), map[string]string{"one/Dockerfile": one, "two/Dockerfile": one})
	assert.NilError(t, err, log)
	echo := linesOf(log, "echo")
	assert.Assert(t, is.Len(echo, 2), log)
	assert.Check(t, is.Equal(echo[0], "images 2 ["+image+"/one:1] ["+image+"/two:1, "+image+"/two:2]"))
	assert.Check(t, is.Equal(echo[1], "hand "+rawIndex(t, image+"/hand:1").Manifests[0].Digest+" "+image+"/hand@"+descriptor(t, image+"/hand:1").Digest.String()))
	assert.Check(t, is.Equal(rawIndex(t, image+"/two:2").Annotations["org.opencontainers.image.title"], "a title"))
	config := tool(t, "skopeo", "inspect", "--config", "--tls-verify=false", "docker://"+image+"/one:1")
	for _, want := range []string{`"a": "b"`, `"c": "d"`, `it's $HOME; \"two\"`} {
		assert.Check(t, is.Contains(config, want))
	}
	pods := linesOf(log, "pod")
	assert.Assert(t, is.Len(pods, 4))
	assert.Check(t, !strings.Contains(pods[0], "kubernetes.io/arch"), pods[0])
	assert.Check(t, is.Contains(pods[1], "kubernetes.io/os: linux kubernetes.io/arch: amd64"))
	assert.Check(t, is.Contains(pods[1], "image: example.com/kaniko:debug"))
	assert.Check(t, is.Contains(strings.Join(linesOf(log, "credentials"), "\n"), "quay KANIKO_QUAY_IO_USER"))
}

// What fails on an agent fails the pipeline, and nothing is published.
func TestJenkins_failure(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	image := registry + "/jenkins/failure:1"
	log, err := jenkins(t, "kanikoMultiarch(tags: '"+image+"', platforms: 'linux/amd64')", map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nRUN false\n"})
	assert.Check(t, err != nil, log)
	assert.Check(t, is.Len(linesOf(log, "stash"), 0))
	log, err = jenkins(t, "kanikoMultiarch(tags: '"+image+"', platforms: 'linux/amd64', noSuchFlag: 1)", map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\n"})
	assert.Check(t, err != nil, log)
}

// Jenkins interrupts and saves scripts between steps. What takes a closure or
// an iterator to do must not be there, but in methods that it runs in one go.
func TestJenkins_CPS(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../jenkins/vars/*.groovy")
	assert.NilError(t, err)
	assert.Assert(t, len(files) >= 5)
	method := regexp.MustCompile(`(?ms)^(@NonCPS\n)?(?:private )?\w+ \w+\([^\n]*\) \{\n.*?^\}`)
	unsafe := regexp.MustCompile(`\.(each|collect|find|findAll|any|every|sort|inject|eachWithIndex)\b *[({]|=~|JsonSlurper|for \(\w+ *:`)
	step := regexp.MustCompile(`\b(sh|node|dir|stash|unstash|parallel|checkout|container|podTemplate|withCredentials|kaniko[A-Z]\w*)\(`)
	for _, name := range files {
		text, err := os.ReadFile(name)
		assert.NilError(t, err)
		found := method.FindAllSubmatch(text, -1)
		assert.Check(t, len(found) > 0, name)
		for _, m := range found {
			if body := string(m[0]); len(m[1]) > 0 {
				assert.Check(t, !step.MatchString(body), "%s: a step in\n%s", name, body)
			} else {
				assert.Check(t, !unsafe.MatchString(body), "%s: %q in\n%s", name, unsafe.FindString(body), body)
			}
		}
		_, err = os.Stat(strings.TrimSuffix(name, ".groovy") + ".txt")
		assert.Check(t, err)
	}
}
