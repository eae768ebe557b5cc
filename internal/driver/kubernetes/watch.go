package kubernetes

import (
	"context"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// watcher knows the state of all Jobs of a run, and of their pods. Watches that
// break off or are too old begin again, as long as it takes.
type watcher struct {
	mu   sync.Mutex
	jobs map[string]*batchv1.Job
	pods map[string]*corev1.Pod
	// lostJobs and lostPods are gone from the API.
	lostJobs, lostPods map[string]bool
	// wake has a channel for each Job that somebody waits for.
	wake map[string]chan struct{}
	// fatal is why there is no point in watching.
	fatal error
}

// watch begins to watch. The function ends it.
func (d *Driver) watch(ctx context.Context) (*watcher, func()) {
	w := &watcher{
		jobs: map[string]*batchv1.Job{}, pods: map[string]*corev1.Pod{},
		lostJobs: map[string]bool{}, lostPods: map[string]bool{}, wake: map[string]chan struct{}{},
	}
	ctx, cancel := context.WithCancel(ctx)
	factory := informers.NewSharedInformerFactoryWithOptions(d.client, 0, informers.WithNamespace(d.namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = d.ofRun() }))
	for what, informer := range map[string]cache.SharedIndexInformer{
		"jobs": factory.Batch().V1().Jobs().Informer(), "pods": factory.Core().V1().Pods().Informer(),
	} {
		// They fail only for informers that run.
		_ = informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
			switch {
			case ctx.Err() != nil:
			case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
				w.fail(d.apiError("watching "+what, err))
			case passing(err) && !apierrors.IsResourceExpired(err):
				d.say(err)
			}
		})
		_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: w.seen, UpdateFunc: func(_, now any) { w.seen(now) }, DeleteFunc: w.gone,
		})
	}
	factory.StartWithContext(ctx)
	return w, func() {
		cancel()
		factory.Shutdown()
	}
}

func (w *watcher) seen(object any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch o := object.(type) {
	case *batchv1.Job:
		w.jobs[o.Name] = o
		w.tell(o.Name)
	case *corev1.Pod:
		name := o.Labels[batchv1.JobNameLabel]
		w.pods[name] = o
		delete(w.lostPods, name)
		w.tell(name)
	}
}

func (w *watcher) gone(object any) {
	if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = unknown.Obj
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch o := object.(type) {
	case *batchv1.Job:
		w.jobs[o.Name], w.lostJobs[o.Name] = o, true
		w.tell(o.Name)
	case *corev1.Pod:
		name := o.Labels[batchv1.JobNameLabel]
		w.pods[name], w.lostPods[name] = o, true
		w.tell(name)
	}
}

func (w *watcher) tell(name string) {
	if c, ok := w.wake[name]; ok {
		select {
		case c <- struct{}{}:
		default: // it is awake already
		}
	}
}

func (w *watcher) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fatal == nil {
		w.fatal = err
	}
	for name := range w.wake {
		w.tell(name)
	}
}

// view is what is known of a Job; nil is what has not been seen.
type view struct {
	job              *batchv1.Job
	pod              *corev1.Pod
	jobGone, podGone bool
}

// expect says that somebody waits for a Job.
func (w *watcher) expect(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake[name] = make(chan struct{}, 1)
}

// wait returns what is known after something has changed, or some time has passed.
func (w *watcher) wait(ctx context.Context, name string, most time.Duration) (view, error) {
	w.mu.Lock()
	wake := w.wake[name]
	w.mu.Unlock()
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return view{}, context.Cause(ctx)
	case <-wake:
	case <-timer.C:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return view{w.jobs[name], w.pods[name], w.lostJobs[name], w.lostPods[name]}, w.fatal
}
