// Package doctor finds out what a place allows a build: isolation, emulation,
// disk, memory, registries. It tries each thing as a build does it, says what to
// do where it fails, and keeps nothing.
//
// It must not know the command line, nor how a build is run.
package doctor

import (
	"context"
	"errors"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/registry"
	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// Status is what a check found.
type Status string

const (
	// OK is there.
	OK Status = "ok"
	// Note is not there, or little of it, and a build may work without.
	Note Status = "note"
	// Lack is not there and a build needs it.
	Lack Status = "lack"
)

// Check is one thing that was looked at.
type Check struct {
	// Kind is isolation, emulation, disk, memory, registry or push.
	Kind string `json:"kind"`
	// Subject is what of that kind: an isolation, a platform, a directory, a
	// registry, a repository.
	Subject string `json:"subject,omitempty"`
	Status  Status `json:"status"`
	Detail  string `json:"detail"`
	// Fix is what to do, empty for what is there.
	Fix string `json:"fix,omitempty"`
}

// Report is all that was looked at, in the order of Kind's values.
type Report struct {
	// Ready means that a build can work here: nothing lacks.
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"`
}

// Isolation is one way to keep the steps of a build from the machine.
type Isolation struct {
	Name string
	// Try returns nil where it works, after having tried it.
	Try func(context.Context) error
	// Detail says what works then.
	Detail string
}

// Options say what to look at.
type Options struct {
	// Isolations in the order of preference: a build needs one of them.
	Isolations []Isolation
	// Platforms must run here. Without any, common ones are looked at and none
	// is needed.
	Platforms []ocispecs.Platform
	Emulator  Emulator
	// StateDir is where builds keep their files; it need not exist.
	StateDir string
	// Destinations are the repositories that a build would push to.
	Destinations []registry.Ref
	Registry     Registry
}

// Run looks at everything. The error is that of ctx; what cannot be found out
// is a check that lacks.
func Run(ctx context.Context, o Options) (*Report, error) {
	var checks []Check
	checks = append(checks, isolations(ctx, o.Isolations)...)
	checks = append(checks, emulation(o.Emulator, o.Platforms)...)
	checks = append(checks, disk(o.StateDir), memory(machine))
	checks = append(checks, destinations(ctx, o.Registry, o.Destinations)...)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	r := &Report{Ready: true, Checks: checks}
	for _, c := range checks {
		if c.Status == Lack {
			r.Ready = false
		}
	}
	return r, nil
}

func isolations(ctx context.Context, list []Isolation) []Check {
	var checks []Check
	missing := Lack
	for _, i := range list {
		c := Check{Kind: "isolation", Subject: i.Name, Status: OK, Detail: i.Detail}
		if err := i.Try(ctx); err != nil {
			c.fail(Lack, err, "")
		} else {
			missing = Note
		}
		checks = append(checks, c)
	}
	for i := range checks {
		if checks[i].Status == Lack {
			checks[i].Status = missing
		}
	}
	return checks
}

// fail takes detail and fix from an error. fix is for errors that have none.
func (c *Check) fail(status Status, err error, fix string) {
	c.Status, c.Detail, c.Fix = status, err.Error(), fix
	if missing, ok := errors.AsType[*sandbox.UnsupportedError](err); ok {
		c.Detail, c.Fix = missing.What, missing.Fix
	}
}
