package matrix

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/platform"
)

var (
	// ErrUnknown is wrapped by what StepsOn cannot find out here, but a build
	// may: there is no Dockerfile, or no login to a registry.
	ErrUnknown = errors.New("not known here")
	// ErrNoSource is wrapped when what was named is not there. That is a
	// mistake where the answer is needed, and no checkout where it is not.
	ErrNoSource = errors.New("the source is not there")
)

// BaseError says that a base image does not exist for a platform that is to be
// built.
type BaseError struct {
	Platform ocispecs.Platform
	Err      error
}

func (e *BaseError) Error() string { return e.Err.Error() }
func (e *BaseError) Unwrap() error { return e.Err }

// The slugs of jobs that build several platforms.
const (
	slugShared = "shared"
	slugAll    = "all"
)

// layouter gives the platforms of one image to jobs.
type layouter struct {
	opts    Options
	img     Image
	notices []string
	known   map[string]answer
	// blind is set when a look could not be had; there is no second one for
	// mere convenience, as it costs the patience of all retries.
	blind bool
}

type answer struct {
	steps []ocispecs.Platform
	err   error
}

func (l *layouter) rows() ([]Row, error) {
	l.known = map[string]answer{}
	if err := l.checkBases(); err != nil {
		return nil, err
	}
	if len(l.img.Platforms) == 0 {
		return nil, nil
	}
	if l.opts.Distribute == DistributeNever && len(l.img.Platforms) > 1 {
		row, err := l.together(l.img.Platforms, slugAll)
		return []Row{row}, err
	}
	shared, err := l.shared()
	if err != nil {
		return nil, err
	}
	var rows []Row
	done := false
	for _, p := range l.img.Platforms {
		if !slices.ContainsFunc(shared, func(q ocispecs.Platform) bool { return platform.Equal(p, q) }) {
			row, err := l.alone(p)
			if err != nil {
				return nil, err
			}
			rows = append(rows, row)
			continue
		}
		if done {
			continue
		}
		done = true
		row, err := l.together(shared, slugShared)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// alone is the row of one platform, on its own runner.
func (l *layouter) alone(p ocispecs.Platform) (Row, error) {
	runner, host, err := l.opts.runner(p)
	if err != nil {
		return Row{}, err
	}
	mode, err := l.mode(host, p)
	if err != nil {
		return Row{}, err
	}
	row := l.row(platform.Slug(p), runner, mode)
	row.Platform, row.OS, row.Arch, row.Variant = platform.Format(p), p.OS, p.Architecture, p.Variant
	return row, nil
}

// together is the row of several platforms, on the default runner.
func (l *layouter) together(list []ocispecs.Platform, slug string) (Row, error) {
	runner, host, err := l.opts.defaultRunner(list[0])
	if err != nil {
		return Row{}, err
	}
	mode, system := Native, list[0].OS
	var names []string
	for _, p := range list {
		names = append(names, platform.Format(p))
		one, err := l.mode(host, p)
		if err != nil {
			return Row{}, err
		}
		if mode != QEMU && one != Native {
			mode = one
		}
		if p.OS != system {
			system = ""
		}
	}
	row := l.row(slug, runner, mode)
	row.Platform, row.OS = strings.Join(names, ","), system
	return row, nil
}

func (l *layouter) row(slug string, runner Runner, mode Mode) Row {
	row := Row{
		Key: l.img.Key, Slug: slug, Runner: runner, Mode: mode, QEMU: mode == QEMU,
		Image: l.img.Image, Target: l.img.Target, Dockerfile: l.img.Dockerfile, BuildArgs: strings.Join(l.img.BuildArgs, "\n"),
		Artifact: artifact(l.img.Key, slug), Cache: slug,
	}
	if l.img.Context != "." {
		row.Context = l.img.Context
	}
	return row
}

// mode is how p gets built on a machine of host.
func (l *layouter) mode(host, p ocispecs.Platform) (Mode, error) {
	native := platform.IsNative(host, p)
	switch {
	case l.opts.Kubernetes:
		return Kubernetes, nil
	case l.img.StepsOn == nil && native:
		return Native, nil
	case l.img.StepsOn == nil:
		return QEMU, nil
	}
	if _, looked := l.known[question(host, p)]; native && !looked {
		return Native, nil
	}
	steps, err := l.steps(host, p)
	switch {
	case native && (errors.Is(err, ErrUnknown) || errors.Is(err, ErrNoSource)):
		return Native, nil
	case errors.Is(err, ErrUnknown):
		// A matrix is often made where there is no login or no checkout yet. An
		// emulator too many costs time, one too few the build.
		l.notices = append(l.notices, fmt.Sprintf("assuming that steps run on %s: %v", platform.Format(p), err))
		return QEMU, nil
	case err != nil:
		return "", l.failed(p, err)
	case emulates(host, steps):
		return QEMU, nil
	case native:
		return Native, nil
	}
	return Cross, nil
}

func (l *layouter) failed(p ocispecs.Platform, err error) error {
	return fmt.Errorf("looking what a build of %s runs on %s: %w", l.img.describe(), platform.Format(p), err)
}

// emulates tells whether a step runs on a platform that host does not run.
func emulates(host ocispecs.Platform, steps []ocispecs.Platform) bool {
	return slices.ContainsFunc(steps, func(p ocispecs.Platform) bool { return !platform.IsNative(host, p) })
}

// shared are the platforms that one runner builds as well as many: those that
// no step runs on, and the runner's own. It is empty when there is nothing to
// share.
func (l *layouter) shared() ([]ocispecs.Platform, error) {
	auto := l.opts.Distribute == DistributeAuto || l.opts.Distribute == ""
	if !auto || l.opts.Kubernetes || l.img.StepsOn == nil || len(l.img.Platforms) < 2 {
		return nil, nil
	}
	_, host, err := l.opts.defaultRunner(l.img.Platforms[0])
	if err != nil {
		return nil, nil // there is none to share
	}
	var list []ocispecs.Platform
	cross := false
	for _, p := range l.img.Platforms {
		own := platform.IsNative(host, p)
		if own && p.Architecture != host.Architecture {
			continue // 386 on amd64: its steps may as well run beside
		}
		steps, err := l.glance(host, p)
		switch {
		case errors.Is(err, ErrUnknown), errors.Is(err, ErrNoSource):
			return nil, nil
		case err != nil:
			return nil, l.failed(p, err)
		case emulates(host, steps):
			continue
		}
		list = append(list, p)
		cross = cross || !own
	}
	if !cross || len(list) < 2 {
		return nil, nil
	}
	return list, nil
}

// checkBases looks whether the base images have every platform.
func (l *layouter) checkBases() error {
	if l.opts.CheckBases == "" || l.img.StepsOn == nil {
		return nil
	}
	var kept []ocispecs.Platform
	for _, p := range l.img.Platforms {
		_, host, err := l.opts.runner(p)
		if err != nil {
			return err
		}
		_, err = l.glance(host, p)
		var missing *BaseError
		switch {
		case errors.As(err, &missing) && l.opts.CheckBases == CheckBasesDrop:
			l.notices = append(l.notices, fmt.Sprintf("left out %s of %s: %v", platform.Format(p), l.img.describe(), err))
			continue
		case errors.Is(err, ErrUnknown):
			l.notices = append(l.notices, fmt.Sprintf("the base images of %s for %s are not checked: %v", l.img.describe(), platform.Format(p), err))
		case err != nil:
			return l.failed(p, err)
		}
		kept = append(kept, p)
	}
	l.img.Platforms = kept
	return nil
}

// glance is steps for what is convenient to know.
func (l *layouter) glance(host, p ocispecs.Platform) ([]ocispecs.Platform, error) {
	if _, ok := l.known[question(host, p)]; !ok && l.blind {
		return nil, ErrUnknown
	}
	return l.steps(host, p)
}

func question(host, p ocispecs.Platform) string {
	return platform.Format(host) + " " + platform.Format(p)
}

// steps asks once.
func (l *layouter) steps(host, p ocispecs.Platform) ([]ocispecs.Platform, error) {
	q := question(host, p)
	if a, ok := l.known[q]; ok {
		return a.steps, a.err
	}
	steps, err := l.img.StepsOn(host, p)
	l.known[q] = answer{steps, err}
	l.blind = l.blind || errors.Is(err, ErrUnknown)
	return steps, err
}
