package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// following is one Job that is waited for.
type following struct {
	*Driver
	task    Task
	job     *batchv1.Job
	display *display

	started time.Time
	// faulty is since when the same thing has been wrong that a moment could heal.
	faulty time.Time
	fault  string
	// told is when a person last heard why a pod waits, asked when the events were
	// asked for.
	told, asked time.Time
	// advised is the advice that a person had.
	advised string
	// logs ends when all of the log has been shown; nil before the container runs.
	logs     chan struct{}
	stopLogs context.CancelFunc
}

// follow waits for a Job to end, and shows its log.
func (d *Driver) follow(ctx context.Context, w *watcher, t Task, job *batchv1.Job, display *display) error {
	f := &following{Driver: d, task: t, job: job, display: display, started: time.Now(), told: time.Now()}
	defer f.endLogs()
	for {
		v, err := w.wait(ctx, job.Name, d.pace.look)
		if err != nil {
			return err
		}
		if done, err := f.look(ctx, v); done || err != nil {
			return err
		}
	}
}

// look decides whether a Job is done, as it is seen now.
func (f *following) look(ctx context.Context, v view) (done bool, err error) {
	if v.pod != nil {
		if c := status(v.pod); c != nil {
			if c.State.Running != nil || c.State.Terminated != nil {
				f.showLogs(ctx, v.pod)
			}
			if c.State.Terminated != nil {
				f.drain(ctx)
				return true, f.ended(v, c.State.Terminated)
			}
		}
	}
	switch {
	case v.pod != nil && (v.podGone || v.pod.DeletionTimestamp != nil && f.since("deleted", f.graceful(v.pod))):
		return true, lostPod(v.pod)
	case v.pod != nil && v.pod.Status.Phase == corev1.PodFailed:
		return true, lostPod(v.pod)
	case v.jobGone:
		return true, &lostError{"somebody deleted its Job"}
	}
	if c := failed(v.job); c != nil && f.since("failed", f.pace.grace/4) {
		return true, f.jobError(c)
	}
	if v.pod != nil && v.pod.DeletionTimestamp == nil && v.pod.Status.Phase == corev1.PodPending || v.pod == nil && failed(v.job) == nil {
		return false, f.waiting(ctx, v)
	}
	return false, nil
}

// graceful is how long a deleted pod may take to end by itself.
func (f *following) graceful(pod *corev1.Pod) time.Duration {
	t := f.pace.grace / 4
	if s := pod.DeletionGracePeriodSeconds; s != nil {
		t += time.Duration(*s) * time.Second
	}
	return t
}

// since reports whether the same fault has lasted for some time.
func (f *following) since(fault string, t time.Duration) bool {
	if f.fault != fault {
		f.fault, f.faulty = fault, time.Now()
	}
	return time.Since(f.faulty) >= t
}

// status is that of our container.
func status(pod *corev1.Pod) *corev1.ContainerStatus {
	for i := range pod.Status.ContainerStatuses {
		if pod.Status.ContainerStatuses[i].Name == containerName {
			return &pod.Status.ContainerStatuses[i]
		}
	}
	return nil
}

func failed(job *batchv1.Job) *batchv1.JobCondition {
	if job == nil {
		return nil
	}
	for i, c := range job.Status.Conditions {
		if (c.Type == batchv1.JobFailed || c.Type == batchv1.JobFailureTarget) && c.Status == corev1.ConditionTrue {
			return &job.Status.Conditions[i]
		}
	}
	return nil
}

// ended reads what the container left.
func (f *following) ended(v view, end *corev1.ContainerStateTerminated) error {
	whole, err := f.Answer(f.task.Platform, end.Message)
	switch {
	case whole && err == nil:
		return nil
	case end.Reason == "OOMKilled":
		return f.outOfMemory()
	}
	if c := failed(v.job); c != nil && c.Reason == batchv1.JobReasonDeadlineExceeded {
		return f.jobError(c)
	}
	switch {
	case v.podGone || v.pod.DeletionTimestamp != nil || disrupted(v.pod) != "":
		return lostPod(v.pod)
	case whole:
		return err
	}
	return f.noAnswer(v.pod, end, err)
}

// jobError explains a Job that the cluster ended.
func (f *following) jobError(c *batchv1.JobCondition) error {
	if c.Reason != batchv1.JobReasonDeadlineExceeded {
		return &lostError{fmt.Sprintf("the cluster ended its Job: %s", c.Message)}
	}
	if limit := f.settings.Deadline; limit > 0 && time.Since(f.started) > limit-time.Second {
		return &DeadlineError{Platform: f.task.Platform, Limit: limit}
	}
	return &lostError{fmt.Sprintf("the cluster ended its Job, since nobody had renewed its lease for %s (--k8s-lease)", f.settings.Lease)}
}

// waiting explains a pod that does not run yet. The error is that it never will.
func (f *following) waiting(ctx context.Context, v view) error {
	why, fix, patience := "", "", f.settings.ScheduleTimeout
	node := ""
	if v.pod != nil {
		node = v.pod.Spec.NodeName
		why, fix, patience = f.pending(v.pod)
	}
	// Events say what the pod cannot: that there is none, or a volume is missing.
	if why == "" && time.Since(f.asked) >= f.pace.events && time.Since(f.started) >= f.pace.events {
		f.asked = time.Now()
		var err error
		if why, fix, patience, err = f.events(ctx, v); err != nil {
			return err
		}
	} else if why == "" {
		return nil
	}
	if why == "" {
		why, fix, patience = "waiting", "look at its events with kubectl describe job "+f.job.Name, f.settings.ScheduleTimeout
		if v.pod == nil {
			why = "the cluster has made no pod yet"
		} else if node != "" {
			why = "node " + node + " has not started the pod yet"
		}
	}
	// What it waits for may change while it waits, but a node that has taken it has
	// all the time, however late that was.
	if f.since(fmt.Sprint(patience, node), patience) {
		return &EnvironmentError{Platform: f.task.Platform, What: why, Fix: fix}
	}
	// Names of pods and counts change in the text, the advice does not.
	if fix != f.advised && time.Since(f.started) >= f.pace.events || time.Since(f.told) >= f.pace.notice {
		f.told, f.advised = time.Now(), fix
		f.display.note(why)
	}
	return nil
}

// events looks for the newest warning about a Job and its pod.
func (f *following) events(ctx context.Context, v view) (why, fix string, patience time.Duration, err error) {
	of := f.job.UID
	if v.pod != nil {
		of = v.pod.UID
	}
	list, err := f.eventsOf(ctx, of)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			f.display.note("its events cannot be seen: " + err.Error())
		}
		return "", "", f.settings.ScheduleTimeout, context.Cause(ctx)
	}
	for i := len(list) - 1; i >= 0; i-- {
		if why, fix, patience = f.event(list[i]); why != "" {
			return why, fix, patience, nil
		}
	}
	return "", "", f.settings.ScheduleTimeout, nil
}

func (f *following) eventsOf(ctx context.Context, of types.UID) ([]corev1.Event, error) {
	var out []corev1.Event
	err := f.try(ctx, func(ctx context.Context) error {
		list, err := f.client.CoreV1().Events(f.namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(of)})
		if err == nil {
			out = list.Items
		}
		return err
	})
	sortEvents(out)
	return out, err
}
