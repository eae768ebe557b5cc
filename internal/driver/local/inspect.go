package local

import (
	"context"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/frontend"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// RunsOn returns a function that says whether a build for a platform runs a
// step on that platform. It reads the Dockerfile and the configs of its base
// images; nothing is built.
func RunsOn(ctx context.Context, client *registry.Client, o build.Options) func(ocispecs.Platform) (bool, error) {
	images := newBaseImages(client)
	return func(p ocispecs.Platform) (bool, error) {
		contexts, err := openContexts(ctx, o, (&Driver{Registry: client}).remoteContexts(o, o.StateDir))
		if err != nil {
			return false, err
		}
		defer contexts.close()
		loaded, err := frontend.Load(ctx, contexts.frontend(o, []ocispecs.Platform{p}, images))
		if err != nil {
			return false, err
		}
		return frontend.RunsOn(loaded.Graph.Images[0], p), nil
	}
}
