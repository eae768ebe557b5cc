package local

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/frontend"
)

// contexts are the directories of a build, open.
type contexts struct {
	// directory is the main context as the user named it.
	directory  string
	open       map[string]*buildcontext.Context
	images     map[string]string
	dockerfile *os.Root
	filename   string
	display    string
}

func openContexts(o build.Options) (_ *contexts, err error) {
	c := &contexts{directory: o.Context, open: map[string]*buildcontext.Context{}, images: map[string]string{}}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if err := c.add("context", o.Context); err != nil {
		return nil, err
	}
	for name, value := range o.BuildContexts {
		if strings.HasPrefix(value, "docker-image://") {
			c.images[name] = value
			continue
		}
		if err := c.add(name, value); err != nil {
			return nil, err
		}
	}
	return c, c.openDockerfile(o)
}

func (c *contexts) add(name, location string) error {
	dir, err := buildcontext.Open(location)
	if err != nil {
		return &ContextError{Name: name, Err: err}
	}
	c.open[name] = dir
	return nil
}

// ContextError is a context that cannot be used.
type ContextError struct {
	Name string
	Err  error
}

func (e *ContextError) Error() string {
	if e.Name == "context" {
		return "context: " + e.Err.Error()
	}
	return "named context " + e.Name + ": " + e.Err.Error()
}

func (e *ContextError) Unwrap() error { return e.Err }

// openDockerfile finds the Dockerfile in the working directory, then in the
// context.
func (c *contexts) openDockerfile(o build.Options) error {
	name := o.Dockerfile
	inContext := filepath.Join(localDir(o.Context), name)
	switch {
	case name == "":
		name = filepath.Join(localDir(o.Context), "Dockerfile")
	case filepath.IsAbs(name):
	default:
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Stat(inContext); err == nil {
				name = inContext
			}
		}
	}
	info, err := os.Stat(name)
	if err != nil && o.Dockerfile != "" {
		return &ContextError{Name: "context", Err: errors.New("there is no Dockerfile " + o.Dockerfile + ", neither in the working directory nor in the context: give its path with --dockerfile")}
	}
	if err != nil {
		return &ContextError{Name: "context", Err: errors.New("there is no Dockerfile in " + o.Context + ": give its path with --dockerfile")}
	}
	if info.IsDir() {
		return &ContextError{Name: "context", Err: errors.New("the Dockerfile " + name + " is a directory")}
	}
	if c.dockerfile, err = os.OpenRoot(filepath.Dir(name)); err != nil {
		return &ContextError{Name: "context", Err: err}
	}
	c.filename, c.display = filepath.Base(name), name
	if o.Dockerfile == "" {
		c.display = c.filename
	}
	return nil
}

// localDir is the directory of a context that is one.
func localDir(location string) string {
	for _, scheme := range []string{"dir://", "file://"} {
		if rest, ok := strings.CutPrefix(location, scheme); ok {
			return rest
		}
	}
	return location
}

func (c *contexts) close() {
	for _, dir := range c.open {
		_ = dir.Close()
	}
	if c.dockerfile != nil {
		_ = c.dockerfile.Close()
	}
}

func (c *contexts) engine() map[string]engine.Context {
	out := make(map[string]engine.Context, len(c.open))
	for name, dir := range c.open {
		out[name] = dir
	}
	return out
}

func (c *contexts) frontend(o build.Options, platforms []ocispecs.Platform, images frontend.Images) frontend.Options {
	dirs := make(map[string]fs.FS, len(c.open))
	for name, dir := range c.open {
		dirs[name] = dir.FS()
	}
	return frontend.Options{
		Dockerfile: c.dockerfile.FS(), Filename: c.filename, DisplayName: c.display,
		Contexts: dirs, NamedImages: c.images, Platforms: platforms,
		BuildArgs: o.BuildArgs, Labels: o.Labels, Target: o.Target,
		NoCache: o.NoCache, NoCacheFilter: o.NoCacheFilter, AddHosts: o.AddHosts,
		Images: images,
	}
}
