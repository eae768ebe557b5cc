package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/moby/patternmatcher/ignorefile"
	"github.com/opencontainers/go-digest"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/ocicontext"
	"github.com/org/kaniko-multiarch/internal/ocilayout"
)

// MainContext is the name of the main context among all contexts.
const MainContext = mainContext

// Here is what of a build's contexts is on this machine, open, for a driver that
// builds on another.
type Here struct {
	// Contexts are directories. The main one is called MainContext.
	Contexts map[string]*buildcontext.Context
	// Layouts are the OCI layouts by the name of their context: the directory, and
	// the digest of what is used of it.
	Layouts map[string]HereLayout
	// Dockerfile is its path, empty when it is in a context that is elsewhere.
	// DockerfileName is what it is called in messages.
	Dockerfile, DockerfileName string

	contexts *contexts
	fetched  func() error
}

// HereLayout is an OCI layout on this machine.
type HereLayout struct {
	Context *buildcontext.Context
	Root    digest.Digest
}

// OpenHere opens the contexts of o that are on this machine; archives are unpacked
// in dir. Those that are elsewhere are left out.
func (d *Driver) OpenHere(ctx context.Context, o build.Options, dir string) (_ *Here, err error) {
	f := &fetcher{Driver: d, o: o, in: dir}
	h := &Here{Layouts: map[string]HereLayout{}, fetched: f.remove}
	h.contexts = &contexts{open: map[string]*buildcontext.Context{}, images: map[string]string{}, remote: d.remoteContexts(o, dir)}
	h.Contexts = h.contexts.open
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	here, err := isHere(o.Context)
	if err != nil {
		return nil, &ContextError{Name: mainContext, Err: err}
	}
	if here {
		if err := f.main(ctx); err != nil {
			return nil, err
		}
		if _, err := h.contexts.add(ctx, o, mainContext, f.o.Context); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.BuildContexts)) {
		if err := h.add(ctx, o, name); err != nil {
			return nil, err
		}
	}
	return h, h.openDockerfile(f.o, here)
}

// isHere reports whether the files of the main context are on this machine.
func isHere(location string) (bool, error) {
	if inRepository(location) {
		return false, nil
	}
	at, err := buildcontext.Parse(location)
	return at.Kind == buildcontext.Directory || at.Kind == buildcontext.Archive || at.Kind == buildcontext.Stdin, err
}

// add opens a named context.
func (h *Here) add(ctx context.Context, o build.Options, name string) error {
	location := o.BuildContexts[name]
	if name == mainContext || name == "dockerfile" {
		return badInput("--build-context %s: the name is taken: use another", name)
	}
	if strings.HasPrefix(location, "docker-image://") || inRepository(location) || archiveURL.MatchString(location) || strings.HasPrefix(location, ocicontext.Scheme) {
		return nil
	}
	rest, ok := strings.CutPrefix(location, layoutScheme)
	if !ok {
		_, err := h.contexts.add(ctx, o, name, location)
		return err
	}
	if strings.HasPrefix(rest, ocicontext.Scheme) {
		return nil
	}
	// One at a time: only their digests are wanted.
	one := &contexts{images: map[string]string{}, layouts: map[string]*ocilayout.Layout{}, remote: h.contexts.remote}
	if err := one.addLayout(ctx, o, name, rest); err != nil {
		return err
	}
	for _, l := range one.layouts {
		_ = l.Close()
	}
	_, root, _ := strings.Cut(one.images[name], "@")
	dir, _, _ := strings.Cut(rest, "@")
	dir, _, _ = strings.Cut(dir, ":")
	open, err := buildcontext.Open(dir)
	if err != nil {
		return &ContextError{Name: name, Err: err}
	}
	h.Layouts[name] = HereLayout{open, digest.Digest(root)}
	return nil
}

// openDockerfile finds the Dockerfile. Beside a context that is elsewhere it may be
// on this machine, too.
func (h *Here) openDockerfile(o build.Options, here bool) error {
	if strings.HasPrefix(o.Dockerfile, "https://") || strings.HasPrefix(o.Dockerfile, "http://") {
		return nil
	}
	if here {
		err := h.contexts.openDockerfile(o, "")
		h.Dockerfile, h.DockerfileName = string(h.contexts.dockerfile), h.contexts.display
		return err
	}
	if info, err := os.Stat(o.Dockerfile); o.Dockerfile != "" && err == nil && info.Mode().IsRegular() {
		h.Dockerfile = o.Dockerfile
	}
	return nil
}

// Ignored are the patterns of what a build does not see of a context, as the front
// end finds them: in the file that is named after the Dockerfile, else in the
// context's own.
func (h *Here) Ignored(name string) ([]string, error) {
	if name == mainContext && h.Dockerfile != "" {
		own := dockerfile(h.Dockerfile)
		if patterns, ok, err := readIgnored(own, own.name()+ignoreFile); ok || err != nil {
			return patterns, err
		}
	}
	patterns, _, err := readIgnored(h.Contexts[name].FS(), ignoreFile)
	return patterns, err
}

// ignoreFile is the name of a file with patterns, and the end of such names.
const ignoreFile = ".dockerignore"

// readIgnored takes a file that cannot be read for none, as the front end does.
func readIgnored(in fs.FS, name string) (patterns []string, ok bool, err error) {
	data, err := fs.ReadFile(in, name)
	if err != nil {
		return nil, false, nil
	}
	if patterns, err = ignorefile.ReadAll(bytes.NewReader(data)); err != nil {
		return nil, false, fmt.Errorf("%s: %w", name, err)
	}
	return patterns, true, nil
}

// Close closes the contexts, and removes what was unpacked.
func (h *Here) Close() error {
	h.contexts.close()
	for _, l := range h.Layouts {
		_ = l.Context.Close()
	}
	return h.fetched()
}
