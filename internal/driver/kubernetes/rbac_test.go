package kubernetes

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// The example's Role is all that the driver needs, and nothing in it is too much.
func TestRBAC(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	c := usual()
	c.Lease = minLease
	d, client, _ := quick(t, c, func(n int, job *batchv1.Job) *corev1.Pod {
		if n == 1 {
			return waiting("ContainerCreating", "")
		}
		return ended(0, "Completed", "built")
	})
	d.ownPod = "own"
	d.settings.Lease = time.Second
	d.settings.ScheduleTimeout = 1500 * time.Millisecond
	work := tasks()
	work[0].Secret, work[0].SecretDir = map[string][]byte{"a": nil}, "/x"
	_, err := d.Place(t.Context(), []string{work[0].Platform})
	assert.NilError(t, err)
	err = d.Run(t.Context(), work)
	assert.ErrorContains(t, err, "has not started the pod yet")
	for _, a := range client.Actions() {
		resource := a.GetResource().Resource
		if a.GetSubresource() != "" {
			resource += "/" + a.GetSubresource()
		}
		used[a.GetVerb()+" "+resource] = true
	}

	data, err := os.ReadFile("../../../examples/kubernetes/rbac.yaml")
	assert.NilError(t, err)
	var allowed []string
	for document := range strings.SplitSeq(string(data), "\n---\n") {
		var role rbacv1.ClusterRole
		assert.NilError(t, yaml.Unmarshal([]byte(document), &role))
		for _, rule := range role.Rules {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					allowed = append(allowed, verb+" "+resource)
				}
			}
		}
	}
	slices.Sort(allowed)
	assert.Check(t, is.DeepEqual(slices.Sorted(maps.Keys(used)), allowed))
}
