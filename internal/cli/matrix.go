package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/registry"
	"github.com/org/kaniko-multiarch/matrix"
)

type matrixCommand struct {
	Platform    []string `sep:"none" required:"" help:"Platforms to build for: linux/amd64,linux/arm64."`
	Image       string   `help:"Repository that the images are pushed to (default: that of the first destination)."`
	Destination []string `short:"d" sep:"none" help:"Names of the index: REPO:TAG."`
	Target      string   `help:"Stage of the Dockerfile to build."`
	Context     string   `short:"c" default:"." help:"Directory of the build context."`
	Dockerfile  string   `short:"f" help:"Path of the Dockerfile, tried in the working directory, then in the context."`
	BuildArg    []string `sep:"none" help:"NAME=VALUE of an ARG."`
	Key         string   `help:"Names what is built (default: made of the image and the rest)."`
	Runner      []string `sep:"none" help:"PLATFORM=RUNNER or default=RUNNER; RUNNER is a label, or JSON of labels or of a group."`
	Kubernetes  bool     `help:"A cluster builds; the runners only wait."`
	Format      string   `enum:"json" default:"json" help:"json."`
	registryFlags
}

// Run prints the plan as JSON.
func (c *matrixCommand) Run(ctx context.Context, w *World) error {
	platforms, err := platform.ParseList(splitList(c.Platform))
	if err != nil {
		return usagef("--platform: %w", err)
	}
	runners, err := matrix.ParseRunners(strings.Join(splitLines(c.Runner), "\n"))
	if err != nil {
		return usagef("--runner: %w", err)
	}
	registries, err := c.registries(w)
	if err != nil {
		return err
	}
	client, err := newClient(w, registries, c.Verbose)
	if err != nil {
		return err
	}
	args, err := pairs("build-arg", c.BuildArg, w.LookupEnv)
	if err != nil {
		return err
	}
	runs := local.RunsOn(ctx, client, build.Options{Context: c.Context, Dockerfile: c.Dockerfile, Target: c.Target, BuildArgs: args})
	var failed error
	plan, err := matrix.New(matrix.Options{
		Images: []matrix.Image{{
			Image: c.Image, Tags: splitList(c.Destination), Target: c.Target, Dockerfile: c.Dockerfile, Context: c.Context,
			BuildArgs: resolved(args), Key: c.Key, Platforms: platforms,
			RunsOnTarget: func(p ocispecs.Platform) (bool, error) {
				does, err := runs(p)
				if err != nil && ctx.Err() == nil && mayGuess(err) {
					// A matrix is often made where there is no login or no
					// checkout yet. An emulator too many costs time, one too
					// few the build.
					fmt.Fprintf(w.Stderr, "notice: assuming that steps run on %s: %v\n", platform.Format(p), err)
					return true, nil
				}
				if err != nil {
					failed = cmp.Or(context.Cause(ctx), err)
				}
				return does, err
			},
		}},
		Runners: runners, Defaults: matrix.GitHubRunners(), Kubernetes: c.Kubernetes,
	})
	if failed != nil {
		return failed
	}
	if err != nil {
		return &usage{err}
	}
	enc := json.NewEncoder(w.Stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(plan)
}

// mayGuess tells what is not known here from what is wrong.
func mayGuess(err error) bool {
	var place *local.ContextError
	if errors.As(err, &place) {
		return place.NoDockerfile
	}
	return errors.Is(err, registry.ErrDenied) || errors.Is(err, registry.ErrUnavailable) || errors.Is(err, registry.ErrNotFound)
}

// resolved are build arguments as NAME=VALUE, sorted: a NAME alone counts with
// the value that it has here.
func resolved(args map[string]string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(args)) {
		out = append(out, name+"="+args[name])
	}
	return out
}
