package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	assert.NilError(t, os.WriteFile(secret, []byte("x"), 0o600))

	// build is one that takes all rights when it is to succeed, with less of them.
	build := func(t *testing.T, local, global []right, more ...string) result {
		c := newCluster(t, "pod-security.kubernetes.io/enforce=baseline")
		config := c.allow(t, local, global)
		dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + c.bases + "/busybox:1\nRUN --mount=type=secret,id=s cat /run/secrets/s; sleep 6\n"})
		args := c.driverArgs("--context="+dir, "--platform=linux/amd64", "--destination="+c.repository(t)+":1", "--secret=id=s,src="+secret, "--k8s-lease=10s")
		r := runWith(t, []string{"KUBECONFIG=" + config}, append(args, more...)...)
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
	for _, r := range local {
		t.Run("no_"+r.String(), func(t *testing.T) {
			t.Parallel()
			got := build(t, without(local, r), global)
			assert.Check(t, is.Equal(got.code, 6), "%s", got.stderr)
			resource, sub, _ := strings.Cut(r.resource, "/")
			assert.Check(t, is.Contains(got.stderr, fmt.Sprintf("cannot %s resource %q", r.verb, strings.TrimSuffix(resource+"/"+sub, "/"))))
			assert.Check(t, is.Contains(got.stderr, "rbac.yaml"))
		})
	}
	// Whoever may not list nodes finds out later.
	for _, r := range global {
		t.Run("no_"+r.String(), func(t *testing.T) {
			t.Parallel()
			got := build(t, local, without(global, r))
			assert.Check(t, is.Equal(got.code, 0), "%s", got.stderr)
			assert.Check(t, is.Contains(got.stderr, "nodes"))
		})
	}
}
