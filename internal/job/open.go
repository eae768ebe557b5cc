package job

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/org/kaniko-multiarch/internal/build"
)

// Opened is a request in its pod.
type Opened struct {
	// Options have nothing hidden any more. Their paths are relative to the
	// directory that the request was opened in.
	Options build.Options
	// Variables of the environment by name.
	Variables map[string]string
	// Secrets must not be shown. The build's own are not among them.
	Secrets []string
}

// Open makes the files of the request in dir, an empty directory, and reads from
// secretDir what the request hides.
func (r Request) Open(dir, secretDir string) (*Opened, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for name, data := range r.Files {
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return nil, fmt.Errorf("writing %s of the request: %w", name, err)
		}
		if err := root.WriteFile(name, data, 0o644); err != nil {
			return nil, fmt.Errorf("writing %s of the request: %w", name, err)
		}
	}
	if err := os.Symlink(secretDir, filepath.Join(dir, SecretsDir)); err != nil {
		return nil, err
	}
	o := &Opened{Options: r.Options, Variables: map[string]string{}}
	read := func(name string) (string, error) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", fmt.Errorf("reading what the request hides: %w: mount the Secret of the build at %s", err, SecretDir)
		}
		return string(data), nil
	}
	for name, file := range r.Variables {
		if o.Variables[name], err = read(file); err != nil {
			return nil, err
		}
		// The names of users are words that logs are full of.
		if name == "GIT_TOKEN" || name == "GIT_PASSWORD" {
			o.Secrets = append(o.Secrets, o.Variables[name])
		}
	}
	o.Options.BuildContexts = maps.Clone(o.Options.BuildContexts)
	for what, file := range r.Hidden {
		location, err := read(file)
		if err != nil {
			return nil, err
		}
		o.Secrets = append(o.Secrets, secretsOf(location)...)
		switch name, named := strings.CutPrefix(what, NamedLocation); {
		case named:
			o.Options.BuildContexts[name] = location
		case what == DockerfileLocation:
			o.Options.Dockerfile = location
		case what == ContextLocation:
			o.Options.Context = location
		default:
			return nil, fmt.Errorf("the request hides %q, which this program does not know: use the same release of kaniko-multiarch here and in the pod's image", what)
		}
	}
	return o, nil
}

// secretsOf are the parts of a location that must not be shown.
func secretsOf(location string) []string {
	out := []string{location}
	u, err := url.Parse(location)
	if err != nil {
		return out
	}
	if len(u.RawQuery) > 8 { // less is no signature
		out = append(out, u.RawQuery)
	}
	if password, ok := u.User.Password(); ok {
		return append(out, password)
	}
	// A token can be a user without password, and is a long one then.
	if user := u.User.Username(); len(user) > 16 {
		out = append(out, user)
	}
	return out
}
