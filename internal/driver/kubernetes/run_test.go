package kubernetes

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
)

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

// A Job that may have been made is removed, though no answer ever came.
func TestRun_no_answer(t *testing.T) {
	t.Parallel()
	d, client, _ := quick(t, usual(), func(int, *batchv1.Job) *corev1.Pod { return nil })
	d.pace.first = 0
	client.PrependReactor("create", "jobs", func(a clienttesting.Action) (bool, runtime.Object, error) {
		assert.Check(t, client.Tracker().Add(a.(clienttesting.CreateAction).GetObject()))
		return true, nil, errors.New("connection reset by peer")
	})
	_, ok := errors.AsType[*UnavailableError](d.Run(t.Context(), tasks()[:1]))
	assert.Check(t, ok)
	assert.Check(t, is.Equal(left(t, client), 0))
}

// Jobs go with the pod that the driver runs in.
func TestRun_owner(t *testing.T) {
	t.Parallel()
	own := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "own", Namespace: "ns", UID: "its-uid"}}
	var owners []metav1.OwnerReference
	d, client, _ := quick(t, usual(), func(_ int, job *batchv1.Job) *corev1.Pod {
		owners = job.OwnerReferences
		return ended(0, "Completed", "built")
	})
	assert.NilError(t, client.Tracker().Add(own))
	d.ownPod = own.Name
	assert.NilError(t, d.Run(t.Context(), tasks()[:1]))
	assert.Check(t, is.DeepEqual(owners, []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "own", UID: "its-uid"}}))
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
