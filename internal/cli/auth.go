package cli

import (
	"cmp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/org/kaniko-multiarch/internal/registry"
)

// registryAuth is an input and a variable, but no flag: others can see the
// command line of a process.
const registryAuth = "registry-auth"

// logins reads the input registry-auth, which is a list as docker/login-action
// takes it: registry (default: Docker Hub), username, password.
func logins(getenv func(string) string) ([]registry.Login, error) {
	return parseLogins(cmp.Or(getenv(inputVariable(registryAuth)), getenv(environmentVariable(registryAuth))))
}

func parseLogins(text string) ([]registry.Login, error) {
	var out []registry.Login
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	// The errors of YAML quote what they cannot read.
	if err := yaml.Unmarshal([]byte(text), &out); err != nil {
		return nil, usagef("registry-auth: not a YAML list of registry, username and password")
	}
	for i, l := range out {
		if l.Username == "" && l.Password == "" {
			continue // a fork has no secrets
		}
		if l.Username == "" || l.Password == "" {
			return nil, usagef("registry-auth: entry %d (%s) has no username or no password", i+1, cmp.Or(l.Registry, "docker.io"))
		}
	}
	return out, nil
}

// authMasks are the passwords.
func authMasks(text string) ([]string, error) {
	list, err := parseLogins(text)
	var out []string
	for _, l := range list {
		out = append(out, l.Password)
	}
	return out, err
}
