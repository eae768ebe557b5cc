package kubernetes

import (
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestRun_explains(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(*Config)
		pod    func() *corev1.Pod
		event  *corev1.Event
		want   string
	}{
		{"failed_step", nil, func() *corev1.Pod { return ended(1, "Error", "Dockerfile:3: exit code: 42") }, nil, "Dockerfile:3"},
		{"image", nil, func() *corev1.Pod { return waiting("ImagePullBackOff", "denied") }, nil, "the image the/image cannot be pulled: ImagePullBackOff: denied: check --k8s-image"},
		{"image_name", nil, func() *corev1.Pod { return waiting("InvalidImageName", "UPPER") }, nil, "correct --k8s-image"},
		{"config", nil, func() *corev1.Pod { return waiting("CreateContainerConfigError", `secret "x" not found`) }, nil, `secret "x" not found`},
		{"memory", func(c *Config) { c.Limits = []string{"memory=64Mi"} }, func() *corev1.Pod { return ended(137, "OOMKilled", "") }, nil, "its limit is 64Mi: raise --k8s-limit memory="},
		{"memory_of_a_step", nil, func() *corev1.Pod { return ended(1, "OOMKilled", "exit code: 137") }, nil, "for want of memory"},
		{"start", nil, func() *corev1.Pod {
			p := ended(128, "StartError", "exec format error")
			return p
		}, nil, "cannot run on node node-x: "},
		{"no_result", nil, func() *corev1.Pod { return ended(2, "Error", "") }, nil, "ended with code 2 and without a result"},
		{"unschedulable", func(c *Config) { c.ScheduleTimeout = 20 * time.Millisecond }, func() *corev1.Pod {
			return &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
				{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/2 nodes are available"}}}}
		}, nil, "no node takes the pod: 0/2 nodes are available"},
		{"pod_security", nil, nil, &corev1.Event{Type: corev1.EventTypeWarning, Reason: "FailedCreate", Message: `violates PodSecurity "restricted:latest"`}, "pod-security.kubernetes.io/enforce=baseline"},
		{"quota", nil, nil, &corev1.Event{Type: corev1.EventTypeWarning, Reason: "FailedCreate", Message: "exceeded quota: q"}, "have the quota raised"},
		{"mount", nil, func() *corev1.Pod { return waiting("ContainerCreating", "") }, &corev1.Event{Type: corev1.EventTypeWarning, Reason: "FailedMount", Message: `secret "login" not found`}, "or correct --k8s-registry-secret"},
		{"node_lost", nil, func() *corev1.Pod {
			p := &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{
				{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByTaintManager", Message: "deleting due to NoExecute taint"}}}}
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds, p.Finalizers = &metav1.Time{Time: time.Now()}, new(int64), []string{"batch.kubernetes.io/job-tracking"}
			return p
		}, nil, "DeletionByTaintManager"},
		{"lost_again", nil, evicted, nil, "Evicted: the node was low on memory"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := usual()
			if tc.change != nil {
				tc.change(&c)
			}
			d, client, _ := quick(t, c, func(int, *batchv1.Job) *corev1.Pod {
				if tc.pod == nil {
					return nil
				}
				return tc.pod()
			})
			if tc.event != nil {
				tc.event.ObjectMeta = metav1.ObjectMeta{Name: "event", Namespace: "ns"}
				assert.NilError(t, client.Tracker().Add(tc.event))
			}
			err := d.Run(t.Context(), tasks())
			assert.ErrorContains(t, err, tc.want)
			assert.Check(t, is.Equal(left(t, client), 0))
		})
	}
}

// The time that a pod has waited for a node is not taken from its start there.
func TestWaiting_begins_anew_on_a_node(t *testing.T) {
	t.Parallel()
	d, _, _ := quick(t, usual(), func(int, *batchv1.Job) *corev1.Pod { return nil })
	job, err := d.job("name", aTask())
	assert.NilError(t, err)
	long := time.Now().Add(-time.Hour)
	f := &following{Driver: d, task: aTask(), job: job, display: d.display(aTask(), "name"), started: long}
	homeless, placed := waiting("ContainerCreating", ""), waiting("ContainerCreating", "")
	placed.Spec.NodeName = "node-x"
	for _, pod := range []*corev1.Pod{homeless, placed} {
		assert.NilError(t, f.waiting(t.Context(), view{pod: pod}))
		f.faulty, f.asked = long, time.Time{}
	}
	assert.ErrorContains(t, f.waiting(t.Context(), view{pod: placed}), "node node-x has not started the pod yet")
}
