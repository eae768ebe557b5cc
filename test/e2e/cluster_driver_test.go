package e2e

import (
	"crypto/rand"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/record"
)

// driverArgs are those of a build by Jobs in the test's namespace.
func (c *cluster) driverArgs(args ...string) []string {
	return append([]string{"build", "--driver=k8s", "--k8s-namespace=" + c.namespace, "--k8s-image=" + c.image,
		"--insecure-registry=" + c.registry, "--progress=plain"}, args...)
}

func (c *cluster) env() []string { return []string{"KUBECONFIG=" + c.kubeconfig} }

// build runs the program to its end.
func (c *cluster) build(t *testing.T, args ...string) result {
	t.Helper()
	return runWith(t, c.env(), c.driverArgs(args...)...)
}

// start does not wait for the program.
func (c *cluster) start(t *testing.T, args ...string) *running {
	t.Helper()
	return start(t, c.env(), c.driverArgs(args...)...)
}

func (c *cluster) repository(t *testing.T) string {
	return c.registry + "/" + strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
}

// slowly is a build that goes on for some seconds after it has said "begun".
func (c *cluster) slowly(t *testing.T) string {
	return contextDir(t, map[string]string{"Dockerfile": "FROM " + c.bases + "/busybox:1\nRUN echo be\"\"gun; sleep 8; echo en\"\"ded\n"})
}

// Both platforms at once, each on its node, and what they leave: an index, records,
// no object in the cluster.
func TestClusterDriver_two_platforms(t *testing.T) {
	t.Parallel()
	c := newCluster(t, baseline)
	image, digests := c.repository(t), t.TempDir()
	dir := contextDir(t, map[string]string{
		"Dockerfile": "FROM " + c.bases + "/busybox:1\nCOPY greeting /\nRUN echo \"on $(uname -m)\" | tee /machine; sleep 4\n",
		"greeting":   "hello\n",
	})
	r := c.start(t, "--context="+dir, "--platform=linux/amd64,linux/arm64", "--destination="+image+":1", "--digests-to="+digests)
	// Both at once, and what they print is shown while they run.
	c.until(t, "pods", `{range .items[?(@.spec.nodeName=="node-amd64")]}1{end}{range .items[?(@.spec.nodeName=="node-arm64")]}2{end}`, "12")
	r.says(t, regexp.MustCompile(`(?m)^#\d+ [0-9.]+ on (x86_64|aarch64)$`))
	ended := r.end(t)
	assert.Equal(t, ended.code, 0, "%s", ended.stderr)
	// Steps are named after their platform.
	for _, arch := range []string{"amd64", "arm64"} {
		assert.Check(t, is.Contains(ended.stderr, "[linux/"+arch+" 3/3] RUN"))
	}

	index := rawIndex(t, image+":1")
	assert.Assert(t, is.Len(index.Manifests, 2))
	found, err := record.Read(digests)
	assert.NilError(t, err)
	assert.Assert(t, is.Len(found, 2))
	for i, m := range index.Manifests {
		assert.Check(t, is.Equal(m.Platform.Architecture, []string{"amd64", "arm64"}[i]))
		assert.Check(t, slices.ContainsFunc(found, func(f record.Found) bool { return f.Record.Digest.String() == m.Digest && f.Record.Pushed }), m.Digest)
	}
	c.empty(t)
}

// A context that the registry has is not sent again.
func TestClusterDriver_context(t *testing.T) {
	t.Parallel()
	c := newCluster(t, baseline)
	noise := make([]byte, 1<<20)
	_, _ = rand.Read(noise) // never fails
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + c.bases + "/busybox:1\nCOPY noise /\n", "noise": string(noise)})

	// The registry by another address, which counts what this machine sends: pods
	// have addresses of their own.
	host, _, err := net.SplitHostPort(c.registry)
	assert.NilError(t, err)
	listener, err := net.Listen("tcp", host+":0")
	assert.NilError(t, err)
	var sent atomic.Int64
	proxy := &httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0), Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: c.registry})
		r.Out.Host = r.In.Host
		if strings.HasPrefix(r.In.RemoteAddr, host+":") && r.In.ContentLength > 0 {
			sent.Add(r.In.ContentLength)
		}
	}}
	front := &http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}
	go func() { _ = front.Serve(listener) }()
	t.Cleanup(func() { _ = front.Close() })

	counted := func(tag string) int64 {
		sent.Store(0)
		registry := listener.Addr().String()
		r := c.build(t, "--context="+dir, "--platform=linux/amd64", "--insecure-registry="+registry, "--destination="+registry+"/context/app:"+tag)
		assert.Equal(t, r.code, 0, "%s", r.stderr)
		assert.Check(t, is.Contains(r.stderr, "sent to "+registry+"/context/app"))
		return sent.Load()
	}
	first, again := counted("1"), counted("2")
	assert.Check(t, first > 1<<20, "%d bytes were sent", first)
	assert.Check(t, again < 64<<10, "%d bytes were sent again", again)
	c.empty(t)
}

// One job of a pipeline for each platform, then a merge.
func TestClusterDriver_merge(t *testing.T) {
	t.Parallel()
	c := newCluster(t, baseline)
	image, digests := c.repository(t), t.TempDir()
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + c.bases + "/busybox:1\nRUN uname -m > /machine\n"})
	for _, arch := range []string{"amd64", "arm64"} {
		r := c.build(t, "--context="+dir, "--platform=linux/"+arch, "--image="+image, "--digests-to="+digests)
		assert.Equal(t, r.code, 0, "%s", r.stderr)
	}
	ok(t, "merge", "--digests-from="+digests, "--destination="+image+":1", "--platform=linux/amd64,linux/arm64", "--insecure-registry="+c.registry)
	assert.Check(t, is.Len(rawIndex(t, image+":1").Manifests, 2))
	c.empty(t)
}

func TestClusterDriver_executor(t *testing.T) {
	t.Parallel()
	c := newCluster(t, baseline)
	image := c.repository(t)
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + c.bases + "/busybox:1\nRUN uname -m > /machine\n"})
	link := filepath.Join(t.TempDir(), "executor")
	assert.NilError(t, os.Symlink(binary, link))
	cmd := exec.CommandContext(t.Context(), link, "--driver=k8s", "--k8s-namespace="+c.namespace, "--k8s-image="+c.image, "--insecure-registry="+c.registry,
		"--context=dir://"+dir, "--dockerfile=Dockerfile", "--platform=linux/amd64,linux/arm64", "--destination="+image+":1")
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, c.env()...)
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	assert.Check(t, is.Len(rawIndex(t, image+":1").Manifests, 2))
	c.empty(t)
}

// A build's secrets reach the step, and neither a log nor what lists Jobs and pods.
func TestClusterDriver_secrets(t *testing.T) {
	t.Parallel()
	c := newCluster(t, baseline)
	image := c.repository(t)
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + c.bases + "/busybox:1\n" +
		"RUN --mount=type=secret,id=token echo \"it is $(cat /run/secrets/token)\" && echo begun && sleep 4\n"})
	secret := filepath.Join(t.TempDir(), "token")
	assert.NilError(t, os.WriteFile(secret, []byte("tell-nobody"), 0o600))
	r := c.start(t, "--context="+dir, "--platform=linux/amd64", "--destination="+image+":1", "--secret=id=token,src="+secret)
	r.says(t, begun)
	owner := c.kubectl(t, "", "get", "secrets", "-o", "jsonpath={.items[*].metadata.ownerReferences[*].kind}")
	assert.Check(t, is.Equal(owner, "Job"))
	assert.Check(t, !strings.Contains(c.kubectl(t, "", "get", "jobs,pods,events", "-o", "json"), "tell-nobody"))
	assert.Check(t, !strings.Contains(c.kubectl(t, "", "logs", "--selector=batch.kubernetes.io/job-name"), "tell-nobody"))
	ended := r.end(t)
	assert.Equal(t, ended.code, 0, "%s", ended.stderr)
	assert.Check(t, is.Contains(ended.stderr, " it is ***"))
	assert.Check(t, !strings.Contains(ended.stderr, "tell-nobody"))
	c.empty(t)
}

// What a user says about the pods is what the cluster has.
func TestClusterDriver_options(t *testing.T) {
	t.Parallel()
	c := newCluster(t, baseline)
	template := filepath.Join(t.TempDir(), "pod.yaml")
	assert.NilError(t, os.WriteFile(template, []byte("spec:\n  hostname: from-template\n  volumes:\n  - {name: state, emptyDir: {sizeLimit: 1Gi}}\n"), 0o600))
	r := c.start(t, "--context="+c.slowly(t), "--platform=linux/amd64", "--destination="+c.repository(t)+":1",
		"--k8s-request=cpu=100m,memory=64Mi", "--k8s-limit=memory=1Gi", "--k8s-node-selector=kubernetes.io/hostname=node-amd64",
		"--k8s-label=team=builders", "--k8s-annotation=example.com/why=a test", "--k8s-priority-class=system-cluster-critical",
		"--k8s-toleration=spot:NoSchedule", "--k8s-pod-template="+template, "--k8s-deadline=3m")
	r.says(t, begun)
	for path, want := range map[string]string{
		"{.items[0].spec.containers[0].resources.requests.cpu}":  "100m",
		"{.items[0].spec.containers[0].resources.limits.memory}": "1Gi",
		"{.items[0].metadata.labels.team}":                       "builders",
		"{.items[0].metadata.annotations}":                       "a test",
		"{.items[0].spec.priorityClassName}":                     "system-cluster-critical",
		"{.items[0].spec.tolerations[*].key}":                    "spot",
		"{.items[0].spec.hostname}":                              "from-template",
		"{.items[0].spec.volumes[*].emptyDir.sizeLimit}":         "1Gi",
		"{.items[0].spec.nodeName}":                              "node-amd64",
		"{.items[0].spec.containers[0].image}":                   c.image,
	} {
		assert.Check(t, is.Contains(c.kubectl(t, "", "get", "pods", "-o", "jsonpath="+path), want), path)
	}
	ended := r.end(t)
	assert.Equal(t, ended.code, 0, "%s", ended.stderr)
	c.empty(t)
}

// Many pipelines share a namespace.
func TestClusterDriver_twenty_at_once(t *testing.T) {
	t.Parallel()
	c := newCluster(t, baseline)
	image := c.repository(t)
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + c.bases + "/busybox:1\nARG N\nRUN echo \"$N\" > /number\n"})
	var all []*running
	for n := range 20 {
		number := string(rune('a' + n))
		platform := []string{"linux/amd64", "linux/arm64"}[n%2]
		all = append(all, c.start(t, "--context="+dir, "--platform="+platform, "--destination="+image+":"+number, "--build-arg=N="+number))
	}
	for n, r := range all {
		ended := r.end(t)
		assert.Check(t, is.Equal(ended.code, 0), "%s", ended.stderr)
		config := tool(t, "skopeo", "inspect", "--tls-verify=false", "--override-arch="+[]string{"amd64", "arm64"}[n%2], "--config",
			"docker://"+image+":"+string(rune('a'+n)))
		var parsed struct{ Architecture string }
		assert.NilError(t, json.Unmarshal([]byte(config), &parsed))
		assert.Check(t, is.Equal(parsed.Architecture, []string{"amd64", "arm64"}[n%2]))
	}
	c.empty(t)
}

// Whoever ends the driver ends its Jobs.
func TestClusterDriver_cancelled(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"interrupt": syscall.SIGINT, "terminate": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, baseline)
			r := c.start(t, "--context="+c.slowly(t), "--platform=linux/amd64,linux/arm64", "--destination="+c.repository(t)+":1")
			r.says(t, begun)
			assert.NilError(t, r.Process.Signal(signal))
			assert.Check(t, is.Equal(r.end(t).code, 130), "%s", &r.output)
			c.empty(t)
		})
	}
}

// A driver that is killed cannot delete its Jobs: they end by themselves, soon, and
// the same build may be started again at once.
func TestClusterDriver_killed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, baseline)
	args := []string{"--context=" + c.slowly(t), "--platform=linux/amd64", "--destination=" + c.repository(t) + ":1", "--k8s-lease=15s", "--k8s-ttl=1s"}
	r := c.start(t, args...)
	r.says(t, begun)
	assert.NilError(t, r.Process.Kill())
	r.end(t)
	again := c.build(t, args...)
	assert.Equal(t, again.code, 0, "%s", again.stderr)
	c.empty(t)
}
