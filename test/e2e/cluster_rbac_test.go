package e2e

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

const rbacFile = "../../examples/kubernetes/rbac.yaml"

// right is one verb on one resource.
type right struct{ group, resource, verb string }

func (r right) String() string { return r.verb + "_" + strings.ReplaceAll(r.resource, "/", "_") }

// documented are the rights of the example: those in the namespace, and those on
// the cluster.
func documented(t *testing.T, c *cluster) (local, global []right) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(c.kubectl(t, "", "create", "--dry-run=client", "-o", "json", "-f", rbacFile)))
	for decoder.More() {
		var o struct {
			Kind  string
			Items []json.RawMessage
			Rules []struct{ APIGroups, Resources, Verbs []string }
		}
		assert.NilError(t, decoder.Decode(&o))
		var rights []right
		for _, rule := range o.Rules {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						rights = append(rights, right{group, resource, verb})
					}
				}
			}
		}
		switch o.Kind {
		case "Role":
			local = append(local, rights...)
		case "ClusterRole":
			global = append(global, rights...)
		case "List":
			t.Fatal("kubectl printed a list")
		}
	}
	assert.Assert(t, len(local) > 0, "%s has no Role", rbacFile)
	return local, global
}

// allow makes a service account with exactly these rights, and returns its
// kubeconfig.
func (c *cluster) allow(t *testing.T, local, global []right) string {
	t.Helper()
	rules := func(rights []right) []map[string]any {
		out := []map[string]any{}
		for _, r := range rights {
			out = append(out, map[string]any{"apiGroups": []string{r.group}, "resources": []string{r.resource}, "verbs": []string{r.verb}})
		}
		return out
	}
	const api = "rbac.authorization.k8s.io"
	name := c.namespace
	meta := map[string]any{"name": name}
	subjects := []map[string]any{{"kind": "ServiceAccount", "name": "default", "namespace": c.namespace}}
	for _, object := range []map[string]any{
		{"kind": "Role", "metadata": meta, "rules": rules(local)},
		{"kind": "RoleBinding", "metadata": meta, "subjects": subjects, "roleRef": map[string]any{"apiGroup": api, "kind": "Role", "name": name}},
		{"kind": "ClusterRole", "metadata": meta, "rules": rules(global)},
		{"kind": "ClusterRoleBinding", "metadata": meta, "subjects": subjects, "roleRef": map[string]any{"apiGroup": api, "kind": "ClusterRole", "name": name}},
	} {
		object["apiVersion"] = api + "/v1"
		data, err := json.Marshal(object)
		assert.NilError(t, err)
		c.kubectl(t, string(data), "create", "-f", "-")
	}
	token := strings.TrimSpace(c.kubectl(t, "", "create", "token", "default"))
	config := filepath.Join(t.TempDir(), "kubeconfig")
	admin, err := os.ReadFile(c.kubeconfig)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(config, admin, 0o600))
	// The account's, not the administrator's, is used: tokens are by user.
	c.kubectl(t, "", "--kubeconfig", config, "config", "set-credentials", "admin", "--token="+token)
	return config
}

// The example gives exactly the rights that a build takes.
func TestClusterDriver_rbac(t *testing.T) {
	t.Parallel()
	local, global := documented(t, newCluster(t))
	secret := filepath.Join(t.TempDir(), "secret")
	assert.NilError(t, os.WriteFile(secret, []byte("tell-nobody"), 0o600))

	// build is one that takes all rights when it is to succeed, with less of them.
	build := func(t *testing.T, local, global []right, more ...string) result {
		c := newCluster(t, baseline)
		config := c.allow(t, local, global)
		dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + c.bases + "/busybox:1\nRUN --mount=type=secret,id=s cat /run/secrets/s; sleep 6\n"})
		args := c.driverArgs("--context="+dir, "--platform=linux/amd64", "--destination="+c.repository(t)+":1", "--secret=id=s,src="+secret,
			"--k8s-lease=10s", "--k8s-ttl=1s")
		// Servers of before 1.34 are asked for lists: a watch does not begin with one.
		r := runWith(t, []string{"KUBECONFIG=" + config, "KUBE_FEATURE_WatchListClient=false"}, append(args, more...)...)
		c.empty(t)
		return r
	}
	without := func(rights []right, r right) []right {
		return slices.DeleteFunc(slices.Clone(rights), func(o right) bool { return o == r })
	}

	t.Run("all", func(t *testing.T) {
		t.Parallel()
		r := build(t, local, global)
		assert.Equal(t, r.code, 0, "%s", r.stderr)
	})
	// Without these a build goes on, and says what it cannot.
	spared := map[string]string{
		"get_pods":     `cannot get resource "pods"`,
		"get_pods_log": "the log cannot be shown",
		"list_nodes":   "does not let this service account list nodes",
		"delete_jobs":  "could not be deleted",
	}
	for _, r := range slices.Concat(local, global) {
		if r.resource == "events" {
			continue // for a pod that does not start, see below
		}
		t.Run("no_"+r.String(), func(t *testing.T) {
			t.Parallel()
			got := build(t, without(local, r), without(global, r))
			if says := spared[r.String()]; says != "" {
				assert.Check(t, is.Equal(got.code, 0), "%s", got.stderr)
				assert.Check(t, is.Contains(got.stderr, says))
				return
			}
			assert.Check(t, is.Equal(got.code, 6), "%s", got.stderr)
			assert.Check(t, is.Contains(got.stderr, fmt.Sprintf("cannot %s resource %q", r.verb, r.resource)))
			assert.Check(t, is.Contains(got.stderr, "rbac.yaml"))
		})
	}
	t.Run("no_list_events", func(t *testing.T) {
		t.Parallel()
		got := build(t, without(local, right{"", "events", "list"}), global, "--k8s-service-account=nobody", "--k8s-schedule-timeout=5s")
		assert.Check(t, is.Equal(got.code, 6), "%s", got.stderr)
		assert.Check(t, is.Contains(got.stderr, `cannot list resource "events"`))
	})
}

// An answer that is lost on the way is asked for again, and no second Job is made.
func TestClusterDriver_answer_lost(t *testing.T) {
	t.Parallel()
	c := newCluster(t, baseline)
	local, global := documented(t, c)
	config := c.allow(t, local, global)
	server, err := url.Parse(c.server(t))
	assert.NilError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(server)
	proxy.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // a test's own server
	var lost atomic.Int32
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/jobs") && lost.Add(1) == 1 {
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	defer front.Close()
	authority := filepath.Join(t.TempDir(), "authority.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})
	assert.NilError(t, os.WriteFile(authority, certificate, 0o600))
	c.kubectl(t, "", "--kubeconfig", config, "config", "set-cluster", "test", "--server="+front.URL, "--certificate-authority="+authority, "--embed-certs")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + c.bases + "/busybox:1\nRUN true\n"})
	r := runWith(t, []string{"KUBECONFIG=" + config}, c.driverArgs("--context="+dir, "--platform=linux/amd64", "--destination="+c.repository(t)+":1")...)
	assert.Equal(t, r.code, 0, "%s", r.stderr)
	assert.Check(t, is.Equal(lost.Load(), int32(2)))
	made := c.kubectl(t, "", "get", "events", "--field-selector=reason=SuccessfulCreate", "-o", "name")
	assert.Check(t, is.Len(strings.Fields(made), 1), "%s", made)
	c.empty(t)
}

// The driver may run in the cluster, as the example's CronJob has it: its Jobs
// go with its pod, whatever happens to that.
func TestClusterDriver_in_cluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t, baseline)
	local, global := documented(t, c)
	c.allow(t, local, global)
	server, err := url.Parse(c.server(t))
	assert.NilError(t, err)
	c.kubectl(t, "", "create", "configmap", "context", "--from-literal=Dockerfile=FROM "+c.bases+"/busybox:1\nARG SECONDS\nRUN sleep \"$SECONDS\"\n")
	driver := func(name, seconds string) {
		args := c.driverArgs("--context=/context", "--platform=linux/amd64", "--destination="+c.repository(t)+":"+name, "--build-arg=SECONDS="+seconds)
		pod, err := json.Marshal(map[string]any{
			"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": name},
			"spec": map[string]any{
				"restartPolicy": "Never",
				"containers": []map[string]any{{
					"name": "driver", "image": c.image, "command": append([]string{"/kaniko/kaniko-multiarch"}, args...),
					// This cluster has no addresses for services.
					"env":          []map[string]any{{"name": "KUBERNETES_SERVICE_HOST", "value": server.Hostname()}, {"name": "KUBERNETES_SERVICE_PORT", "value": server.Port()}},
					"volumeMounts": []map[string]any{{"name": "context", "mountPath": "/context"}},
				}},
				"volumes": []map[string]any{{"name": "context", "configMap": map[string]any{"name": "context"}}},
			},
		})
		assert.NilError(t, err)
		c.kubectl(t, string(pod), "create", "-f", "-")
	}
	driver("done", "0")
	c.until(t, "pod/done", "{.status.phase}", "Succeeded")
	descriptor(t, c.repository(t)+":done")
	c.kubectl(t, "", "delete", "pod/done")

	driver("gone", "1000")
	c.until(t, "jobs", "{.items[*].metadata.ownerReferences[*].name}", "gone")
	c.until(t, "jobs", "{.items[*].status.ready}", "1")
	c.kubectl(t, "", "delete", "pod/gone", "--grace-period=0", "--force")
	c.kubectl(t, "", "delete", "configmap/context")
	c.empty(t)
}

// server is the address of the API.
func (c *cluster) server(t *testing.T) string {
	t.Helper()
	return c.kubectl(t, "", "config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
}
