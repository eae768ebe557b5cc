package cli

import (
	"context"
	"slices"
	"time"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/driver/local"
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
	var profile *profile
	if r.profile != "" {
		if profile, err = startProfile(r.profile); err != nil {
			return nil, err
		}
	}
	show, err := newShow(w, r.progress, secrets)
	if err != nil {
		return nil, err
	}
	driver := &local.Driver{
		Isolation: isolation, Registry: r.client, Progress: show, Secrets: values, Agents: agents,
		Emulation: emulator.Require, LookupEnv: w.LookupEnv, Now: time.Now, Stdin: w.Stdin, Stdout: w.Stdout,
	}
	if r.with != nil {
		r.with(driver)
	}
	result, err := driver.Build(ctx, r.options)
	return show.end(result, withFix(isolation, err), profile)
}
