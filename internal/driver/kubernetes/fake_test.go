package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

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

// forbidden is the answer to somebody without a right.
func forbidden(resource string) clienttesting.ReactionFunc {
	return func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("no"))
	}
}
