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
		{"lost_again", nil, evicted, nil, "(Evicted: the node was low on memory): it was tried 1 times (--k8s-retries=0)"},
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

// A Job that the cluster ends took too long, or was one that nobody waited for.
func TestRun_explains_ended_jobs(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, reason string
		deadline     time.Duration
		want         string
	}{
		{"deadline", batchv1.JobReasonDeadlineExceeded, time.Second, "took longer than --k8s-deadline=1s"},
		{"lease", batchv1.JobReasonDeadlineExceeded, 0, "nobody had renewed its lease for 5m0s"},
		{"lease_before_the_deadline", batchv1.JobReasonDeadlineExceeded, time.Hour, "nobody had renewed its lease"},
		{"other", "Other", 0, "the cluster ended its Job: for some reason"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := usual()
			c.Deadline = tc.deadline
			d, _, _ := quick(t, c, func(_ int, job *batchv1.Job) *corev1.Pod {
				job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: tc.reason, Message: "for some reason"}}
				return nil
			})
			assert.ErrorContains(t, d.Run(t.Context(), tasks()[:1]), tc.want)
		})
	}
}

// A build goes on when its log cannot be followed, and says so.
func TestRun_without_the_log(t *testing.T) {
	t.Parallel()
	d, client, show := quick(t, usual(), func(int, *batchv1.Job) *corev1.Pod { return ended(0, "Completed", "built") })
	client.PrependReactor("get", "pods", forbidden("pods"))
	assert.NilError(t, d.Run(t.Context(), tasks()[:1]))
	assert.Check(t, is.Contains(show.text(), "the log cannot be shown: "))
}

// What may not be watched ends the build at once, and leaves nothing.
func TestRun_forbidden(t *testing.T) {
	t.Parallel()
	for _, resource := range []string{"jobs", "pods"} {
		d, client, _ := quick(t, usual(), func(int, *batchv1.Job) *corev1.Pod { return nil })
		client.PrependReactor("list", resource, forbidden(resource))
		assert.ErrorContains(t, d.Run(t.Context(), tasks()), "examples/kubernetes/rbac.yaml")
		jobs, err := client.Tracker().List(batchv1.SchemeGroupVersion.WithResource("jobs"), batchv1.SchemeGroupVersion.WithKind("Job"), "ns")
		assert.NilError(t, err)
		assert.Check(t, is.Len(jobs.(*batchv1.JobList).Items, 0))
	}
}
