package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/go-units"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/ci"
	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/ocicontext"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// contexts sends the contexts of this machine, and the Dockerfile where it is in
// none of them.
func (p *packer) contexts(ctx context.Context, target *local.Target) (err error) {
	dir, err := p.spool()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	here, err := p.local.OpenHere(ctx, p.in, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, here.Close()) }()
	p.run = ci.Detect(ctx, p.getenv, buildcontext.Dir(p.in.Context))
	inContext, err := p.dockerfile(here)
	if err != nil {
		return err
	}

	s := &sender{packer: p, target: target, spool: dir}
	o := &p.request.Options
	if main := here.Contexts[local.MainContext]; main != nil {
		if o.Context, err = s.directory(ctx, here, local.MainContext, inContext); err != nil {
			return err
		}
		o.ContextSubPath, o.Git = "", build.Git{}
	} else {
		o.Context = p.location(ContextLocation, o.Context)
		p.variables()
	}
	o.BuildContexts = maps.Clone(o.BuildContexts)
	for _, name := range slices.Sorted(maps.Keys(p.in.BuildContexts)) {
		layout, isLayout := here.Layouts[name]
		switch {
		case isLayout:
			o.BuildContexts[name], err = s.layout(ctx, name, layout)
		case here.Contexts[name] != nil:
			o.BuildContexts[name], err = s.directory(ctx, here, name, "")
		default:
			o.BuildContexts[name] = p.location(NamedLocation+name, o.BuildContexts[name])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// spool makes a directory for archives and for what is compressed.
func (p *packer) spool() (string, error) {
	in := cmp.Or(p.SpoolDir, os.TempDir())
	if err := os.MkdirAll(in, 0o700); err != nil {
		return "", err
	}
	return os.MkdirTemp(in, "send-")
}

func (p *packer) getenv(name string) string {
	v, _ := p.LookupEnv(name)
	return v
}

// dockerfile says where the pod finds the Dockerfile. One in the context is
// returned, with its path there; others travel in the request, with their ignore
// files.
func (p *packer) dockerfile(here *local.Here) (inContext string, err error) {
	o := &p.request.Options
	p.request.DockerfileName = here.DockerfileName
	if here.Dockerfile == "" {
		o.Dockerfile = p.location(DockerfileLocation, o.Dockerfile)
		return "", nil
	}
	if main := here.Contexts[local.MainContext]; main != nil {
		if name, ok := main.Contains(here.Dockerfile); ok {
			if buildcontext.Dir(p.in.Context) == "" { // its path is that of an archive's copy
				p.request.DockerfileName = name
			}
			o.Dockerfile = name
			return name, nil
		}
	}
	// The name counts where the context is elsewhere: its own file may come first.
	name := filepath.Clean(here.Dockerfile)
	if !filepath.IsLocal(name) {
		name = filepath.Join(FilesDir, "dockerfile", filepath.Base(name))
		p.request.DockerfileName = cmp.Or(here.DockerfileName, here.Dockerfile)
	}
	data, err := os.ReadFile(here.Dockerfile)
	if err != nil {
		return "", inputf("the Dockerfile: %w", err)
	}
	o.Dockerfile = p.file(name, data)
	if data, err := os.ReadFile(here.Dockerfile + ".dockerignore"); err == nil {
		p.file(name+".dockerignore", data)
	}
	return "", nil
}

// location is where something is that the pod fetches itself. It travels in the
// Secret when it may have a password in it.
func (p *packer) location(what, location string) string {
	if !hasSecret(location) {
		return location
	}
	p.request.Hidden[what] = p.hide("location", []byte(location))
	return ""
}

// hasSecret reports whether a location has a user, as https has one for tokens, or
// a query, where signatures are.
func hasSecret(location string) bool {
	scheme, _, ok := strings.Cut(location, "://")
	if !ok || slices.Contains([]string{"docker-image", "oci-layout", "oci"}, scheme) {
		return false
	}
	u, err := url.Parse(location)
	if err != nil {
		return true
	}
	_, password := u.User.Password()
	return password || u.User != nil && u.Scheme != "ssh" || u.RawQuery != ""
}

// variables packs what logs in to the server of the main context's repository.
func (p *packer) variables() {
	// Forms that Parse does not know are BuildKit's for repositories.
	if at, err := buildcontext.Parse(p.in.Context); err == nil && at.Kind != buildcontext.Git {
		return
	}
	for _, name := range []string{"GIT_TOKEN", "GIT_USERNAME", "GIT_PASSWORD", "GIT_PULL_METHOD"} {
		if value := p.getenv(name); value != "" {
			p.request.Variables[name] = p.hide("variable", []byte(value))
		}
	}
}

// sender stores contexts in one repository.
type sender struct {
	*packer
	target *local.Target
	spool  string
	repo   registry.Ref
}

// directory sends a context without what its build ignores. The pod ignores the
// same again, so that it gets the files that say what is ignored, and the
// Dockerfile, whatever they say.
func (s *sender) directory(ctx context.Context, here *local.Here, name, dockerfile string) (string, error) {
	ignored, err := here.Ignored(name)
	if err != nil {
		return "", &local.ContextError{Name: name, Err: err}
	}
	from, wanted := here.Contexts[name], []string{".dockerignore"}
	if real, err := from.Resolve(".dockerignore"); err == nil && real != ".dockerignore" {
		wanted = append(wanted, real)
	}
	if dockerfile != "" {
		wanted = append(wanted, dockerfile, dockerfile+".dockerignore")
	}
	if len(ignored) > 0 {
		for _, file := range wanted {
			ignored = append(ignored, "!"+quote(file))
		}
	}
	return s.send(ctx, name, from, buildcontext.Selection{Exclude: ignored})
}

// quote makes a pattern that matches just the name.
func quote(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(name)
}

// layout sends an OCI layout as it is. What is not in it at that place, the pod
// could not miss.
func (s *sender) layout(ctx context.Context, name string, l local.HereLayout) (string, error) {
	location, err := s.send(ctx, name, l.Context, buildcontext.Selection{})
	return "oci-layout://" + location + "@" + l.Root.String(), err
}

func (s *sender) send(ctx context.Context, name string, from *buildcontext.Context, sel buildcontext.Selection) (string, error) {
	if s.repo.Repository == "" {
		repo, err := contextRepository(s.in, s.target)
		if err != nil {
			return "", err
		}
		if err := s.Registry.Prepare(ctx, repo); err != nil {
			return "", err
		}
		s.repo = repo
	}
	pushed, err := ocicontext.Push(ctx, s.Registry, s.repo, from, sel, s.spool)
	if err != nil {
		return "", &local.ContextError{Name: name, Err: fmt.Errorf("sending it to %s: %w", s.repo.Name(), err)}
	}
	s.Say(fmt.Sprintf("%s: %s of %s sent to %s", title(name), units.HumanSize(float64(pushed.Sent)), units.HumanSize(float64(pushed.Size)), s.repo.Name()))
	return pushed.Location(), nil
}

func title(name string) string {
	if name == local.MainContext {
		return "context"
	}
	return "named context " + name
}

// contextRepository is where contexts go: the cache's repository, where what is
// kept is nobody's image, or the image's.
func contextRepository(o build.Options, target *local.Target) (registry.Ref, error) {
	switch {
	case o.Cache && !o.NoPushCache && o.CacheRepo != "":
		repo, err := registry.ParseRef(o.CacheRepo)
		if err != nil {
			return repo, inputf("--cache-repo: %w", err)
		}
		return repo.WithTag(""), nil
	case target.Repository.Repository == "":
		return registry.Ref{}, inputf("the context has no way to the Job: give a --destination, or --cache with --cache-repo, where it can be stored")
	case o.Cache && !o.NoPushCache:
		return registry.ParseRef(target.Repository.Name() + "/cache")
	}
	return target.Repository, nil
}

// directory reports whether a cache repository is a directory, in kaniko's form.
func directory(repo string) bool { return strings.HasPrefix(repo, "oci:") }
