package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"github.com/org/kaniko-multiarch/internal/progress"
)

// told is a reporter that keeps all text.
type told struct {
	mu sync.Mutex
	b  strings.Builder
}

func (r *told) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(&r.b, format+"\n", args...)
}
func (r *told) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}
func (r *told) Plan(vertices ...progress.Vertex) {
	for _, v := range vertices {
		r.say("plan %s", v.Name)
	}
}
func (r *told) Start(digest.Digest) {}
func (r *told) Done(_ digest.Digest, _ bool, err error) {
	if err != nil {
		r.say("failed %v", err)
	}
}
func (r *told) Log(digest.Digest, int) io.Writer { return toldWriter{r} }
func (r *told) Status(digest.Digest, string, int64, int64, bool) {
}
func (r *told) Warn(w progress.Warning) { r.say("warning %s", w.Text) }

type toldWriter struct{ *told }

func (w toldWriter) Write(p []byte) (int, error) { w.say("%s", p); return len(p), nil }

// quick is a driver on a cluster whose controllers are a function: what becomes of
// the n-th Job's pod; nil makes none.
func quick(t *testing.T, c Config, controllers func(n int, job *batchv1.Job) *corev1.Pod) (*Driver, *fake.Clientset, *told) {
	t.Helper()
	client := fake.NewClientset(node("amd64"), node("arm64"))
	var mu sync.Mutex
	n := 0
	client.PrependReactor("create", "jobs", func(a clienttesting.Action) (bool, runtime.Object, error) {
		job := a.(clienttesting.CreateAction).GetObject().(*batchv1.Job)
		mu.Lock()
		n++
		number := n
		mu.Unlock()
		job.UID = types.UID(job.Name)
		if pod := controllers(number, job); pod != nil {
			pod.ObjectMeta.Name, pod.Namespace, pod.UID = job.Name+"-x", job.Namespace, types.UID(job.Name+"-x")
			pod.Labels = map[string]string{batchv1.JobNameLabel: job.Name, runLabel: job.Labels[runLabel]}
			pod.Spec = job.Spec.Template.Spec
			pod.Spec.NodeName = "node-x"
			assert.Check(t, client.Tracker().Add(pod))
		}
		return false, nil, nil
	})
	d := newDriver(t, c)
	show := &told{}
	d.client, d.Progress, d.Key = client, show, "app-1f2e3d"
	d.pace = pace{
		look: 5 * time.Millisecond, events: time.Millisecond, grace: 20 * time.Millisecond, notice: time.Second, retry: time.Millisecond,
		request: time.Millisecond, maxRequest: time.Millisecond, first: time.Second, away: time.Second, drain: time.Second, cleanup: time.Second,
	}
	d.Answer = func(_, message string) (bool, error) {
		switch {
		case strings.HasPrefix(message, "built"):
			return true, nil
		case message == "" || message == "exec format error":
			return false, errors.New("the pod left no result")
		}
		return true, errors.New(message)
	}
	return d, client, show
}

func ended(code int32, reason, message string) *corev1.Pod {
	phase := corev1.PodSucceeded
	if code != 0 {
		phase = corev1.PodFailed
	}
	return &corev1.Pod{Status: corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{{
		Name: containerName, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, Message: message}},
	}}}}
}

func waiting(reason, message string) *corev1.Pod {
	return &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
		Name: containerName, Image: "the/image", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}},
	}}}}
}

func evicted() *corev1.Pod {
	p := ended(137, "Error", "")
	p.Status.Reason, p.Status.Message = "Evicted", "the node was low on memory"
	return p
}

func tasks() []Task {
	return []Task{{Platform: "linux/amd64", Args: []string{"job"}}, {Platform: "linux/arm64", Args: []string{"job"}}}
}

func left(t *testing.T, client *fake.Clientset) int {
	t.Helper()
	jobs, err := client.BatchV1().Jobs("").List(context.Background(), metav1.ListOptions{})
	assert.NilError(t, err)
	return len(jobs.Items)
}

func TestRun(t *testing.T) {
	t.Parallel()
	d, client, show := quick(t, usual(), func(_ int, job *batchv1.Job) *corev1.Pod {
		return ended(0, "Completed", "built "+job.Labels[platformLabel])
	})
	work := tasks()
	work[0].Secret, work[0].SecretDir = map[string][]byte{"token": []byte("hunter2")}, "/kaniko/job"
	var got sync.Map
	d.Answer = func(platform, message string) (bool, error) {
		got.Store(platform, message)
		return true, nil
	}
	assert.NilError(t, d.Run(t.Context(), work))
	assert.Check(t, is.DeepEqual(maps.Collect(got.Range), map[any]any{"linux/amd64": "built linux-amd64", "linux/arm64": "built linux-arm64"}))
	assert.Check(t, is.Equal(left(t, client), 0))
	assert.Check(t, is.Contains(show.text(), "fake logs"))
	secrets := 0
	for _, a := range client.Actions() {
		switch a := a.(type) {
		case clienttesting.CreateAction:
			if s, ok := a.GetObject().(*corev1.Secret); ok {
				secrets++
				assert.Check(t, is.Equal(s.OwnerReferences[0].Kind, "Job"))
				assert.Check(t, is.Equal(s.OwnerReferences[0].UID, types.UID(s.Name)))
			}
		case clienttesting.DeleteActionImpl:
			assert.Check(t, is.Equal(*a.DeleteOptions.Preconditions.UID, types.UID(a.Name)))
			assert.Check(t, is.Equal(*a.DeleteOptions.PropagationPolicy, metav1.DeletePropagationBackground))
		}
	}
	assert.Check(t, is.Equal(secrets, 1), "a Secret is only for the task that has one")
}

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

// What the cluster lost is built again, what failed is not.
func TestRun_tries_again(t *testing.T) {
	t.Parallel()
	c := usual()
	c.Retries = 2
	d, client, show := quick(t, c, func(n int, _ *batchv1.Job) *corev1.Pod {
		if n < 3 {
			return evicted()
		}
		return ended(0, "Completed", "built")
	})
	err := d.Run(t.Context(), tasks()[:1])
	assert.NilError(t, err)
	assert.Check(t, is.Equal(left(t, client), 0))
	assert.Check(t, is.Contains(show.text(), "starting again (2 of 2)"))

	jobs := 0
	d, _, _ = quick(t, c, func(int, *batchv1.Job) *corev1.Pod {
		jobs++
		return ended(1, "Error", "exit code: 1")
	})
	err = d.Run(t.Context(), tasks()[:1])
	assert.ErrorContains(t, err, "exit code: 1")
	assert.Check(t, is.Equal(jobs, 1))
}

// A build that is cancelled, and one beside another that failed, leaves nothing.
func TestRun_cleans_up(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("cancelled by a signal")
	var once sync.Once
	d, client, _ := quick(t, usual(), func(int, *batchv1.Job) *corev1.Pod {
		once.Do(func() { time.AfterFunc(20*time.Millisecond, func() { cancel(why) }) })
		return &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending}}
	})
	err := d.Run(ctx, tasks())
	assert.Check(t, errors.Is(err, why), "%v", err)
	assert.Check(t, is.Equal(left(t, client), 0))

	d, client, _ = quick(t, usual(), func(_ int, job *batchv1.Job) *corev1.Pod {
		if job.Labels[platformLabel] == "linux-arm64" {
			return ended(1, "Error", "failed")
		}
		return &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending}}
	})
	err = d.Run(t.Context(), tasks())
	assert.Check(t, is.Error(err, "failed"))
	assert.Check(t, is.Equal(left(t, client), 0))
}

// --parallel limits the Jobs that are there at once.
func TestRun_parallel(t *testing.T) {
	t.Parallel()
	c := usual()
	c.Parallel = 1
	var mu sync.Mutex
	now, most := 0, 0
	count := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		now += n
		most = max(most, now)
	}
	d, client, _ := quick(t, c, func(int, *batchv1.Job) *corev1.Pod {
		count(1)
		return ended(0, "Completed", "built")
	})
	client.PrependReactor("delete", "jobs", func(clienttesting.Action) (bool, runtime.Object, error) {
		count(-1)
		return false, nil, nil
	})
	err := d.Run(t.Context(), tasks())
	assert.NilError(t, err)
	assert.Check(t, is.Equal(most, 1))
}

// A request whose answer was lost is not made twice.
func TestCreate_again(t *testing.T) {
	t.Parallel()
	d, client, _ := quick(t, usual(), func(int, *batchv1.Job) *corev1.Pod { return nil })
	lost := true
	client.PrependReactor("create", "jobs", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if !lost {
			return false, nil, nil
		}
		lost = false
		job := a.(clienttesting.CreateAction).GetObject()
		assert.Check(t, client.Tracker().Add(job))
		return true, nil, errors.New("connection reset by peer")
	})
	job, err := d.job(d.name(aTask()), aTask())
	assert.NilError(t, err)
	got, err := d.create(t.Context(), job)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(got.Name, job.Name))
	assert.Check(t, is.Equal(left(t, client), 1))

	// One of the same name that is somebody else's is left alone.
	other := job.DeepCopy()
	other.Name = "other"
	other.Labels[runLabel] = "somebody"
	assert.NilError(t, client.Tracker().Add(other))
	mine := job.DeepCopy()
	mine.Name = "other"
	_, err = d.create(t.Context(), mine)
	assert.Check(t, apierrors.IsAlreadyExists(err), "%v", err)
}

// The deadline of a Job moves on while somebody waits for it.
func TestRenew(t *testing.T) {
	t.Parallel()
	c := usual()
	c.Lease = minLease
	d := newDriver(t, c)
	assert.Check(t, is.Equal(*d.deadline(0), int64(10)))
	assert.Check(t, is.Equal(*d.deadline(90 * time.Second), int64(100)))
	d.settings.Deadline = time.Minute
	assert.Check(t, is.Equal(*d.deadline(90 * time.Second), int64(60)))

	d, client, _ := quick(t, c, func(int, *batchv1.Job) *corev1.Pod { return nil })
	d.settings.Lease = time.Second
	job, err := d.job("name", aTask())
	assert.NilError(t, err)
	job.UID = "name"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client.PrependReactor("patch", "jobs", func(clienttesting.Action) (bool, runtime.Object, error) {
		cancel()
		return true, job, nil
	})
	assert.NilError(t, d.renew(ctx, job))
	assert.Check(t, ctx.Err() != nil, "it was not renewed")
}

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

func TestAPIError(t *testing.T) {
	t.Parallel()
	d := newDriver(t, usual())
	resource := schema.GroupResource{Group: "batch", Resource: "jobs"}
	assert.Check(t, is.ErrorContains(d.apiError("creating a Job", apierrors.NewForbidden(resource, "x", errors.New("no"))), "examples/kubernetes/rbac.yaml"))
	assert.Check(t, is.ErrorContains(d.apiError("creating a Job", apierrors.NewUnauthorized("no")), "log in again"))
	assert.Check(t, is.ErrorContains(d.createError(aTask(), apierrors.NewNotFound(resource, "ns")), "no such namespace"))
	_, ok := errors.AsType[*UnavailableError](d.apiError("x", errors.New("connection refused")))
	assert.Check(t, ok)
	for err, want := range map[error]bool{
		errors.New("connection refused"):                  true,
		apierrors.NewTooManyRequests("later", 1):          true,
		apierrors.NewInternalError(errors.New("etcd")):    true,
		apierrors.NewForbidden(resource, "x", nil):        false,
		apierrors.NewNotFound(resource, "x"):              false,
		apierrors.NewInvalid(schema.GroupKind{}, "", nil): false,
	} {
		assert.Check(t, is.Equal(passing(err), want), err.Error())
	}
}
