package local

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/frontend"
	"github.com/org/kaniko-multiarch/internal/git"
	"github.com/org/kaniko-multiarch/internal/ocicontext"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// remoteContexts brings contexts here that are repositories in BuildKit's form,
// and named contexts that are archives.
type remoteContexts struct {
	git      *git.Client
	download *downloader
	registry *registry.Client
	// main are further secrets for the main context: a Dockerfile cannot name the
	// server that they are sent to.
	main map[string][]byte
	// credentials are files that no context has.
	credentials []string
	// in is where the directories are made; dir is that of this build.
	in, dir string
}

// remoteContexts makes its directories in dir.
func (d *Driver) remoteContexts(o build.Options, dir string) *remoteContexts {
	c := &git.Client{Secrets: d.Secrets, TempDir: dir}
	if d.Agents != nil {
		c.Agents = d.Agents
	}
	r := &remoteContexts{git: c, download: newDownloader(o.Registries.Retry), registry: d.Registry, in: dir}
	if d.LookupEnv != nil {
		if dir := d.getenv("DOCKER_CONFIG"); dir != "" {
			r.credentials = append(r.credentials, filepath.Join(dir, "config.json"))
		}
		if file := d.getenv("REGISTRY_AUTH_FILE"); file != "" {
			r.credentials = append(r.credentials, file)
		}
		if token := d.getenv("GIT_TOKEN"); token != "" {
			r.main = map[string][]byte{"GIT_AUTH_TOKEN": []byte(token)}
		}
	}
	return r
}

// inRepository reports whether a context is a repository in BuildKit's form, and
// not in kaniko's.
func inRepository(location string) bool {
	return frontend.IsGitContext(location) && !strings.HasPrefix(location, "git://")
}

var archiveURL = regexp.MustCompile(`^https?://`)

// fetch returns the directory that has the files of a context, or "" for a
// location that is a directory itself.
func (r *remoteContexts) fetch(ctx context.Context, o build.Options, name, location string) (string, error) {
	if inRepository(location) {
		return r.repository(ctx, o, name, location)
	}
	inRegistry := strings.HasPrefix(location, ocicontext.Scheme)
	if name == mainContext || !inRegistry && !archiveURL.MatchString(location) {
		return "", nil
	}
	dir, err := r.make()
	if err != nil {
		return "", err
	}
	if inRegistry {
		return dir, ocicontext.Fetch(ctx, r.registry, strings.TrimPrefix(location, ocicontext.Scheme), dir)
	}
	f, err := os.Create(filepath.Join(r.dir, path.Base(dir)+".tar"))
	if err != nil {
		return "", err
	}
	_, _, err = r.download.Download(ctx, location, f, func(int64, int64) {})
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return dir, errors.Join(unpackFile(ctx, f.Name(), redacted(location), dir), os.Remove(f.Name()))
}

func (r *remoteContexts) repository(ctx context.Context, o build.Options, name, location string) (string, error) {
	source, _, err := frontend.GitContext(ctx, location)
	if err != nil {
		return "", err
	}
	dir, err := r.make()
	if err != nil {
		return "", err
	}
	source.CommitTime = source.CommitTime || o.BuildArgs["SOURCE_DATE_EPOCH"] != ""
	source.InsecureTLS = o.Git.InsecureSkipTLS
	client := *r.git
	if name == mainContext {
		keep := o.BuildArgs["BUILDKIT_CONTEXT_KEEP_GIT_DIR"]
		source.KeepDir = source.KeepDir || keep == "1" || strings.EqualFold(keep, "true")
		source.Subdir = path.Join(source.Subdir, o.ContextSubPath)
		if _, ok := client.Secrets["GIT_AUTH_TOKEN"]; !ok && r.main != nil {
			client.Secrets = r.main
		}
	}
	return dir, client.Checkout(ctx, source, dir)
}

// make makes a directory for one context.
func (r *remoteContexts) make() (string, error) {
	if r.dir == "" {
		if r.in != "" {
			if err := os.MkdirAll(r.in, 0o700); err != nil {
				return "", err
			}
		}
		var err error
		if r.dir, err = os.MkdirTemp(r.in, "contexts-"); err != nil {
			return "", err
		}
	}
	dir, err := os.MkdirTemp(r.dir, "")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

func (r *remoteContexts) close() {
	if r.dir != "" {
		_ = os.RemoveAll(r.dir)
	}
}
