package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"
)

// cluster is a namespace of the Kubernetes that test/with-services.sh --cluster
// starts, for one test.
type cluster struct {
	kubeconfig, client, image, registry, bases string
	namespace                                  string
}

// Labels of namespaces: the level of Pod Security.
const (
	baseline   = "pod-security.kubernetes.io/enforce=baseline"
	restricted = "pod-security.kubernetes.io/enforce=restricted"
)

// newCluster makes a namespace with labels, which disappears with the test.
func newCluster(t *testing.T, labels ...string) *cluster {
	t.Helper()
	if os.Getenv("KMA_TEST_CLUSTER") == "" {
		t.Skip("KMA_TEST_CLUSTER is not set: run `make test-cluster` as root on Debian, which starts the service")
	}
	c := &cluster{
		kubeconfig: service(t, "KMA_TEST_CLUSTER"),
		client:     service(t, "KMA_TEST_KUBECTL"),
		image:      service(t, "KMA_TEST_CLUSTER_IMAGE"),
		registry:   service(t, "KMA_TEST_REGISTRY"),
		bases:      service(t, "KMA_TEST_BASES"),
	}
	c.namespace = strings.TrimSpace(c.kubectl(t, `{"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "test-"}}`,
		"create", "-f", "-", "-o", "jsonpath={.metadata.name}"))
	t.Cleanup(func() {
		if t.Failed() {
			c.explain(t)
		}
		out, err := exec.Command(c.client, "--kubeconfig", c.kubeconfig, "delete", "namespace", c.namespace, "--wait=false").CombinedOutput()
		assert.Check(t, err, "%s", out)
	})
	if len(labels) > 0 {
		c.kubectl(t, "", append([]string{"label", "namespace", c.namespace}, labels...)...)
	}
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		if _, err := c.try(t, "", "get", "serviceaccount", "default"); err != nil {
			return poll.Continue("%v", err)
		}
		return poll.Success()
	}, poll.WithTimeout(time.Minute), poll.WithDelay(100*time.Millisecond))
	return c
}

// kubectl returns what an administrator's kubectl says in the test's namespace.
func (c *cluster) kubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := c.try(t, stdin, args...)
	assert.NilError(t, err)
	return out
}

func (c *cluster) try(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	all := []string{"--kubeconfig", c.kubeconfig, "--request-timeout=1m"}
	if c.namespace != "" {
		all = append(all, "--namespace", c.namespace)
	}
	cmd := exec.CommandContext(t.Context(), c.client, append(all, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out), err
}

// explain logs what the namespace's pods and events say.
func (c *cluster) explain(t *testing.T) {
	for _, args := range [][]string{{"get", "jobs,pods", "-o", "wide"}, {"get", "events"}, {"logs", "--selector=batch.kubernetes.io/job-name", "--prefix", "--tail=30"}} {
		out, err := exec.Command(c.client, append([]string{"--kubeconfig", c.kubeconfig, "--namespace", c.namespace}, args...)...).CombinedOutput()
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// control stops, starts or restarts a part of the cluster. Every test sees it.
func (c *cluster) control(t *testing.T, verb, part string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), service(t, "KMA_TEST_CLUSTER_CONTROL"), verb, part).CombinedOutput()
	assert.NilError(t, err, "%s", out)
}

// until waits for a value of an object, two minutes at most.
func (c *cluster) until(t *testing.T, object, jsonpath, want string) {
	t.Helper()
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		out, err := c.try(t, "", "get", object, "-o", "jsonpath="+jsonpath)
		if err != nil || !strings.Contains(out, want) {
			return poll.Continue("%s of %s is %q, not %q: %v", jsonpath, object, out, want, err)
		}
		return poll.Success()
	}, poll.WithTimeout(2*time.Minute), poll.WithDelay(500*time.Millisecond))
}

// event waits until the namespace has an event with a text.
func (c *cluster) event(t *testing.T, text string) {
	t.Helper()
	c.until(t, "events", `{range .items[*]}{.reason}: {.message}{"\n"}{end}`, text)
}

// empty fails when the namespace has objects besides those that every namespace has.
func (c *cluster) empty(t *testing.T) {
	t.Helper()
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		out, err := c.try(t, "", "get", "all,secrets,configmaps,leases", "-o", "name")
		out = strings.TrimSpace(strings.ReplaceAll(out, "configmap/kube-root-ca.crt", ""))
		if err != nil || out != "" {
			return poll.Continue("left: %s %v", out, err)
		}
		return poll.Success()
	}, poll.WithTimeout(time.Minute), poll.WithDelay(500*time.Millisecond))
}

// plainJob is a Job of the tool's image as a user would write it by hand.
type plainJob struct {
	arch, image string
	args        []string
	memory      string
	restricted  bool
}

// run applies the Job under a name of its own.
func (c *cluster) run(t *testing.T, name string, j plainJob) {
	t.Helper()
	type object = map[string]any
	container := object{
		"name": "main", "image": j.image, "args": j.args,
		"securityContext": object{"seccompProfile": object{"type": "RuntimeDefault"}},
		"volumeMounts":    []object{{"name": "context", "mountPath": "/context"}},
	}
	if j.memory != "" {
		container["resources"] = object{"limits": object{"memory": j.memory, "cpu": "1"}}
	}
	if j.restricted {
		container["securityContext"] = object{
			"seccompProfile": object{"type": "RuntimeDefault"}, "runAsNonRoot": true, "runAsUser": 1000,
			"allowPrivilegeEscalation": false, "capabilities": object{"drop": []string{"ALL"}},
		}
	}
	spec, err := json.Marshal(object{
		"apiVersion": "batch/v1", "kind": "Job", "metadata": object{"name": name},
		"spec": object{"backoffLimit": 0, "template": object{"spec": object{
			"restartPolicy": "Never", "automountServiceAccountToken": false,
			"nodeSelector": object{"kubernetes.io/arch": j.arch},
			"containers":   []object{container},
			"volumes":      []object{{"name": "context", "configMap": object{"name": "context", "optional": true}}},
		}}},
	})
	assert.NilError(t, err)
	c.kubectl(t, string(spec), "apply", "-f", "-")
}

func TestCluster_nodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	nodes := c.kubectl(t, "", "get", "nodes", "-o",
		`jsonpath={range .items[*]}{.metadata.labels.kubernetes\.io/arch} {.status.nodeInfo.architecture} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}`)
	assert.Equal(t, nodes, "amd64 amd64 True\narm64 arm64 True\n")
}

// A Job as in the guide, on each node: it pulls the image, builds in place with a
// step, and pushes. One node's steps are emulated.
func TestCluster_plain_job(t *testing.T) {
	t.Parallel()
	c := newCluster(t, baseline)
	c.kubectl(t, "", "create", "configmap", "context", "--from-literal=Dockerfile=FROM "+c.bases+"/busybox:1\nRUN uname -m | tee /machine\n")
	for arch, machine := range map[string]string{"amd64": "x86_64", "arm64": "aarch64"} {
		t.Run(arch, func(t *testing.T) {
			t.Parallel()
			destination := c.registry + "/plain/job:" + arch
			c.run(t, arch, plainJob{arch: arch, image: c.image, args: []string{"--context=dir:///context", "--platform=linux/" + arch,
				"--insecure-registry=" + c.registry, "--destination=" + destination}})
			c.until(t, "job/"+arch, "{.status.conditions[*].type}", "Complete")
			assert.Check(t, is.Contains(c.kubectl(t, "", "logs", "job/"+arch), machine))
			config := tool(t, "skopeo", "inspect", "--tls-verify=false", "--override-arch="+arch, "--config", "docker://"+destination)
			assert.Check(t, is.Contains(config, `"architecture": "`+arch+`"`))
			c.kubectl(t, "", "delete", "job/"+arch)
		})
	}
}

// What goes wrong on clusters goes wrong on this one, too, with the same words.
func TestCluster_faults(t *testing.T) {
	t.Parallel()
	plain := func(c *cluster) plainJob { return plainJob{arch: "amd64", image: c.bases + "/busybox:1"} }
	for _, tt := range []struct {
		name   string
		labels []string
		job    func(*testing.T, *cluster) plainJob
		status string
		event  string
	}{
		{name: "step_fails", job: func(t *testing.T, c *cluster) plainJob {
			j := plain(c)
			j.args = []string{"sh", "-c", "exit 3"}
			return j
		}, status: `"exitCode":3`},
		{name: "out_of_memory", job: func(t *testing.T, c *cluster) plainJob {
			j := plain(c)
			j.memory, j.args = "16Mi", []string{"sh", "-c", "x=x; while :; do x=$x$x; done"}
			return j
		}, status: "OOMKilled"},
		{name: "no_such_image", job: func(t *testing.T, c *cluster) plainJob {
			return plainJob{arch: "amd64", image: c.registry + "/no/such:image"}
		}, event: "Failed: Failed to pull image"},
		{name: "no_such_architecture", job: func(t *testing.T, c *cluster) plainJob {
			return plainJob{arch: "s390x", image: c.image}
		}, event: "FailedScheduling"},
		{name: "quota", job: func(t *testing.T, c *cluster) plainJob {
			c.kubectl(t, "", "create", "quota", "none", "--hard=pods=0")
			return plain(c)
		}, event: "exceeded quota"},
		{name: "restricted", labels: []string{restricted}, job: func(t *testing.T, c *cluster) plainJob {
			return plain(c)
		}, event: `violates PodSecurity "restricted:latest"`},
		{name: "restricted_and_conforming", labels: []string{restricted}, job: func(t *testing.T, c *cluster) plainJob {
			j := plain(c)
			j.restricted, j.args = true, []string{"sh", "-c", "exit 4"}
			return j
		}, status: `"exitCode":4`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, tt.labels...)
			c.run(t, "fault", tt.job(t, c))
			if tt.event != "" {
				c.event(t, tt.event)
				return
			}
			c.until(t, "pods", "{.items[*].status.containerStatuses[*].state.terminated}", tt.status)
		})
	}
}

// The API server may be stopped under a test that is alone: it comes back as it was.
func TestCluster_restart(t *testing.T) {
	c := newCluster(t)
	c.kubectl(t, "", "create", "configmap", "kept", "--from-literal=a=b")
	c.control(t, "stop", "apiserver")
	_, err := c.try(t, "", "get", "configmaps")
	var exit *exec.ExitError
	assert.Check(t, errors.As(err, &exit))
	c.control(t, "start", "apiserver")
	c.kubectl(t, "", "delete", "configmap", "kept")
	c.empty(t)
}
