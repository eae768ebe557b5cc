package kubernetes

import (
	"errors"
	"fmt"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
)

func node(arch string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node-" + arch, Labels: map[string]string{"kubernetes.io/os": "linux", "kubernetes.io/arch": arch}},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}
	for _, c := range change {
		c(n)
	}
	return n
}

func cordoned(n *corev1.Node) { n.Spec.Unschedulable = true }
func notReady(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionFalse }
func tainted(n *corev1.Node) {
	n.Spec.Taints = []corev1.Taint{{Key: "builds", Value: "arm", Effect: corev1.TaintEffectNoSchedule}}
}
func sevenCordoned() (out []runtime.Object) {
	for i := range 7 {
		out = append(out, node("arm64", cordoned, func(n *corev1.Node) { n.Name = fmt.Sprintf("node-arm64-%d", 7-i) }))
	}
	return out
}
func shunned(n *corev1.Node) {
	n.Spec.Taints = []corev1.Taint{{Key: "spare", Effect: corev1.TaintEffectPreferNoSchedule}}
}
func pool(n *corev1.Node) { n.Labels["pool"] = "a" }

func TestPlace(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, platform string
		nodes          []runtime.Object
		change         func(*Config)
		want, err      string
	}{
		{"native", "linux/arm64", []runtime.Object{node("amd64"), node("arm64")}, nil, "arm64", ""},
		{"none", "linux/arm64", []runtime.Object{node("amd64")}, nil, "", "linux/arm64: no node of the cluster can build it natively (usable nodes are of amd64)"},
		{"emulated", "linux/arm64", []runtime.Object{node("amd64")}, func(c *Config) { c.RequireNative = false }, "", ""},
		{"emulated_nowhere", "linux/arm64", []runtime.Object{node("amd64", cordoned)}, func(c *Config) { c.RequireNative = false }, "", "no other node is usable"},
		{"cordoned", "linux/arm64", []runtime.Object{node("amd64"), node("arm64", cordoned)}, nil, "", "(cordoned: node-arm64; usable nodes are of amd64): make that node usable (kubectl uncordon)"},
		{"many", "linux/arm64", sevenCordoned(), nil, "", "cordoned: node-arm64-1, node-arm64-2, node-arm64-3, node-arm64-4, node-arm64-5, 2 more; no other"},
		{"not_ready", "linux/arm64", []runtime.Object{node("arm64", notReady)}, nil, "", "not ready: node-arm64"},
		{"tainted", "linux/arm64", []runtime.Object{node("arm64", tainted)}, nil, "", "tainted builds=arm:NoSchedule: node-arm64"},
		{"tolerated", "linux/arm64", []runtime.Object{node("arm64", tainted)}, func(c *Config) { c.Tolerations = []string{"builds"} }, "arm64", ""},
		{"shunned_is_usable", "linux/arm64", []runtime.Object{node("arm64", shunned)}, nil, "arm64", ""},
		{"other_taint_tolerated", "linux/arm64", []runtime.Object{node("arm64", tainted)}, func(c *Config) { c.Tolerations = []string{"builds=x86"} }, "", "tainted"},
		{"selected", "linux/arm64", []runtime.Object{node("arm64", pool)}, func(c *Config) { c.NodeSelector = []string{"pool=a"} }, "arm64", ""},
		{"not_selected", "linux/arm64", []runtime.Object{node("arm64", pool)}, func(c *Config) { c.NodeSelector = []string{"pool=b"} }, "", "not selected"},
		{"affinity", "linux/arm64", []runtime.Object{node("arm64", pool)}, func(c *Config) { c.NodeAffinity = "pool in (a,b)" }, "arm64", ""},
		{"no_affinity", "linux/arm64", []runtime.Object{node("arm64", pool)}, func(c *Config) { c.NodeAffinity = "pool notin (a)" }, "", "not selected"},
		{"386", "linux/386", []runtime.Object{node("amd64"), node("arm64")}, nil, "amd64", ""},
		{"arm_is_not_arm64", "linux/arm/v7", []runtime.Object{node("arm64")}, nil, "", "natively"},
		{"windows", "linux/amd64", []runtime.Object{node("amd64", func(n *corev1.Node) { n.Labels["kubernetes.io/os"] = "windows" })}, nil, "", "natively"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := usual()
			if tc.change != nil {
				tc.change(&c)
			}
			d := newDriver(t, c)
			d.client, d.Progress = fake.NewClientset(tc.nodes...), &told{}
			got, err := d.Place(t.Context(), []string{tc.platform})
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
				_, ok := errors.AsType[*EnvironmentError](err)
				assert.Check(t, ok, "%T", err)
				return
			}
			assert.NilError(t, err)
			assert.Check(t, is.Equal(got[tc.platform], tc.want))
		})
	}
}

// Whoever may not list nodes builds all the same.
func TestPlace_forbidden(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset()
	client.PrependReactor("list", "nodes", forbidden("nodes"))
	d, show := newDriver(t, usual()), &told{}
	d.client, d.Progress = client, show
	got, err := d.Place(t.Context(), []string{"linux/386", "linux/arm/v7"})
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(got, map[string]string{"linux/386": "amd64", "linux/arm/v7": "arm"}))
	assert.Check(t, is.Contains(show.text(), "does not let this service account list nodes"))
}
