// Package local is the driver that builds all platforms in this process, with
// the engine.
//
// It must not know what the command line looks like, nor how an index is made:
// that is merge's.
package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/ci"
	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/frontend"
	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/progress"
	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/registry"
	"github.com/org/kaniko-multiarch/internal/rootfs"
	"github.com/org/kaniko-multiarch/internal/rootfs/state"
	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sshagent"
)

// Driver builds on this machine.
type Driver struct {
	// Isolation opens the storage and the way to run processes.
	Isolation Isolation
	Registry  *registry.Client
	// Secrets are those of the options; see ReadSecrets.
	Secrets Secrets
	// Agents are the SSH agents of the options; nil means none.
	Agents   *sshagent.Agents
	Progress progress.Reporter
	// Emulation returns an error that says the fix when steps of p cannot run
	// here.
	Emulation func(p ocispecs.Platform) error
	LookupEnv func(string) (string, bool)
	// Stdin may have the context; nil is empty.
	Stdin io.Reader
	// Stdout takes the outputs that go to "-".
	Stdout io.Writer
	Now    func() time.Time
	// Run is the CI run of the records; nil asks the environment.
	Run *ci.Run
	// DockerfileName is the Dockerfile's name in messages; empty for its path.
	DockerfileName string
}

// Isolation is where trees live and processes run. They go together.
type Isolation interface {
	// StateDir is the directory to use when the user names none; byDefault is
	// where it would be best for the user.
	StateDir(byDefault string) string
	Open(ctx context.Context, stateDir string) (*Place, error)
}

// Place is where one build has its trees and processes.
type Place struct {
	Store  rootfs.Store
	Runner sandbox.Runner
	// Plain is engine.Engine's; nil means that Store has all.
	Plain rootfs.Store
}

// Close releases what does not outlive the build.
func (p *Place) Close() error {
	err := p.Store.Close()
	if p.Plain != nil {
		err = errors.Join(err, p.Plain.Close())
	}
	return err
}

// Result is what was built.
type Result struct {
	// Digest is that of the index, or of the only image.
	Descriptor ocispecs.Descriptor
	// Tags are the names that were published.
	Tags    []string
	Records []record.Record
	Rows    []progress.ImageRow
	// Pushed is false when nothing was sent.
	Pushed bool
	// Warnings are those of the Dockerfile's checks.
	Warnings []progress.Warning
	// Image is the repository that the digest is in; empty without one.
	Image string

	// index is the exact bytes of the index, if there is one.
	index []byte
}

// TimeoutError is a build that took too long.
type TimeoutError struct{ Limit time.Duration }

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("the build took longer than --timeout=%s", e.Limit)
}

// InputError is a mistake in the options.
type InputError struct{ Err error }

func (e *InputError) Error() string { return e.Err.Error() }
func (e *InputError) Unwrap() error { return e.Err }

func badInput(format string, args ...any) error {
	return &InputError{Err: fmt.Errorf(format, args...)}
}

// Build builds and publishes what o says.
func (d *Driver) Build(ctx context.Context, o build.Options) (_ *Result, err error) {
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.Timeout, &TimeoutError{o.Timeout})
		defer cancel()
	}
	defer func() {
		// Libraries report that they were cancelled, not why.
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause
		}
	}()
	started := d.Now()
	platforms, err := parsePlatforms(o.Platforms)
	if err != nil {
		return nil, err
	}
	target, err := parseTarget(o, len(platforms))
	if err != nil {
		return nil, err
	}
	if err := target.check(platforms, o); err != nil {
		return nil, err
	}
	if err := makeDirs(o); err != nil {
		return nil, err
	}
	docker, err := d.checkOutputs(ctx, o, len(platforms))
	if err != nil {
		return nil, err
	}
	compression, err := parseCompression(o)
	if err != nil {
		return nil, err
	}
	if o.StateDir == "" {
		return nil, badInput("no directory for state: give --state-dir")
	}
	place, err := d.Isolation.Open(ctx, o.StateDir)
	if err != nil {
		return nil, err
	}
	defer d.prune(ctx, o)
	defer func() { err = errors.Join(err, place.Close()) }()
	spool, err := place.Store.Spool()
	if err != nil {
		return nil, err
	}
	o, fetched, err := d.fetch(ctx, o, spool)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, fetched()) }()
	contexts, err := openContexts(ctx, o, d.remoteContexts(o, spool))
	if err != nil {
		return nil, err
	}
	defer contexts.close()

	prepared, stop := d.startPrepare(ctx, o, target)
	defer stop()
	images := newBaseImages(d.Registry)
	contexts.display = cmp.Or(d.DockerfileName, contexts.display)
	loaded, err := frontend.Load(ctx, contexts.frontend(o, platforms, images))
	var warnings []progress.Warning
	if loaded != nil {
		for _, w := range loaded.Warnings {
			d.Progress.Warn(progress.Warning(w))
			warnings = append(warnings, progress.Warning(w))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("loading the Dockerfile: %w", err)
	}
	emulated, err := d.checkEmulation(loaded.Graph)
	if err != nil {
		return nil, err
	}
	if o.RequireNative && len(emulated) > 0 {
		return nil, &sandbox.UnsupportedError{
			What: fmt.Sprintf("building %s without an emulator, as --require-native-nodes wants, on %s", strings.Join(slices.Sorted(maps.Keys(emulated)), ", "), platform.Format(platform.Host())),
			Fix:  "build it on a machine of its own, or leave out --require-native-nodes",
		}
	}

	if err := prepared(); err != nil {
		return nil, err
	}

	e := &engine.Engine{
		Store: place.Store, Plain: place.Plain, Sandbox: place.Runner, Images: images, Contexts: contexts.engine(),
		Progress: d.Progress, Download: newDownloader(o.Registries.Retry), Secrets: d.Secrets, Agents: d.Agents,
		Git:      contexts.remote.git,
		SpoolDir: spool, Parallel: o.Parallel, Now: d.Now, RewriteTimes: o.Reproducible || o.RewriteTimestamp && epoch(o, loaded.Epoch) != nil,
		Compression: compression,
		Epoch:       epoch(o, loaded.Epoch), Annotations: target.manifestAnnotations,
	}
	layers, err := d.openCache(o, target, contexts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, layers.close()) }()
	if len(layers.From)+len(layers.To) > 0 {
		e.Cache, e.CacheReadOnly = layers, len(layers.To) == 0
	}
	out, err := d.publishers(o, target, spool, images, e.Epoch)
	if err != nil {
		return nil, err
	}
	out.docker = docker
	if len(out.all) > 0 {
		e.Publisher = out
	}
	if len(out.files) > 0 {
		e.Files = out
	}
	built, err := e.Build(ctx, loaded.Graph)
	if err != nil {
		return nil, err
	}

	result := &Result{Warnings: warnings, Pushed: !o.NoPush, Image: target.repository.Name()}
	if target.none() {
		result.Image = ""
	}
	run := d.run(ctx, o)
	for _, img := range built {
		result.Records = append(result.Records, d.record(o, target, run, img, emulated, d.Now().Sub(started)))
		result.Rows = append(result.Rows, progress.ImageRow{
			Platform: platform.Format(img.Platform), Digest: img.Descriptor.Digest.String(), Size: img.Size,
			LayersReused: img.Reused, LayersBuilt: img.Built, Time: img.Time,
			Emulated: emulated[platform.Format(img.Platform)],
		})
	}
	if err := d.publish(ctx, o, target, built[0].Descriptor, built[0].Manifest, result); err != nil {
		return nil, err
	}
	if err := out.finish(ctx, target, result); err != nil {
		return nil, err
	}
	return result, d.writeFiles(o, result)
}

// startPrepare begins to prepare while the Dockerfile is read; prepared waits for
// it, stop ends it.
func (d *Driver) startPrepare(ctx context.Context, o build.Options, t *target) (prepared func() error, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	result := make(chan struct{})
	var err error
	go func() {
		defer close(result)
		err = d.prepare(ctx, o, t)
	}()
	wait := func() error {
		<-result
		return err
	}
	return wait, func() {
		cancel()
		_ = wait()
	}
}

// prepare reaches for all registries that will be written to: nobody wants to
// know after a long build that they do not let us.
func (d *Driver) prepare(ctx context.Context, o build.Options, t *target) error {
	var repos []registry.Ref
	if !o.NoPush {
		repos = append(repos, t.repository)
		repos = append(repos, t.copies...)
	}
	for _, repo := range repos {
		if err := d.Registry.Prepare(ctx, repo); err != nil {
			return err
		}
		if o.SkipPushCheck {
			continue
		}
		if err := d.Registry.CheckPush(ctx, repo); err != nil {
			return err
		}
	}
	for _, name := range cacheRepos(o) {
		if cache, err := registry.ParseRef(name); err == nil {
			// A build can do without: whoever asks the cache warns of it.
			_ = d.Registry.Prepare(ctx, cache)
		}
	}
	return nil
}

// prune keeps the state directory small. While another build uses it, that is
// the other's task.
func (d *Driver) prune(ctx context.Context, o build.Options) {
	if o.StateSize == nil || ctx.Err() != nil {
		return
	}
	if _, err := state.Prune(ctx, o.StateDir, *o.StateSize); err != nil && !errors.Is(err, state.ErrInUse) {
		d.Progress.Warn(progress.Warning{Text: fmt.Sprintf("--state-size: %v", err)})
	}
}

func (d *Driver) run(ctx context.Context, o build.Options) ci.Run {
	if d.Run != nil {
		return *d.Run
	}
	return ci.Detect(ctx, d.getenv, buildcontext.Dir(o.Context))
}

func (d *Driver) getenv(name string) string {
	v, _ := d.LookupEnv(name)
	return v
}

func parsePlatforms(values []string) ([]ocispecs.Platform, error) {
	if len(values) == 0 {
		return []ocispecs.Platform{platform.Host()}, nil
	}
	list, err := platform.ParseList(values)
	if err != nil {
		return nil, &InputError{Err: err}
	}
	for _, p := range list {
		if p.OS != "linux" {
			return nil, badInput("platform %s: only linux images are built", platform.Format(p))
		}
	}
	return list, nil
}

// checkEmulation makes sure, before anything runs, that every step can run
// here. It returns the platforms whose images need an emulator.
func (d *Driver) checkEmulation(g *graph.Graph) (map[string]bool, error) {
	host, emulated := platform.Host(), map[string]bool{}
	for _, v := range g.Vertices {
		if _, ok := v.Op.(*graph.Exec); !ok || platform.IsNative(host, *v.Platform) {
			continue
		}
		if err := d.Emulation(*v.Platform); err != nil {
			return nil, &engine.StepError{Name: v.Name, Location: v.Location, Err: err}
		}
	}
	for _, img := range g.Images {
		if !platform.IsNative(host, img.Platform) && frontend.RunsOn(img, img.Platform) {
			emulated[platform.Format(img.Platform)] = true
		}
	}
	return emulated, nil
}

// epoch is the limit of all times, in seconds since 1970.
func epoch(o build.Options, ofDockerfile *time.Time) *int64 {
	switch {
	case o.SourceDateEpoch != nil:
		return o.SourceDateEpoch
	case ofDockerfile != nil:
		seconds := ofDockerfile.Unix()
		return &seconds
	case o.Reproducible:
		return new(int64)
	}
	return nil
}

func (d *Driver) record(o build.Options, t *target, run ci.Run, img *engine.Image, emulated map[string]bool, took time.Duration) record.Record {
	name := platform.Format(img.Platform)
	r := record.Record{
		Key: o.Key, Image: t.repository.Name(), Target: o.Target, Platform: name,
		Digest: img.Descriptor.Digest, Size: img.Descriptor.Size, MediaType: img.Descriptor.MediaType,
		Pushed: !o.NoPush, Revision: run.Revision, Committed: run.Committed, Run: run.ID, Attempt: run.Attempt,
		Finished: d.Now().UTC().Truncate(time.Second), Annotations: t.descriptorAnnotations(name), Emulated: emulated[name],
		Seconds: took.Round(100 * time.Millisecond).Seconds(), Cache: record.Cache{Hits: img.Cached, Misses: img.Built},
	}
	if t.none() {
		r.Image = ""
	}
	return r
}
