package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/progress"
	"github.com/org/kaniko-multiarch/internal/registry"
	"github.com/org/kaniko-multiarch/internal/sandbox/emulation"
)

// running is a build on this machine, wherever its options come from.
type running struct {
	options build.Options
	// namedState is set when the user named the state directory.
	namedState          bool
	isolation, progress string
	// profile is a directory for profiles; empty for none.
	profile        string
	force, verbose bool
	// started, if any, is called in the process that builds, which may be another
	// one than the first.
	started func()
	// open, if any, completes the build in the process that builds, and the driver
	// with it.
	open func(*World) error
	with func(*local.Driver)
	// secrets must not be shown, like those of the options.
	secrets []string

	// client is that of the build.
	client *registry.Client
}

// build builds and shows the progress. It starts this program again in an isolated
// process first, so that nothing is left when it ends.
func (r *running) build(ctx context.Context, w *World) (*local.Result, error) {
	emulator := emulation.New(w.Getenv)
	isolation, err := isolation(ctx, r.isolation, r.options.StateDir, r.force, emulator, debugLog(w, r.verbose))
	if err != nil {
		return nil, err
	}
	if r.started != nil {
		r.started()
	}
	if !r.namedState {
		r.options.StateDir = isolation.StateDir(r.options.StateDir)
	}
	if _, ok := isolation.(inPlace); ok {
		if err := steady(r.options.StateDir); err != nil {
			return nil, err
		}
	}
	if r.open != nil {
		if err := r.open(w); err != nil {
			return nil, err
		}
	}
	if r.client, err = newClient(w, r.options.Registries, r.verbose); err != nil {
		return nil, err
	}
	values, err := local.ReadSecrets(r.options.Secrets, w.LookupEnv)
	if err != nil {
		return nil, err
	}
	secrets := slices.Concat(values.Values(), r.secrets)
	agents, err := openAgents(r.options.SSH, w.Getenv)
	if err != nil {
		return nil, err
	}
	look := progress.Options{Out: w.Stderr, Mode: progress.Mode(r.progress), Redact: secrets, Sections: w.Getenv("GITLAB_CI") == "true"}
	if w.console != nil {
		look.Groups = w.console
	}
	display, err := progress.New(look)
	if err != nil {
		return nil, usagef("--progress: %w", err)
	}
	driver := &local.Driver{
		Isolation: isolation, Registry: r.client, Progress: display, Secrets: values, Agents: agents,
		Emulation: emulator.Require, LookupEnv: w.LookupEnv, Now: time.Now, Stdin: w.Stdin, Stdout: w.Stdout,
	}
	if r.with != nil {
		r.with(driver)
	}
	var profile *profile
	if r.profile != "" {
		if profile, err = startProfile(r.profile); err != nil {
			return nil, err
		}
	}
	result, err := driver.Build(ctx, r.options)
	if err == nil {
		display.Table("images", result.Rows)
	}
	if closeErr := display.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("showing the progress: %w", closeErr)
	}
	if profile != nil {
		err = errors.Join(err, profile.end(display.Timeline(), secrets))
	}
	err = withFix(isolation, err)
	if failed := summarize(w, result, err, display.Timeline(), secrets); err == nil && failed != nil {
		err = failed
	}
	if err != nil {
		annotateError(w, err, secrets)
		return nil, &redactedError{err: err, text: progress.Redact(err.Error(), secrets)}
	}
	annotateWarnings(w, result.Warnings)
	return result, nil
}

// redactedError is an error without secrets in its text: that of a failed step
// holds its command.
type redactedError struct {
	err  error
	text string
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.err }
