package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/job"
	"github.com/org/kaniko-multiarch/internal/record"
)

// jobCommand is a build that another machine asks for, in a pod. Its flags are
// between the two; people have build.
type jobCommand struct {
	Request    string `required:"" help:"What to build, as the driver encodes it."`
	ResultFile string `default:"/dev/termination-log" help:"File for what came of it."`
	SecretDir  string `default:"/kaniko/job" help:"Directory of the request's Secret."`
	StateDir   string `help:"Directory for base layers and cache mounts (default: the user's cache directory)."`
	Isolation  string `enum:"auto,namespaces,inplace" default:"auto" help:"As that of build."`
	Force      bool   `help:"As that of build."`
	Progress   string `enum:"auto,plain,tty,json,quiet" default:"plain" help:"As that of build."`
	Verbose    bool   `help:"As that of build."`
}

// Run builds, and leaves a result whatever comes of it.
func (c *jobCommand) Run(ctx context.Context, w *World) (err error) {
	// It is open before "/" is a step's. The kubelet reads this very file.
	out, err := os.OpenFile(c.ResultFile, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return usagef("--result-file: %w", err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	result, err := c.build(ctx, w)
	var silent exitError
	if errors.As(err, &silent) {
		return err // the process that builds has written its result
	}
	answer := answerOf(result, err)
	data, encodeErr := answer.Encode()
	if encodeErr == nil {
		_ = out.Truncate(0) // a pipe has nothing before this
		_, encodeErr = out.Write(data)
	}
	if encodeErr != nil {
		return errors.Join(err, fmt.Errorf("writing the result: %w", encodeErr))
	}
	return err
}

// answerOf is the result of a build for the driver that asked for it.
func answerOf(built *local.Result, err error) job.Result {
	if err != nil {
		r := job.Result{}
		r.ExitCode, r.Error = explain(err)
		if code, ok := stepCode(err); ok {
			r.StepCode = &code
		}
		return r
	}
	one, row := built.Records[0], built.Rows[0]
	one.Schema = record.Schema
	return job.Result{Record: &one, LayersReused: row.LayersReused, LayersBuilt: row.LayersBuilt, ImageSize: row.Size}
}

func (c *jobCommand) build(ctx context.Context, w *World) (_ *local.Result, err error) {
	request, err := job.Decode(c.Request)
	if err != nil {
		return nil, &usage{err}
	}
	o := build.Options{StateDir: c.StateDir}
	if o.StateDir == "" {
		o.StateDir = stateDir(w.Getenv)
	}
	if o.StateDir, err = filepath.Abs(o.StateDir); err != nil {
		return nil, fmt.Errorf("--state-dir: %w", err)
	}
	secretDir, err := filepath.Abs(c.SecretDir)
	if err != nil {
		return nil, fmt.Errorf("--secret-dir: %w", err)
	}
	r := &running{options: o, namedState: c.StateDir != "", isolation: c.Isolation, force: c.Force, verbose: c.Verbose, progress: c.Progress}
	work := ""
	defer func() {
		if work != "" {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	r.open = func(w *World) error {
		var err error
		if work, err = tempDir("kma-job-"); err != nil {
			return fmt.Errorf("making a directory for the request: %w", err)
		}
		opened, err := request.Open(work, secretDir)
		if err != nil {
			return &usage{err}
		}
		// The request's paths are relative.
		if err := os.Chdir(work); err != nil {
			return err
		}
		opened.Options.StateDir = r.options.StateDir
		r.options, r.secrets = opened.Options, opened.Secrets
		lookup := w.LookupEnv
		w.LookupEnv = func(name string) (string, bool) {
			if v, ok := opened.Variables[name]; ok {
				return v, true
			}
			return lookup(name)
		}
		return nil
	}
	r.with = func(d *local.Driver) { d.Run, d.DockerfileName = &request.Run, request.DockerfileName }
	return r.build(ctx, w)
}
