package cli

import (
	"cmp"
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/driver/kubernetes"
	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/job"
	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/progress"
	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// onKubernetes builds every platform in a Job, and publishes the result from here.
func (c *buildCommand) onKubernetes(ctx context.Context, w *World, o build.Options) (*local.Result, *registry.Client, error) {
	if c.StateDir != "" {
		return nil, nil, usagef("--state-dir is of this machine: a Job keeps its state in the volume \"state\" of its pod, which --k8s-pod-template can make another")
	}
	if c.Profile != "" {
		return nil, nil, usagef("--profile is of a build on this machine: leave it out with --driver=k8s")
	}
	if c.started != nil {
		c.started()
	}
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.Timeout, &local.TimeoutError{Limit: o.Timeout})
		defer cancel()
	}
	client, err := newClient(w, o.Registries, c.Verbose)
	if err != nil {
		return nil, nil, err
	}
	values, err := local.ReadSecrets(o.Secrets, w.LookupEnv)
	if err != nil {
		return nil, nil, err
	}
	show, err := newShow(w, c.Progress, values.Values())
	if err != nil {
		return nil, nil, err
	}
	k := &onCluster{buildCommand: c, w: w, client: client, secrets: values, show: &collector{Reporter: show}}
	result, err := k.build(ctx, o)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause // libraries report that they were cancelled, not why
	}
	result, err = show.end(result, err, nil)
	return result, client, err
}

// onCluster is a build whose platforms are built by Jobs.
type onCluster struct {
	*buildCommand
	w      *World
	client *registry.Client
	show   *collector
	// secrets are the build's.
	secrets local.Secrets
}

func (k *onCluster) build(ctx context.Context, o build.Options) (*local.Result, error) {
	config := k.kubernetesFlags.config()
	config.Parallel, config.RequireNative = o.Parallel, on(k.RequireNativeNodes)
	target, err := local.ParseTarget(o)
	if err != nil {
		return nil, err
	}
	cluster, err := kubernetes.Connect(kubernetes.Connection{Kubeconfig: k.K8sKubeconfig, Context: k.K8sContext, UserAgent: "kaniko-multiarch/" + Version})
	if err != nil {
		return nil, err
	}
	driver, err := kubernetes.New(cluster, config)
	if err != nil {
		return nil, err
	}
	driver.Progress, driver.Key = k.show, cmp.Or(o.Key, path.Base(target.Repository.Repository))
	here := &local.Driver{Registry: k.client, Progress: k.show, LookupEnv: k.w.LookupEnv, Now: time.Now, Stdin: k.w.Stdin, Stdout: k.w.Stdout}
	if err := here.Ready(ctx, o); err != nil {
		return nil, err
	}
	var platforms []string
	for _, p := range target.Platforms {
		platforms = append(platforms, platform.Format(p))
	}
	places, err := driver.Place(ctx, platforms)
	if err != nil {
		return nil, err
	}
	payloads, err := k.prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	var tasks []kubernetes.Task
	for _, p := range platforms {
		t, err := k.task(p, places[p], payloads[p])
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, t)
	}
	answers := &answers{by: map[string]job.Result{}}
	driver.Answer = answers.take
	if err := driver.Run(ctx, tasks); err != nil {
		return nil, err
	}
	var records []record.Record
	var rows []progress.ImageRow
	for _, p := range platforms {
		r := answers.by[p]
		records, rows = append(records, *r.Record), append(rows, r.Row())
	}
	result, err := here.Publish(ctx, o, records, rows)
	if err != nil {
		return nil, err
	}
	result.Warnings = k.show.list()
	return result, nil
}

// prepare stores what Jobs need of this machine. A large context takes a while.
func (k *onCluster) prepare(ctx context.Context, o build.Options) (map[string]job.Payload, error) {
	id := digest.FromString("prepare")
	k.show.Plan(progress.Vertex{ID: id, Name: "preparing the Jobs"})
	k.show.Start(id)
	payloads, err := job.Prepare(ctx, job.From{
		Registry: k.client, LookupEnv: k.w.LookupEnv, Secrets: k.secrets, Stdin: k.w.Stdin,
		Say: func(text string) { _, _ = io.WriteString(k.show.Log(id, 2), text+"\n") },
	}, elsewhere(o))
	k.show.Done(id, false, err)
	return payloads, err
}

// elsewhere is what Jobs are asked for: they have all of their pod, and it is here
// that time runs out.
func elsewhere(o build.Options) build.Options {
	o.Parallel, o.Timeout = 0, 0
	return o
}

// task is what the pod of a platform is told.
func (k *onCluster) task(name, arch string, p job.Payload) (kubernetes.Task, error) {
	request, err := p.Request.Encode()
	if err != nil {
		return kubernetes.Task{}, &usage{err}
	}
	args := []string{"job", "--progress=json", "--isolation=" + k.Isolation}
	if k.Force {
		args = append(args, "--force")
	}
	if k.Verbose {
		args = append(args, "--verbose")
	}
	return kubernetes.Task{Platform: name, Arch: arch, Args: append(args, "--request="+request), Secret: p.Secret, SecretDir: job.SecretDir}, nil
}

// answers are those of the Jobs, by platform.
type answers struct {
	mu sync.Mutex
	by map[string]job.Result
}

// take reads the message of a pod.
func (a *answers) take(platform, message string) (whole bool, err error) {
	r, err := job.ParseResult(message)
	if err != nil {
		return !errors.Is(err, job.ErrNoResult), err
	}
	if r.ExitCode != 0 || r.Record == nil {
		return true, &job.FailedError{Platform: platform, Result: r}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.by[platform] = r
	return true, nil
}

// collector remembers the warnings of the Dockerfile's checks, which pods print.
type collector struct {
	progress.Reporter
	mu       sync.Mutex
	warnings []progress.Warning
}

func (c *collector) Warn(w progress.Warning) {
	c.Reporter.Warn(w)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.warnings, w) { // every platform has it
		c.warnings = append(c.warnings, w)
	}
}

func (c *collector) list() []progress.Warning {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []progress.Warning
	for _, w := range c.warnings {
		if w.File != "" || w.URL != "" {
			out = append(out, w)
		}
	}
	return out
}
