package local

import (
	"context"
	"errors"
	"fmt"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/frontend"
	"github.com/org/kaniko-multiarch/internal/graph"
)

// Ask answers a request about the Dockerfile of o; nothing is built. For
// frontend.RequestCheck it returns what was found as well; the error is then a
// *frontend.Error when the Dockerfile cannot be built.
func (d *Driver) Ask(ctx context.Context, o build.Options, request string) (answer *frontend.Answer, found []frontend.Finding, err error) {
	err = d.withFrontend(ctx, o, func(opts *frontend.Options) error {
		var err error
		if answer, err = frontend.Ask(ctx, *opts, request); err != nil || request != frontend.RequestCheck {
			return err
		}
		found, err = opts.Findings(answer)
		return err
	})
	return answer, found, err
}

// Plan is what Build would do, which it does not.
func (d *Driver) Plan(ctx context.Context, o build.Options) (plan *graph.Graph, err error) {
	err = d.withFrontend(ctx, o, func(opts *frontend.Options) error {
		loaded, err := frontend.Load(ctx, *opts)
		if err != nil {
			return fmt.Errorf("loading the Dockerfile: %w", err)
		}
		plan = loaded.Graph
		return nil
	})
	return plan, err
}

// withFrontend opens the build's contexts for as long as use takes.
func (d *Driver) withFrontend(ctx context.Context, o build.Options, use func(*frontend.Options) error) (err error) {
	platforms, err := parsePlatforms(o.Platforms)
	if err != nil {
		return err
	}
	o, fetched, err := d.fetch(ctx, o, o.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fetched()) }()
	contexts, err := openContexts(ctx, o, d.remoteContexts(o, o.StateDir))
	if err != nil {
		return err
	}
	defer contexts.close()
	opts := contexts.frontend(o, platforms, newBaseImages(d.Registry))
	return use(&opts)
}
