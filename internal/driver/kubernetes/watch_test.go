package kubernetes

import (
	"testing"

	"gotest.tools/v3/assert"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// What was deleted while no watch looked is gone, and a pod that comes after it is not.
func TestWatcher(t *testing.T) {
	t.Parallel()
	d, _, _ := quick(t, usual(), func(int, *batchv1.Job) *corev1.Pod { return nil })
	w, stop := d.watch(t.Context())
	defer stop()
	w.expect("a")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a-1", Labels: map[string]string{batchv1.JobNameLabel: "a"}}}
	look := func() view {
		v, err := w.wait(t.Context(), "a", 0)
		assert.NilError(t, err)
		return v
	}
	w.gone(cache.DeletedFinalStateUnknown{Obj: pod})
	w.gone(&batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
	assert.Check(t, look().podGone && look().jobGone)
	w.seen(pod)
	assert.Check(t, !look().podGone && look().jobGone)
}
