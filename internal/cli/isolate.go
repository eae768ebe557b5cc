package cli

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/ids"
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
//
// What decides about namespaces is a trial mount where stateDir is or would be.
func isolation(ctx context.Context, want, stateDir string, force bool, explain namespaces.Explainer, log *slog.Logger) (local.Isolation, error) {
	if want == isolationInPlace {
		return newInPlace(ctx, stateDir, force, explain, log)
	}
	place, err := enter(ctx, stateDir)
	if err == nil {
		log.Debug("steps have namespaces", "form", place.Form)
		return withNamespaces{explain, place}, nil
	}
	var cannot *sandbox.UnsupportedError
	if want == isolationNamespaces || !errors.As(err, &cannot) {
		return nil, err
	}
	log.Debug("steps cannot have namespaces", "reason", err)
	inPlace, placeErr := newInPlace(ctx, stateDir, force, explain, log)
	if placeErr != nil {
		return nil, &sandbox.UnsupportedError{What: "no way to isolate steps: " + cannot.Error(), Fix: "or in place: " + placeErr.Error()}
	}
	return inPlace, nil
}

// withNamespaces is overlayfs and runc-like processes.
type withNamespaces struct {
	explain namespaces.Explainer
	place   *namespaces.Place
}

func (n withNamespaces) StateDir(byDefault string) string { return byDefault }

func (n withNamespaces) Open(_ context.Context, stateDir string) (*local.Place, error) {
	store, err := overlay.New(stateDir)
	if err != nil {
		return nil, err
	}
	place := &local.Place{Store: store, Runner: namespaces.New(n.explain, namespaces.DefaultGrace)}
	if n.place.Form != namespaces.AsRoot {
		// A user namespace has stand-ins for some files, which only overlayfs knows.
		return place, nil
	}
	if place.Plain, err = plaintrees.New(stateDir); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return place, nil
}

// inPlace is plain directories that are "/" while a step runs.
type inPlace struct {
	explain namespaces.Explainer
	log     *slog.Logger
}

func newInPlace(ctx context.Context, stateDir string, force bool, explain namespaces.Explainer, log *slog.Logger) (local.Isolation, error) {
	// In a container that was killed during a step and started again, "/" is full
	// of that step's files.
	if os.Geteuid() == 0 {
		for _, dir := range []string{inPlaceState, stateDir} {
			if err := inplace.Recover(ctx, dir); err != nil {
				return nil, err
			}
		}
	}
	// What an earlier build has left in its state directory is ours.
	here, err := inplace.Here(append(ownDirs(), stateDir)...)
	if err != nil {
		return nil, err
	}
	if err := inplace.Check(here, force); err != nil {
		return nil, err
	}
	return inPlace{explain, log}, nil
}

func (i inPlace) StateDir(string) string { return inPlaceState }

func (i inPlace) Open(ctx context.Context, stateDir string) (*local.Place, error) {
	// What a killed build left in "/" comes back before its trees are removed.
	if err := inplace.Recover(ctx, stateDir); err != nil {
		return nil, err
	}
	store, err := plaintrees.New(stateDir)
	if err != nil {
		return nil, err
	}
	if stateDir == inPlaceState {
		store.Leave()
	}
	runner, err := inplace.New(ctx, inplace.Options{
		StateDir: stateDir, Own: ownDirs(), Watch: store.Watch, Explain: i.explain, Grace: inplace.DefaultGrace, Log: i.log,
	})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &local.Place{Store: store, Runner: runner}, nil
}

// enter goes on in a private mount namespace, in a child process. In the parent
// it returns the child's exit code as an error, even when that is 0.
func enter(ctx context.Context, stateDir string) (*namespaces.Place, error) {
	place, code, err := namespaces.Enter(ctx, namespaces.Forms(), func() error { return tryOverlay(stateDir) })
	if err == nil && place == nil {
		return nil, exitError(code)
	}
	return place, err
}

// withFix adds what to do to the error of a build that needed something which
// its user namespace does not have.
func withFix(isolation local.Isolation, err error) error {
	missing, ok := errors.AsType[*ids.MissingError](err)
	if !ok {
		return err
	}
	fix := "build as root, or with --isolation=inplace in a container"
	if in, ok := isolation.(withNamespaces); ok && !missing.Root {
		fix = in.place.MoreIDs
	}
	return &sandbox.UnsupportedError{What: err.Error(), Fix: fix}
}
