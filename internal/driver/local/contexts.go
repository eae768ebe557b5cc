package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/frontend"
	"github.com/org/kaniko-multiarch/internal/ocilayout"
)

// contexts are the directories of a build, open.
type contexts struct {
	open   map[string]*buildcontext.Context
	images map[string]string
	// layouts are the directories of OCI layouts by the name of their context.
	layouts    map[string]*ocilayout.Layout
	remote     *remoteContexts
	dockerfile dockerfile
	// display is the Dockerfile's name in messages.
	display string
}

func openContexts(ctx context.Context, o build.Options, remote *remoteContexts) (_ *contexts, err error) {
	c := &contexts{open: map[string]*buildcontext.Context{}, images: map[string]string{}, layouts: map[string]*ocilayout.Layout{}, remote: remote}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	dir, err := c.add(ctx, o, mainContext, o.Context)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(o.BuildContexts)) {
		value := o.BuildContexts[name]
		if name == mainContext || name == "dockerfile" {
			return nil, badInput("--build-context %s: the name is taken: use another", name)
		}
		if strings.HasPrefix(value, "docker-image://") {
			c.images[name] = value
			continue
		}
		if rest, ok := strings.CutPrefix(value, "oci-layout://"); ok {
			if err := c.addLayout(ctx, o, name, rest); err != nil {
				return nil, err
			}
			continue
		}
		if _, err := c.add(ctx, o, name, value); err != nil {
			return nil, err
		}
	}
	return c, c.openDockerfile(o, dir)
}

const mainContext = "context"

// add opens a context, which is brought here first when it is elsewhere; its
// directory is returned then.
func (c *contexts) add(ctx context.Context, o build.Options, name, location string) (string, error) {
	fetched, err := c.remote.fetch(ctx, o, name, location)
	if err != nil {
		return "", &ContextError{Name: name, Err: err}
	}
	dir, err := buildcontext.Open(cmp.Or(fetched, location))
	if err != nil {
		return "", &ContextError{Name: name, Err: err}
	}
	if fetched == "" {
		for _, file := range c.remote.credentials {
			dir.Hide(file)
		}
	}
	c.open[name] = dir
	return fetched, nil
}

// ContextError is a context that cannot be used.
type ContextError struct {
	Name string
	Err  error
	// NoDockerfile is set when the context is there, but has no Dockerfile and
	// none was named.
	NoDockerfile bool
}

func (e *ContextError) Error() string {
	if e.Name == mainContext {
		return "context: " + e.Err.Error()
	}
	return "named context " + e.Name + ": " + e.Err.Error()
}

func (e *ContextError) Unwrap() error { return e.Err }

// openDockerfile finds the Dockerfile in the working directory, then in the
// context. One of a context that was fetched goes before the working directory.
func (c *contexts) openDockerfile(o build.Options, fetched string) error {
	name := o.Dockerfile
	inContext := filepath.Join(cmp.Or(fetched, buildcontext.Dir(o.Context)), cmp.Or(name, "Dockerfile"))
	if fetched != "" {
		// It is somebody's: a link in it must not lead out of it.
		if at, err := securejoin.SecureJoin(fetched, cmp.Or(name, "Dockerfile")); err == nil {
			inContext = at
		}
	}
	if name == "" || !filepath.IsAbs(name) && !missing(inContext) && (fetched != "" || missing(name)) {
		name = inContext
	}
	fail := func(format string, args ...any) *ContextError {
		return &ContextError{Name: mainContext, Err: fmt.Errorf(format, args...)}
	}
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && o.Dockerfile != "":
		return fail("there is no Dockerfile %s, neither in the working directory nor in the context: give its path with --dockerfile", o.Dockerfile)
	case errors.Is(err, fs.ErrNotExist):
		err := fail("there is no Dockerfile in %s: give its path with --dockerfile", o.Context)
		err.NoDockerfile = true
		return err
	case err != nil:
		return fail("the Dockerfile: %w", err)
	case info.IsDir():
		return fail("the Dockerfile %s is a directory", name)
	}
	c.dockerfile, c.display = dockerfile(name), name
	if o.Dockerfile == "" {
		c.display = filepath.Base(name)
	} else if fetched != "" && name == inContext {
		c.display = o.Dockerfile
	}
	return nil
}

func missing(name string) bool {
	_, err := os.Stat(name)
	return errors.Is(err, fs.ErrNotExist)
}

// dockerfile is the path of a Dockerfile, as a file system that has it and its
// ignore file, wherever links lead.
type dockerfile string

func (d dockerfile) name() string { return filepath.Base(string(d)) }

func (d dockerfile) Open(name string) (fs.File, error) {
	if name == d.name() || name == d.name()+".dockerignore" {
		return os.Open(filepath.Join(filepath.Dir(string(d)), name))
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (c *contexts) close() {
	for _, dir := range c.open {
		_ = dir.Close()
	}
	for _, l := range c.layouts {
		_ = l.Close()
	}
	c.remote.close()
}

func (c *contexts) engine() map[string]engine.Context {
	out := make(map[string]engine.Context, len(c.open))
	for name, dir := range c.open {
		out[name] = dir
	}
	return out
}

func (c *contexts) frontend(o build.Options, platforms []ocispecs.Platform, images *baseImages) frontend.Options {
	images.layouts = c.layouts
	dirs := make(map[string]fs.FS, len(c.open))
	for name, dir := range c.open {
		dirs[name] = dir.FS()
	}
	return frontend.Options{
		Dockerfile: c.dockerfile, Filename: c.dockerfile.name(), DisplayName: c.display,
		Contexts: dirs, NamedImages: c.images, Platforms: platforms,
		BuildArgs: o.BuildArgs, Labels: o.Labels, Target: o.Target,
		NoCache: o.NoCache, NoCacheFilter: o.NoCacheFilter, AddHosts: o.AddHosts,
		Network: o.Network, Ulimits: o.Ulimits, ShmSize: o.ShmSize, AllowInsecure: o.AllowInsecure,
		Images: images,
	}
}
