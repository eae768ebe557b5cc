package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/rootfs"
	plaintrees "github.com/org/kaniko-multiarch/internal/rootfs/inplace"
	"github.com/org/kaniko-multiarch/internal/rootfs/overlay"
	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/inplace"
	"github.com/org/kaniko-multiarch/internal/sandbox/namespaces"
)

// Ways to isolate steps.
const (
	isolationAuto       = "auto"
	isolationNamespaces = "namespaces"
	isolationInPlace    = "inplace"
)

// ownDirs are what the tool's image has: they stay where they are in a build in
// place.
func ownDirs() []string { return []string{"/kaniko", "/busybox"} }

// inPlaceState is the state directory of a build in place. It must lie on the
// root's own file system, where trees can be moved from and to.
const inPlaceState = "/kaniko/state"

// isolation finds a way to isolate steps. In auto mode that is namespaces where
// they can be made, else in place where that is safe. Where it needs to go on in
// another process, it returns that one's exit code as an error.
func isolation(ctx context.Context, want string, force bool, explain namespaces.Explainer, log *slog.Logger) (local.Isolation, error) {
	if want == isolationInPlace {
		return newInPlace(ctx, force, explain, log)
	}
	err := enter(ctx)
	if err == nil {
		return withNamespaces{explain}, nil
	}
	var cannot *sandbox.UnsupportedError
	if want == isolationNamespaces || !errors.As(err, &cannot) {
		return nil, err
	}
	log.Debug("steps cannot have namespaces", "reason", err)
	inPlace, placeErr := newInPlace(ctx, force, explain, log)
	if placeErr != nil {
		return nil, &sandbox.UnsupportedError{What: "no way to isolate steps: " + cannot.Error(), Fix: "or in place: " + placeErr.Error()}
	}
	return inPlace, nil
}

// withNamespaces is overlayfs and runc-like processes.
type withNamespaces struct{ explain namespaces.Explainer }

func (n withNamespaces) StateDir(byDefault string) string { return byDefault }

func (n withNamespaces) Open(_ context.Context, stateDir string) (rootfs.Store, sandbox.Runner, error) {
	if err := overlay.Probe(stateDir); err != nil {
		return nil, nil, &sandbox.UnsupportedError{What: fmt.Sprintf("overlayfs in %s: %v", stateDir, err), Fix: "name a directory on a disk or tmpfs with --state-dir"}
	}
	store, err := overlay.New(stateDir)
	if err != nil {
		return nil, nil, err
	}
	return store, namespaces.New(n.explain, namespaces.DefaultGrace), nil
}

// inPlace is plain directories that are "/" while a step runs.
type inPlace struct {
	explain namespaces.Explainer
	log     *slog.Logger
}

func newInPlace(ctx context.Context, force bool, explain namespaces.Explainer, log *slog.Logger) (local.Isolation, error) {
	// In a container that was killed during a step and started again, "/" is full
	// of that step's files.
	if err := inplace.Recover(ctx, inPlaceState); err != nil {
		return nil, err
	}
	here, err := inplace.Here(ownDirs()...)
	if err != nil {
		return nil, err
	}
	if err := inplace.Check(here, force); err != nil {
		return nil, err
	}
	return inPlace{explain, log}, nil
}

func (i inPlace) StateDir(string) string { return inPlaceState }

func (i inPlace) Open(ctx context.Context, stateDir string) (rootfs.Store, sandbox.Runner, error) {
	// What a killed build left in "/" comes back before its trees are removed.
	if err := inplace.Recover(ctx, stateDir); err != nil {
		return nil, nil, err
	}
	store, err := plaintrees.New(stateDir)
	if err != nil {
		return nil, nil, err
	}
	runner, err := inplace.New(ctx, inplace.Options{
		StateDir: stateDir, Own: ownDirs(), Watch: store.Watch, Explain: i.explain, Grace: inplace.DefaultGrace, Log: i.log,
	})
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	return store, runner, nil
}

// enter goes on in a private mount namespace, in a child process. In the parent
// it returns the child's exit code as an error, even when that is 0.
func enter(ctx context.Context) error {
	code, done, err := namespaces.Enter(ctx)
	if err != nil {
		return err
	}
	if done {
		return exitError(code)
	}
	return nil
}
