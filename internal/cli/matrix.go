package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/platform"
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
	client, err := c.client(w)
	if err != nil {
		return err
	}
	args, err := pairs("build-arg", c.BuildArg, nil)
	if err != nil {
		return err
	}
	runs := local.RunsOn(ctx, client, build.Options{Context: c.Context, Dockerfile: c.Dockerfile, Target: c.Target, BuildArgs: args})
	plan, err := matrix.New(matrix.Options{
		Images: []matrix.Image{{
			Image: c.Image, Tags: splitList(c.Destination), Target: c.Target, Dockerfile: c.Dockerfile, Context: c.Context,
			BuildArgs: splitLines(c.BuildArg), Key: c.Key, Platforms: platforms,
			RunsOnTarget: func(p ocispecs.Platform) (bool, error) {
				does, err := runs(p)
				if err != nil {
					// A matrix is often made where there is no login yet. An
					// emulator too many costs time, one too few the build.
					fmt.Fprintf(w.Stderr, "notice: assuming that steps run on %s: %v\n", platform.Format(p), err)
					return true, nil
				}
				return does, nil
			},
		}},
		Runners: runners, Defaults: matrix.GitHubRunners(), Kubernetes: c.Kubernetes,
	})
	if err != nil {
		return &usage{err}
	}
	enc := json.NewEncoder(w.Stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(plan)
}
