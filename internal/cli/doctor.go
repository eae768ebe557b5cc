package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/org/kaniko-multiarch/internal/doctor"
	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/registry"
	"github.com/org/kaniko-multiarch/internal/rootfs/overlay"
	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/emulation"
	"github.com/org/kaniko-multiarch/internal/sandbox/inplace"
	"github.com/org/kaniko-multiarch/internal/sandbox/namespaces"
)

type doctorCommand struct {
	Platform    []string `sep:"none" help:"Platforms whose programs must run here; without it, common ones are shown."`
	Destination []string `short:"d" sep:"none" help:"Names that a build would publish: is the registry there, may we push?"`
	StateDir    string   `help:"Directory for base layers and cache mounts (default: the user's cache directory)."`
	Format      string   `enum:"text,json" default:"text" help:"text or json."`
	registryFlags
}

// Run prints what this place allows. Like a build it starts this program again
// in isolated processes, to try there.
func (c *doctorCommand) Run(ctx context.Context, w *World) error {
	o, err := c.options(w)
	if err != nil {
		return err
	}
	for _, form := range namespaces.Forms() {
		o.Isolations = append(o.Isolations, doctor.Isolation{
			Name: fmt.Sprintf("%s %s", isolationNamespaces, form), Detail: inNamespaces(form) + o.StateDir,
			Try: func(context.Context) error {
				return namespaces.Try(form, func() error { return tryOverlay(o.StateDir) })
			},
		})
	}
	o.Isolations = append(o.Isolations, doctor.Isolation{
		Name: isolationInPlace, Detail: "this container holds nothing but the builder",
		Try: func(context.Context) error {
			here, err := inplace.Here(append(ownDirs(), o.StateDir)...)
			if err != nil {
				return err
			}
			return inplace.Check(here, false)
		},
	})
	o.Emulator = emulation.New(w.Getenv)
	return c.examine(ctx, w, o)
}

// inNamespaces says what a form allows, with the directory to come.
func inNamespaces(form namespaces.Form) string {
	const works = "a mount namespace and overlayfs work in "
	switch form {
	case namespaces.AllIDs, namespaces.SubordinateIDs:
		return "steps cannot make devices; " + works
	case namespaces.OneID:
		return "only root is there: no USER, no files of other owners in a layer; " + works
	}
	return works
}

func (c *doctorCommand) options(w *World) (doctor.Options, error) {
	o := doctor.Options{StateDir: c.StateDir}
	var err error
	if o.Platforms, err = platform.ParseList(splitList(c.Platform)); err != nil {
		return o, usagef("--platform: %w", err)
	}
	for _, s := range splitList(c.Destination) {
		ref, err := registry.ParseRef(s)
		if err != nil {
			return o, usagef("--destination: %w", err)
		}
		o.Destinations = append(o.Destinations, ref)
	}
	if o.StateDir == "" {
		o.StateDir = stateDir(w.Getenv)
	}
	if o.StateDir, err = filepath.Abs(o.StateDir); err != nil {
		return o, usagef("--state-dir: %w", err)
	}
	// Who asks what is wrong does not want to wait for it to get better.
	flags := c.registryFlags
	flags.PushRetry = min(flags.PushRetry, 1)
	registries, err := flags.registries(w)
	if err != nil {
		return o, err
	}
	o.Registry, err = newClient(w, registries, c.Verbose)
	return o, err
}

func (c *doctorCommand) examine(ctx context.Context, w *World, o doctor.Options) error {
	r, err := doctor.Run(ctx, o)
	if err != nil {
		return err
	}
	if c.Format == "json" {
		encoder := json.NewEncoder(w.Stdout)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(r)
	} else {
		err = r.WriteText(w.Stdout)
	}
	if err != nil {
		return err
	}
	if !r.Ready {
		return &sandbox.UnsupportedError{What: "a build cannot work here, it lacks: " + r.Lacks(), Fix: "see the fixes above"}
	}
	return nil
}

// tryOverlay tries overlayfs on the disk of the state directory, without making
// that.
func tryOverlay(stateDir string) error {
	const fix = "name a directory on a disk or tmpfs with --state-dir"
	at, err := doctor.Ancestor(stateDir)
	if err != nil {
		return &sandbox.UnsupportedError{What: err.Error(), Fix: fix}
	}
	tmp, err := os.MkdirTemp(at, "kaniko-multiarch-doctor-")
	if err != nil {
		return &sandbox.UnsupportedError{What: fmt.Sprintf("writing to %s: %v", at, sandbox.Cause(err)), Fix: fix}
	}
	defer os.RemoveAll(tmp)
	if err := overlay.Probe(tmp); err != nil {
		// The directory's name is made up: nobody knows it.
		return &sandbox.UnsupportedError{What: "overlayfs: " + strings.ReplaceAll(err.Error(), tmp, stateDir), Fix: fix}
	}
	return nil
}
