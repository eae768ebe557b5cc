package kubernetes

import (
	"fmt"
	"time"
)

// EnvironmentError is a cluster that cannot run a build as it is asked to.
type EnvironmentError struct {
	// Platform is whose Job it was; empty for all.
	Platform  string
	What, Fix string
}

func (e *EnvironmentError) Error() string {
	s := e.What
	if e.Platform != "" {
		s = e.Platform + ": " + s
	}
	if e.Fix != "" {
		s += ": " + e.Fix
	}
	return s
}

// UnavailableError is an API server that could not be reached, after all retries.
type UnavailableError struct{ Err error }

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("the cluster's API server: %v: check --k8s-kubeconfig, --k8s-context and the network", e.Err)
}
func (e *UnavailableError) Unwrap() error { return e.Err }

// DeadlineError is a Job that took too long.
type DeadlineError struct {
	Platform string
	Limit    time.Duration
}

func (e *DeadlineError) Error() string {
	return fmt.Sprintf("%s: the Job took longer than --k8s-deadline=%s: raise it, or use --cache so that the next run begins where this one ended", e.Platform, e.Limit)
}

// lostError is a failure that is not the build's: what was lost is worth another
// try.
type lostError struct{ reason string }

func (e *lostError) Error() string { return e.reason }
