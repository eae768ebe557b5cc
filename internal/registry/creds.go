package registry

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/cli/cli/config/configfile"
	dockercreds "github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
)

const (
	// hubKey is where docker login keeps Docker Hub's credentials.
	hubKey = authn.DefaultAuthKey
	// helperLifetime is how long the answer of a credential helper is used:
	// asking costs a process and often a request, tokens live for an hour and
	// more.
	helperLifetime = 10 * time.Minute
)

// credentials finds the login for a repository in docker's configuration, then
// with the built-in helpers.
type credentials struct {
	sources  []source
	builtins []builtin
	// timeout and patience are builtinTimeout and builtinPatience.
	timeout, patience time.Duration
	// searched says for people where credentials were looked for.
	searched []string
	log      *slog.Logger

	mu     sync.Mutex
	helped map[string]login
	told   map[string]*told
}

// source is one configuration, the first that knows a registry wins.
type source struct {
	name string
	file *configfile.ConfigFile
}

// login is what was found; the zero value is anonymous.
type login struct {
	config authn.AuthConfig
	// from names the source.
	from string
	// helper is set when a credential helper gave it, at time asked: a later
	// answer may differ.
	helper bool
	asked  time.Time
	// implied is set for credentials that are there for whatever runs here,
	// and not because somebody named them for this registry.
	implied bool
}

func (l login) anonymous() bool { return l.config == authn.AuthConfig{} }

func (l login) authenticator() authn.Authenticator {
	if l.anonymous() {
		return authn.Anonymous
	}
	return authn.FromConfig(l.config)
}

// loadCredentials reads, in order of precedence, the logins, DOCKER_CONFIG's config.json,
// the JSON in DOCKER_AUTH_CONFIG, podman's REGISTRY_AUTH_FILE, which kaniko
// reads too, and ~/.docker/config.json.
//
// docker/cli would read DOCKER_AUTH_CONFIG itself, but puts it first, refuses
// the fields that GitLab documents for it, and complains on stderr; so only its
// parser and stores are used.
func loadCredentials(o Options) (*credentials, error) {
	getenv, home := o.Getenv, o.HomeDir
	c := &credentials{log: o.Log, timeout: builtinTimeout, patience: builtinPatience, helped: map[string]login{}, told: map[string]*told{}}
	c.addLogins(o.Logins)
	var seen string
	if dir := getenv("DOCKER_CONFIG"); dir != "" {
		seen = filepath.Join(dir, "config.json")
		if err := c.addFile("DOCKER_CONFIG ("+seen+")", seen); err != nil {
			return nil, err
		}
	} else {
		c.searched = append(c.searched, "DOCKER_CONFIG (not set)")
	}
	if v := getenv(configfile.DockerEnvConfigKey); v != "" {
		if err := c.add(configfile.DockerEnvConfigKey, []byte(v)); err != nil {
			return nil, err
		}
	} else {
		c.searched = append(c.searched, configfile.DockerEnvConfigKey+" (not set)")
	}
	if file := getenv("REGISTRY_AUTH_FILE"); file != "" {
		if err := c.addFile("REGISTRY_AUTH_FILE ("+file+")", file); err != nil {
			return nil, err
		}
	}
	if home == "" {
		return c, nil
	}
	if file := filepath.Join(home, ".docker", "config.json"); file != seen {
		return c, c.addFile(file, file)
	}
	return c, nil
}

func (c *credentials) addLogins(list []Login) {
	f := configfile.New("")
	for _, l := range list {
		if l.Password == "" {
			continue
		}
		key := cmp.Or(l.Registry, hubKey)
		if key == "docker.io" || key == "index.docker.io" || key == "registry-1.docker.io" {
			key = hubKey
		}
		f.AuthConfigs[key] = types.AuthConfig{ServerAddress: key, Username: l.Username, Password: l.Password}
	}
	if len(f.AuthConfigs) > 0 {
		c.sources = append(c.sources, source{"registry-auth", f})
		c.searched = append(c.searched, "registry-auth")
	}
}

func (c *credentials) addFile(name, file string) error {
	data, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.searched = append(c.searched, name+" (no such file)")
		return nil
	case errors.Is(err, fs.ErrPermission):
		c.log.Warn("skipping registry credentials that cannot be read", "file", file)
		c.searched = append(c.searched, name+" (permission denied)")
		return nil
	case err != nil:
		return err
	}
	return c.add(name, data)
}

func (c *credentials) add(name string, data []byte) error {
	f := configfile.New("")
	if err := f.LoadFromReader(bytes.NewReader(data)); err != nil {
		return fmt.Errorf("%s is not a docker configuration: %w", name, err)
	}
	c.sources = append(c.sources, source{name, f})
	c.searched = append(c.searched, name)
	return nil
}

// lookup finds the login for a repository. fresh asks credential helpers again.
func (c *credentials) lookup(ctx context.Context, r Ref, fresh bool) login {
	for _, s := range c.sources {
		if l := c.ask(s, r, fresh); !l.anonymous() {
			return l
		}
	}
	for _, b := range c.builtins {
		if l := c.askBuiltin(ctx, b, r, fresh); !l.anonymous() {
			return l
		}
	}
	return login{}
}

func (c *credentials) ask(s source, r Ref, fresh bool) login {
	if helper, server := helperFor(s.file, r.Registry); helper != "" {
		l, err := c.askHelper(s, helper, server, fresh)
		if err != nil {
			c.log.Warn("credential helper failed, going on without it", "helper", "docker-credential-"+helper, "registry", r.Registry, "error", err)
		}
		if !l.anonymous() {
			return l
		}
	}
	return login{config: fromDocker(fileEntry(s.file.AuthConfigs, r)), from: s.name}
}

// helperFor picks the helper and the key under which it knows the registry.
func helperFor(f *configfile.ConfigFile, registry string) (helper, server string) {
	for _, key := range serverKeys(registry) {
		if h := f.CredentialHelpers[key]; h != "" {
			return h, key
		}
	}
	return f.CredentialsStore, serverKeys(registry)[0]
}

// serverKeys are the names that docker's files give a registry.
func serverKeys(registry string) []string {
	names := []string{hub, "index.docker.io", "registry-1.docker.io"}
	if slices.Contains(names, registry) {
		return append([]string{hubKey}, names...)
	}
	return []string{registry}
}

func (c *credentials) askHelper(s source, helper, server string, fresh bool) (login, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := helper + " " + server
	if l, ok := c.helped[key]; ok && !fresh && time.Since(l.asked) < helperLifetime {
		return l, nil
	}
	if _, err := exec.LookPath("docker-credential-" + helper); err != nil {
		// Remembered, so that it is said once. What it said before may still hold.
		l := c.helped[key]
		l.asked = time.Now()
		c.helped[key] = l
		return l, err
	}
	// A file with no entries of its own: what the helper does not know must
	// not be mixed with what the file says.
	a, err := dockercreds.NewNativeStore(configfile.New(""), helper).Get(server)
	if err != nil {
		// What it said before may still hold.
		return c.helped[key], errors.New(foreign(err.Error()))
	}
	l := login{config: fromDocker(a), from: "docker-credential-" + helper + " of " + s.name, helper: true, asked: time.Now()}
	c.helped[key] = l
	return l, nil
}

// fileEntry finds the most specific entry: podman and kaniko allow keys with a
// path, docker writes hosts, and old files have URLs.
func fileEntry(auths map[string]types.AuthConfig, r Ref) types.AuthConfig {
	for path := r.Repository; path != ""; path = path[:max(strings.LastIndexByte(path, '/'), 0)] {
		if a, ok := auths[r.Registry+"/"+path]; ok {
			return a
		}
	}
	keys := serverKeys(r.Registry)
	for _, key := range keys {
		if a, ok := auths[key]; ok {
			return a
		}
	}
	for _, key := range slices.Sorted(maps.Keys(auths)) {
		if isURL(key) && slices.Contains(keys, dockercreds.ConvertToHostname(key)) {
			return auths[key]
		}
	}
	return types.AuthConfig{}
}

// isURL reports keys that stand for a whole host although they have a path.
func isURL(key string) bool {
	trimmed := strings.TrimSuffix(key, "/")
	return strings.Contains(key, "://") || !strings.Contains(trimmed, "/") ||
		strings.HasSuffix(trimmed, "/v1") || strings.HasSuffix(trimmed, "/v2")
}

func fromDocker(a types.AuthConfig) authn.AuthConfig {
	return authn.AuthConfig{
		Username: a.Username, Password: a.Password,
		IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	}
}

// advice is what to do when a registry refuses us.
func (c *credentials) advice(r Ref) string {
	where := cmp.Or(strings.Join(append(slices.Clone(c.searched), c.failures(r)...), ", "), "nothing")
	if l := c.known(r); !l.anonymous() {
		return fmt.Sprintf("the credentials from %s do not allow it: run: docker login %s, or set DOCKER_AUTH_CONFIG", l.from, r.Registry)
	}
	return fmt.Sprintf("no credentials for %s in %s: run: docker login %s, or set DOCKER_AUTH_CONFIG", r.Registry, where, r.Registry)
}

// refresh asks a helper anew and reports whether it says something else than
// what was used.
func (c *credentials) refresh(ctx context.Context, used login, r Ref) bool {
	if !used.helper && !c.late(r) {
		return false
	}
	return c.lookup(ctx, r, true).config != used.config
}
