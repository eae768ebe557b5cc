package kubernetes

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// pace is how patient the driver is; tests have less of it.
type pace struct {
	// look is how often a Job is looked at when nothing is told.
	look time.Duration
	// events is how often the events of what does not start are asked for.
	events time.Duration
	// grace is how long a fault may last that a moment could heal.
	grace time.Duration
	// notice is how often a person hears that a pod still waits.
	notice time.Duration
	// retry is before a lost Job is started again; it doubles each time.
	retry time.Duration
	// request is before a failed request is sent again; it doubles, up to maxRequest.
	request, maxRequest time.Duration
	// first is how long a server is tried that has never answered, away one that
	// has.
	first, away time.Duration
	// drain is how long the end of a log may take after the end of its pod.
	drain time.Duration
	// cleanup is how long the deletion of one Job is tried.
	cleanup time.Duration
}

func usualPace() pace {
	return pace{
		look: time.Second, events: 2 * time.Second, grace: 20 * time.Second, notice: time.Minute, retry: 5 * time.Second,
		request: 250 * time.Millisecond, maxRequest: 10 * time.Second, first: 20 * time.Second, away: 10 * time.Minute,
		drain: 10 * time.Second, cleanup: 20 * time.Second,
	}
}

// try sends a request again while the API server is away.
func (d *Driver) try(ctx context.Context, request func(context.Context) error) error {
	patience := d.pace.first
	if d.contacted.Load() {
		patience = d.pace.away
	}
	return d.tryFor(ctx, patience, request)
}

func (d *Driver) tryFor(ctx context.Context, patience time.Duration, request func(context.Context) error) error {
	start, delay := time.Now(), d.pace.request
	for {
		err := request(ctx)
		if err == nil || !passing(err) {
			d.contacted.Store(true)
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Since(start) > patience {
			return &UnavailableError{err}
		}
		d.say(err)
		if err := sleep(ctx, delay); err != nil {
			return err
		}
		delay = min(2*delay, d.pace.maxRequest)
	}
}

// say tells of an API server that is away, once.
func (d *Driver) say(err error) {
	d.outage.Do(func() { d.warnf("the API server does not answer, trying on: %v", err) })
}

func sleep(ctx context.Context, t time.Duration) error {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// passing reports whether a request may succeed later: nobody answered, or the
// server was not in a state to.
func passing(err error) bool {
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return false
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true
	}
	return apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsInternalError(err) || apierrors.IsServiceUnavailable(err) || status.Status().Code >= 500
}

// apiError explains what the API server said to a request.
func (d *Driver) apiError(doing string, err error) error {
	var unavailable *UnavailableError
	var status apierrors.APIStatus
	switch {
	case errors.As(err, &unavailable):
		return err
	case apierrors.IsUnauthorized(err):
		return &EnvironmentError{What: doing + ": the cluster does not know who asks", Fix: "log in again, or give --k8s-kubeconfig and --k8s-context"}
	case apierrors.IsForbidden(err):
		return &EnvironmentError{What: fmt.Sprintf("%s: %v", doing, err), Fix: "give this service account the Role of examples/kubernetes/rbac.yaml, or name another with the kubeconfig"}
	case !errors.As(err, &status) && !errors.Is(err, context.Canceled):
		return &UnavailableError{err}
	}
	return fmt.Errorf("%s: %w", doing, err)
}
