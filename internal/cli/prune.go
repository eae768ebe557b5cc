package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/docker/go-units"

	"github.com/org/kaniko-multiarch/internal/rootfs/state"
	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/emulation"
)

type pruneCommand struct {
	StateDir  string `help:"Directory for base layers and cache mounts (default: the user's cache directory)."`
	Keep      string `default:"0" help:"How much may stay, what was used last: 10g. 0 removes everything."`
	Isolation string `enum:"auto,namespaces,inplace" default:"auto" help:"As in build: the owners of some files exist in a build's namespaces only."`
	Force     bool   `help:"As in build."`
}

// Run removes what builds left for later ones. As a build does, it goes on in
// another process first where files belong to users of a namespace.
func (c *pruneCommand) Run(ctx context.Context, w *World) error {
	keep, err := parseSize("keep", c.Keep)
	if err != nil {
		return err
	}
	dir := c.StateDir
	if dir == "" {
		dir = stateDir(w.Getenv)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return fmt.Errorf("--state-dir: %w", err)
	}
	isolation, err := isolation(ctx, c.Isolation, dir, c.Force, emulation.New(w.Getenv), debugLog(w, false))
	// Where no build could run, what is there belongs to us.
	if _, ok := errors.AsType[*sandbox.UnsupportedError](err); err != nil && !ok {
		return err
	}
	if err == nil && c.StateDir == "" {
		dir = isolation.StateDir(dir)
	}
	p, err := state.Prune(ctx, dir, keep)
	if errors.Is(err, state.ErrInUse) {
		return fmt.Errorf("%s: %w: wait until it has ended", dir, err)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w.Stdout, "removed %d, freed %s, left %s in %s\n", p.Removed, units.BytesSize(float64(p.Freed)), units.BytesSize(float64(p.Left)), dir)
	return err
}

// parseSize reads a size in bytes, or with a unit: 10g.
func parseSize(flag, value string) (int64, error) {
	size, err := units.RAMInBytes(value)
	if err != nil || size < 0 {
		return 0, usagef("--%s %q: want a size, as 10g", flag, value)
	}
	return size, nil
}
