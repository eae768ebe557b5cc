package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/registry"
	"github.com/org/kaniko-multiarch/matrix"
)

// look reads Dockerfiles for the matrix.
type look struct {
	ctx    context.Context
	client *registry.Client
	named  map[string]string
	// down is a registry that did not answer in all tries. Those of one matrix
	// are patient once: the answer only spares an emulator or a job.
	down error
}

// lookError is what a Dockerfile or a registry said: no mistake in the flags.
type lookError struct{ error }

func (e lookError) Unwrap() error { return e.error }

func (c *matrixCommand) newLook(ctx context.Context, w *World) (*look, error) {
	registries, err := c.registries(w)
	if err != nil {
		return nil, err
	}
	named, err := pairs("build-context", splitLines(c.BuildContext), nil)
	if err != nil {
		return nil, err
	}
	client, err := newClient(w, registries, c.Verbose)
	return &look{ctx: ctx, client: client, named: named}, err
}

// at answers for one image.
func (l *look) at(img matrix.Image) func(host, p ocispecs.Platform) ([]ocispecs.Platform, error) {
	args := map[string]string{}
	for _, a := range img.BuildArgs {
		name, value, _ := strings.Cut(a, "=")
		args[name] = value
	}
	steps := local.StepPlatforms(l.ctx, l.client, build.Options{
		Context: cmp.Or(img.Context, "."), Dockerfile: img.Dockerfile, Target: img.Target, BuildArgs: args, BuildContexts: l.named,
	})
	return func(host, p ocispecs.Platform) ([]ocispecs.Platform, error) {
		if l.down != nil {
			return nil, l.judge(p, l.down)
		}
		out, err := steps(host, p)
		if errors.Is(err, registry.ErrUnavailable) {
			l.down = err
		}
		if err != nil {
			err = l.judge(p, err)
		}
		return out, err
	}
}

// judge tells what is not known here from what is wrong.
func (l *look) judge(p ocispecs.Platform, err error) error {
	if l.ctx.Err() != nil {
		return lookError{context.Cause(l.ctx)}
	}
	var (
		place *local.ContextError
		base  *registry.PlatformError
	)
	err = lookError{err}
	switch {
	case errors.As(err, &place) && place.NoDockerfile,
		errors.Is(err, registry.ErrDenied), errors.Is(err, registry.ErrUnavailable), errors.Is(err, registry.ErrNotFound):
		return fmt.Errorf("%w: %w", matrix.ErrUnknown, err)
	case errors.As(err, &place):
		return fmt.Errorf("%w: %w", matrix.ErrNoSource, err)
	case errors.As(err, &base) && platform.Equal(base.Want, p):
		return &matrix.BaseError{Platform: p, Err: err}
	}
	return err
}
