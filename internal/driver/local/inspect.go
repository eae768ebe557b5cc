package local

import (
	"context"
	"errors"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/frontend"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// StepPlatforms returns a function that says on which platforms the steps run
// of a build for a platform, on a machine of another. It reads the Dockerfile and
// the configs of its base images; nothing is built, nor is a context fetched.
func StepPlatforms(ctx context.Context, client *registry.Client, o build.Options) func(host, p ocispecs.Platform) ([]ocispecs.Platform, error) {
	images := newBaseImages(client)
	return func(host, p ocispecs.Platform) ([]ocispecs.Platform, error) {
		if err := here(o); err != nil {
			return nil, err
		}
		contexts, err := openContexts(ctx, o, (&Driver{Registry: client}).remoteContexts(o, o.StateDir))
		if err != nil {
			return nil, err
		}
		defer contexts.close()
		opts := contexts.frontend(o, []ocispecs.Platform{p}, images)
		opts.BuildPlatform = &host
		loaded, err := frontend.Load(ctx, opts)
		if err != nil {
			return nil, err
		}
		return frontend.StepPlatforms(loaded.Graph.Images[0]), nil
	}
}

// here refuses what would have to be fetched for a look, as if there were no
// Dockerfile.
func here(o build.Options) error {
	elsewhere := &ContextError{Name: mainContext, Err: errors.New("it is not fetched to look at its Dockerfile"), NoDockerfile: true}
	if inRepository(o.Context) || strings.Contains(o.Dockerfile, "://") {
		return elsewhere
	}
	at, err := buildcontext.Parse(o.Context)
	if err != nil {
		return &ContextError{Name: mainContext, Err: err}
	}
	if at.Kind != buildcontext.Directory {
		return elsewhere
	}
	return nil
}
