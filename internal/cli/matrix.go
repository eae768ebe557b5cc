package cli

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/org/kaniko-multiarch/internal/ci"
	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/matrix"
)

type matrixCommand struct {
	Platform     []string `sep:"none" help:"Platforms to build for: linux/amd64,linux/arm64."`
	Image        string   `help:"Repository that the images are pushed to (default: that of the first destination)."`
	Destination  []string `short:"d" sep:"none" help:"Names of the index: REPO:TAG."`
	Target       string   `help:"Stage of the Dockerfile to build."`
	Context      string   `short:"c" default:"." help:"Directory of the build context."`
	Dockerfile   string   `short:"f" help:"Path of the Dockerfile, tried in the working directory, then in the context."`
	BuildArg     []string `sep:"none" help:"NAME=VALUE of an ARG."`
	BuildContext []string `sep:"none" help:"NAME=VALUE of a named context, as build takes it; for the look at the Dockerfile."`
	Key          string   `help:"Names what is built (default: made of the image and the rest)."`
	Builds       string   `help:"Several builds, as YAML or a file with it: a list of image, tags, target, context, dockerfile, build-args, platforms, key; the flags are the defaults."`
	Dimension    []string `sep:"none" help:"NAME=VALUE,VALUE: a build for each value; NAME is image, target, dockerfile, context or an ARG, and {NAME} in other values stands for it."`
	Include      []string `sep:"none" help:"NAME=VALUE,NAME=VALUE: one more combination of dimensions, or platform=PLATFORM of one."`
	Exclude      []string `sep:"none" help:"NAME=VALUE,NAME=VALUE: no such combinations, or platforms of them."`
	Runner       []string `sep:"none" help:"PLATFORM=RUNNER or default=RUNNER; RUNNER is a label, or JSON of labels or of a group."`
	Distribute   string   `enum:"auto,always,never" default:"auto" help:"auto: platforms that no step runs on share a job; always: a job for each; never: one for all."`
	CheckBases   string   `enum:"error,drop," default:"" help:"Whether base images have each platform: error, or drop what they lack."`
	Kubernetes   bool     `help:"A cluster builds; the runners only wait."`
	Format       string   `enum:"github,gitlab,jenkins,json,tree,plain," default:"" help:"github, gitlab (a child pipeline), jenkins, json, tree or plain (default: github in GitHub Actions, else json)."`
	JobImage     string   `help:"Image of the jobs of a child pipeline (default: that of this job)."`
	FailOnEmpty  bool     `help:"Fail when there is nothing to build."`
	registryFlags
}

// system is a CI system's way with a matrix.
type system struct {
	defaults matrix.Runners
	name     string
	// limit is how many jobs it takes.
	limit int
}

var systems = map[string]system{
	"github":  {matrix.GitHubRunners(), "GitHub", 256},
	"gitlab":  {matrix.GitLabRunners(), "GitLab", 200},
	"jenkins": {matrix.JenkinsRunners(), "Jenkins", 0},
}

// Run prints the plan.
func (c *matrixCommand) Run(ctx context.Context, w *World) error {
	format := c.format(w)
	sys, ok := systems[format]
	if !ok {
		sys = systems["github"]
		sys.limit = 0
	}
	runners, err := matrix.ParseRunners(strings.Join(splitLines(c.Runner), "\n"))
	if err != nil {
		return usagef("--runner: %w", err)
	}
	images, err := c.images(w)
	if err != nil {
		return err
	}
	look, err := c.newLook(ctx, w)
	if err != nil {
		return err
	}
	for i := range images {
		images[i].StepsOn = look.at(images[i])
	}
	plan, err := matrix.New(matrix.Options{
		Images: images, Runners: runners, Defaults: sys.defaults, Kubernetes: c.Kubernetes,
		Distribute: matrix.Distribute(c.Distribute), CheckBases: matrix.CheckBases(c.CheckBases),
		Limit: sys.limit, System: sys.name,
	})
	if errors.As(err, &lookError{}) {
		return err
	}
	if err != nil {
		return &usage{err}
	}
	for _, n := range plan.Notices {
		say(w, "notice", n)
	}
	if plan.Empty && c.FailOnEmpty {
		return usagef("there is nothing to build, and --fail-on-empty is given: check --platform, --builds and --exclude")
	}
	if plan.Empty {
		say(w, "notice", "there is nothing to build")
	}
	err = c.write(w, format, plan)
	var inexpressible *matrix.FormatError
	if errors.As(err, &inexpressible) {
		return &usage{err}
	}
	return err
}

func (c *matrixCommand) format(w *World) string {
	switch {
	case c.Format != "":
		return c.Format
	case w.Getenv("GITHUB_ACTIONS") == "true":
		return "github"
	}
	return "json"
}

// images are what is to be built: the flags, or each of --builds, multiplied by
// the dimensions.
func (c *matrixCommand) images(w *World) ([]matrix.Image, error) {
	platforms, err := platform.ParseList(splitList(c.Platform))
	if err != nil {
		return nil, usagef("--platform: %w", err)
	}
	args, err := pairs("build-arg", c.BuildArg, w.LookupEnv)
	if err != nil {
		return nil, err
	}
	bases := []matrix.Image{{
		Image: c.Image, Tags: splitList(c.Destination), Target: c.Target, Dockerfile: c.Dockerfile, Context: c.Context,
		BuildArgs: resolved(args), Key: c.Key, Platforms: platforms,
	}}
	if c.Builds != "" {
		if bases, err = readBuilds(c.Builds, bases[0]); err != nil {
			return nil, usagef("--builds: %w", err)
		}
	}
	var dims []matrix.Dimension
	for _, line := range splitLines(c.Dimension) {
		d, err := matrix.ParseDimension(line)
		if err != nil {
			return nil, usagef("--dimension: %w", err)
		}
		dims = append(dims, d)
	}
	include, err := selections("include", c.Include, dims)
	if err != nil {
		return nil, err
	}
	exclude, err := selections("exclude", c.Exclude, dims)
	if err != nil {
		return nil, err
	}
	var out []matrix.Image
	for _, base := range bases {
		images, err := matrix.Product(base, dims, include, exclude)
		if err != nil {
			return nil, usagef("--dimension: %w", err)
		}
		out = append(out, images...)
	}
	return out, nil
}

func selections(flag string, values []string, dims []matrix.Dimension) ([]matrix.Selection, error) {
	var out []matrix.Selection
	for _, line := range splitLines(values) {
		s, err := matrix.ParseSelection(line, dims)
		if err != nil {
			return nil, usagef("--%s: %w", flag, err)
		}
		out = append(out, s)
	}
	return out, nil
}

// write prints the plan, and hands it to GitHub.
func (c *matrixCommand) write(w *World, format string, plan *matrix.Plan) error {
	switch format {
	case "gitlab":
		image := c.JobImage
		if image == "" {
			// What runs this job has the program.
			image = w.Getenv("CI_JOB_IMAGE")
		}
		return plan.WriteGitLab(w.Stdout, matrix.GitLab{JobImage: image})
	case "jenkins":
		return plan.WriteJenkins(w.Stdout)
	case "tree":
		return plan.WriteTree(w.Stdout)
	case "plain":
		return plan.WritePlain(w.Stdout)
	}
	if format == "github" {
		outputs, err := planOutputs(plan)
		if err != nil {
			return err
		}
		if err := ci.WriteOutputs(w.Getenv, outputs...); err != nil {
			return err
		}
	}
	enc := json.NewEncoder(w.Stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(plan)
}

func planOutputs(plan *matrix.Plan) ([]ci.Output, error) {
	rows, err := json.Marshal(plan.Matrix)
	if err != nil {
		return nil, err
	}
	merges, err := json.Marshal(plan.Merges)
	if err != nil {
		return nil, err
	}
	return []ci.Output{
		{Name: "matrix", Value: string(rows)}, {Name: "merges", Value: string(merges)},
		{Name: "platforms", Value: plan.Platforms}, {Name: "key", Value: plan.Key}, {Name: "artifacts", Value: plan.Artifacts},
		{Name: "count", Value: strconv.Itoa(plan.Count)}, {Name: "empty", Value: strconv.FormatBool(plan.Empty)},
	}, nil
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
