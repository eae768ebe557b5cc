package e2e

import (
	"cmp"
	"os/exec"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// What a user sees when the cluster cannot do it: what, why and what to do. The
// faults are real ones, and nothing is left of the build.
func TestClusterDriver_faults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		label   string
		prepare func(*testing.T, *cluster)
		step    string
		args    func(*cluster) []string
		code    int
		says    []string
	}{
		{name: "step_fails", step: "exit 7", code: 1, says: []string{"exit 7", "7"}},
		{name: "out_of_memory", step: "x=x; while :; do x=$x$x; done", code: 6, says: []string{"OOMKilled", "its limit is 96Mi"},
			args: func(*cluster) []string { return []string{"--k8s-limit=memory=96Mi", "--k8s-request=memory=96Mi"} }},
		{name: "no_such_image", code: 6, says: []string{"no/such:image", "--k8s-image"},
			args: func(c *cluster) []string { return []string{"--k8s-image=" + c.registry + "/no/such:image"} }},
		{name: "no_node_of_the_architecture", code: 6, says: []string{"linux/s390x", "--require-native-nodes=false"},
			args: func(*cluster) []string { return []string{"--platform=linux/s390x"} }},
		{name: "too_large_for_any_node", code: 6, says: []string{"Insufficient memory"},
			args: func(*cluster) []string {
				return []string{"--k8s-request=memory=900Gi", "--k8s-schedule-timeout=5s"}
			}},
		{name: "quota", code: 6, says: []string{"exceeded quota"},
			prepare: func(t *testing.T, c *cluster) { c.kubectl(t, "", "create", "quota", "none", "--hard=pods=0") }},
		{name: "quota_of_jobs", code: 6, says: []string{"exceeded quota"},
			prepare: func(t *testing.T, c *cluster) {
				c.kubectl(t, "", "create", "quota", "none", "--hard=count/jobs.batch=0")
			}},
		{name: "restricted", label: restricted, code: 6, says: []string{"restricted", "baseline"}},
		{name: "no_such_namespace", code: 2, says: []string{"no-such-place"},
			args: func(*cluster) []string { return []string{"--k8s-namespace=no-such-place"} }},
		{name: "no_such_service_account", code: 6, says: []string{"nobody"},
			args: func(*cluster) []string { return []string{"--k8s-service-account=nobody"} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, cmp.Or(tt.label, baseline))
			if tt.prepare != nil {
				tt.prepare(t, c)
			}
			dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + c.bases + "/busybox:1\nRUN " + cmp.Or(tt.step, "true") + "\n"})
			args := []string{"--context=" + dir, "--destination=" + c.repository(t) + ":1", "--platform=linux/amd64"}
			if tt.args != nil {
				args = append(args, tt.args(c)...)
			}
			r := c.build(t, args...)
			assert.Check(t, is.Equal(r.code, tt.code), "%s", r.stderr)
			for _, s := range tt.says {
				assert.Check(t, is.Contains(r.stderr, s))
			}
			c.empty(t)
		})
	}
}

// A pod that somebody deletes, or a node drains, is started again.
func TestClusterDriver_pod_killed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, baseline)
	image := c.repository(t)
	r := c.start(t, "--context="+c.slowly(t), "--platform=linux/amd64", "--destination="+image+":1")
	r.says(t, begun)
	c.kubectl(t, "", "delete", "pods", "--all", "--grace-period=1")
	ended := r.end(t)
	assert.Equal(t, ended.code, 0, "%s", ended.stderr)
	descriptor(t, image+":1")
	c.empty(t)
}

// These change the cluster for all tests: they are not parallel, and Go runs them
// before those that are.

func TestClusterDriver_no_usable_node(t *testing.T) {
	c := newCluster(t, baseline)
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + c.bases + "/busybox:1\nRUN uname -m | tee /machine\n"})
	for _, tt := range []struct {
		name     string
		do, undo []string
		why      string
		// instead is a flag with which the build goes to a node.
		instead string
		node    string
	}{
		{"cordoned", []string{"cordon", "node-arm64"}, []string{"uncordon", "node-arm64"}, "cordoned: node-arm64", "--require-native-nodes=false", "node-amd64"},
		{"tainted", []string{"taint", "node", "node-arm64", "spot=yes:NoSchedule"}, []string{"taint", "node", "node-arm64", "spot-"},
			"tainted spot=yes:NoSchedule: node-arm64", "--k8s-toleration=spot=yes:NoSchedule", "node-arm64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.kubectl(t, "", tt.do...)
			t.Cleanup(func() {
				out, err := exec.Command(c.client, append([]string{"--kubeconfig", c.kubeconfig}, tt.undo...)...).CombinedOutput()
				assert.Check(t, err, "%s", out)
			})
			args := []string{"--context=" + dir, "--platform=linux/arm64", "--destination=" + c.repository(t) + ":1"}
			r := c.build(t, args...)
			assert.Check(t, is.Equal(r.code, 6), "%s", r.stderr)
			assert.Check(t, is.Contains(r.stderr, "linux/arm64: no node of the cluster can build it natively ("+tt.why))
			r = c.build(t, append(args, tt.instead)...)
			assert.Equal(t, r.code, 0, "%s", r.stderr)
			assert.Check(t, is.Contains(r.stderr, "runs on node "+tt.node))
			assert.Check(t, is.Contains(r.stderr, "aarch64"))
			c.empty(t)
		})
	}
}

func TestClusterDriver_api_server_restarts(t *testing.T) {
	c := newCluster(t, baseline)
	image := c.repository(t)
	r := c.start(t, "--context="+c.slowly(t), "--platform=linux/amd64,linux/arm64", "--destination="+image+":1")
	r.says(t, begun)
	c.control(t, "restart", "apiserver")
	ended := r.end(t)
	assert.Equal(t, ended.code, 0, "%s", ended.stderr)
	assert.Check(t, is.Contains(ended.stderr, "ended"))
	assert.Check(t, is.Len(rawIndex(t, image+":1").Manifests, 2))
	c.empty(t)
}
