package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// build has one task done. What the cluster lost is started again.
func (d *Driver) build(ctx context.Context, w *watcher, t Task) error {
	delay := d.pace.retry
	for n := 0; ; n++ {
		err := d.attempt(ctx, w, t)
		lost, ok := errors.AsType[*lostError](err)
		if !ok {
			return err
		}
		if n == d.settings.Retries {
			return &EnvironmentError{Platform: t.Platform, What: lost.reason, Fix: fmt.Sprintf("it was tried %d times (--k8s-retries=%d): look at the nodes with kubectl describe nodes", n+1, d.settings.Retries)}
		}
		d.warnf("%s: %s: starting again (%d of %d)", t.Platform, lost.reason, n+1, d.settings.Retries)
		if err := sleep(ctx, delay); err != nil {
			return err
		}
		delay *= 2
	}
}

// attempt runs one Job, which is gone afterwards.
func (d *Driver) attempt(ctx context.Context, w *watcher, t Task) (err error) {
	name := d.name(t)
	object, err := d.job(name, t)
	if err != nil {
		return err
	}
	w.expect(name)
	display := d.display(t, d.namespace+"/"+name)
	defer func() { display.close(err) }()
	created, err := d.create(ctx, object)
	if err != nil {
		// The request may have arrived, though.
		if !rejected(err) {
			d.remove(d.existing(name))
		}
		return d.createError(t, err)
	}
	defer d.remove(created)
	if len(t.Secret) > 0 {
		secret := d.secret(created, t)
		err := d.try(ctx, func(ctx context.Context) error {
			_, err := d.client.CoreV1().Secrets(d.namespace).Create(ctx, secret, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) {
				return nil // the name is ours alone: an answer was lost
			}
			return err
		})
		if err != nil {
			return d.apiError("creating the Secret of the Job", err)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		if err := d.renew(ctx, created); err != nil {
			cancel(err)
		}
	}()
	defer func() { cancel(nil); <-renewed }()
	return d.follow(ctx, w, t, created, display)
}

// create makes a Job, once.
func (d *Driver) create(ctx context.Context, object *batchv1.Job) (*batchv1.Job, error) {
	var created *batchv1.Job
	err := d.try(ctx, func(ctx context.Context) error {
		var err error
		created, err = d.client.BatchV1().Jobs(d.namespace).Create(ctx, object, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			if own := d.existing(object.Name); own != nil {
				created, err = own, nil
			}
		}
		return err
	})
	return created, err
}

// rejected reports whether the server has certainly not made what it was asked for.
func rejected(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && !passing(err)
}

// existing is the Job of a name if it is this run's. To list them is a right that
// the watch needs anyway.
func (d *Driver) existing(name string) *batchv1.Job {
	ctx, cancel := context.WithTimeout(context.Background(), d.pace.cleanup)
	defer cancel()
	var own *batchv1.JobList
	err := d.tryFor(ctx, d.pace.cleanup, func(ctx context.Context) error {
		var err error
		own, err = d.client.BatchV1().Jobs(d.namespace).List(ctx, metav1.ListOptions{LabelSelector: d.ofRun()})
		return err
	})
	if err != nil {
		return nil
	}
	for i := range own.Items {
		if own.Items[i].Name == name {
			return &own.Items[i]
		}
	}
	return nil
}

// createError explains a Job that was not taken.
func (d *Driver) createError(t Task, err error) error {
	text := err.Error()
	switch {
	case apierrors.IsForbidden(err) && strings.Contains(text, "exceeded quota"):
		return &EnvironmentError{Platform: t.Platform, What: text, Fix: "wait for other Jobs, limit these with --parallel, or have the quota raised"}
	case apierrors.IsNotFound(err):
		return inputf("--k8s-namespace %s: the cluster has no such namespace", d.namespace)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return inputf("the cluster does not take the Job: %w: correct the --k8s-* flag or the --k8s-pod-template that says so", err)
	}
	return d.apiError("creating a Job in namespace "+d.namespace, err)
}

// renew lets a Job go on for as long as somebody waits for it: the deadline is that
// of the cluster, which keeps it when this process is gone.
func (d *Driver) renew(ctx context.Context, job *batchv1.Job) error {
	start := time.Now()
	last := *d.deadline(0)
	for {
		if err := sleep(ctx, d.settings.Lease/4); err != nil {
			return nil
		}
		next := *d.deadline(time.Since(start))
		if next == last {
			continue // the deadline is that of the user
		}
		patch := fmt.Sprintf(`{"metadata":{"uid":%q},"spec":{"activeDeadlineSeconds":%d}}`, job.UID, next)
		err := d.try(ctx, func(ctx context.Context) error {
			_, err := d.client.BatchV1().Jobs(d.namespace).Patch(ctx, job.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			return err
		})
		switch {
		case ctx.Err() != nil, apierrors.IsNotFound(err), apierrors.IsConflict(err):
			return nil // whoever waits for it sees that it is gone
		case err != nil:
			return d.apiError("renewing the lease of Job "+job.Name, err)
		}
		last = next
	}
}

// remove deletes a Job with all that belongs to it, even when the build was
// cancelled. What cannot be deleted goes by itself.
func (d *Driver) remove(job *batchv1.Job) {
	if job == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.pace.cleanup)
	defer cancel()
	policy := metav1.DeletePropagationBackground
	err := d.tryFor(ctx, d.pace.cleanup, func(ctx context.Context) error {
		return d.client.BatchV1().Jobs(d.namespace).Delete(ctx, job.Name, metav1.DeleteOptions{
			PropagationPolicy: &policy, Preconditions: &metav1.Preconditions{UID: &job.UID},
		})
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		d.warnf("Job %s/%s could not be deleted: %v: the cluster ends it within %s and removes it %s later", d.namespace, job.Name, err, d.settings.Lease, d.settings.TTL)
	}
}
