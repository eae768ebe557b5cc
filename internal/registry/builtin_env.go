package registry

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
)

// envHelper reads KANIKO_<HOST>_USER and KANIKO_<HOST>_PASSWORD, where HOST is
// the registry in upper case with _ for each dot, hyphen and colon. As in
// kaniko, what stands for a domain holds for the hosts in it; a domain has two
// labels at least.
func envHelper(getenv func(string) string) func(context.Context, Ref) (authn.AuthConfig, error) {
	return func(_ context.Context, r Ref) (authn.AuthConfig, error) {
		for _, n := range envNames(r.Registry) {
			user, password := getenv("KANIKO_"+n+"_USER"), getenv("KANIKO_"+n+"_PASSWORD")
			if user != "" && password != "" {
				return authn.AuthConfig{Username: user, Password: password}, nil
			}
		}
		return authn.AuthConfig{}, errNothing
	}
}

func envNames(registry string) []string {
	var names []string
	add := func(host string) {
		names = append(names, strings.ToUpper(strings.NewReplacer(".", "_", "-", "_", ":", "_").Replace(host)))
	}
	for _, key := range serverKeys(registry) {
		if strings.Contains(key, "/") {
			continue
		}
		host := hostOnly(key)
		add(key)
		if host != key {
			add(host)
		}
		if _, err := netip.ParseAddr(host); err == nil {
			continue
		}
		for {
			_, domain, ok := strings.Cut(host, ".")
			if !ok || !strings.Contains(domain, ".") {
				break
			}
			add(domain)
			host = domain
		}
	}
	return names
}

// gitlabServes reports the registry and the dependency proxy of the job's
// GitLab.
func gitlabServes(getenv func(string) string) func(string) bool {
	return func(registry string) bool {
		return samePlace(registry, getenv("CI_REGISTRY")) || samePlace(registry, getenv("CI_DEPENDENCY_PROXY_SERVER"))
	}
}

// gitlabHelper reads the predefined variables of a GitLab job.
func gitlabHelper(getenv func(string) string) func(context.Context, Ref) (authn.AuthConfig, error) {
	return func(_ context.Context, r Ref) (authn.AuthConfig, error) {
		if samePlace(r.Registry, getenv("CI_REGISTRY")) {
			if a, ok := pair(getenv("CI_REGISTRY_USER"), getenv("CI_REGISTRY_PASSWORD")); ok {
				return a, nil
			}
		} else if a, ok := pair(getenv("CI_DEPENDENCY_PROXY_USER"), getenv("CI_DEPENDENCY_PROXY_PASSWORD")); ok {
			return a, nil
		}
		if a, ok := pair("gitlab-ci-token", getenv("CI_JOB_TOKEN")); ok {
			return a, nil
		}
		return authn.AuthConfig{}, errors.New("CI_REGISTRY_PASSWORD and CI_JOB_TOKEN are not set")
	}
}

func pair(user, password string) (authn.AuthConfig, bool) {
	return authn.AuthConfig{Username: user, Password: password}, user != "" && password != ""
}

// samePlace compares HOST[:PORT], where https's own port may be left out:
// GitLab writes it.
func samePlace(a, b string) bool {
	a, b = strings.ToLower(strings.TrimSuffix(a, ":443")), strings.ToLower(strings.TrimSuffix(b, ":443"))
	return a == b && a != ""
}

func isGitHub(registry string) bool { return registry == "ghcr.io" }

// githubHelper reads the token that a GitHub job has. GitHub wants a user name
// with it, but any will do.
func githubHelper(getenv func(string) string) func(context.Context, Ref) (authn.AuthConfig, error) {
	return func(context.Context, Ref) (authn.AuthConfig, error) {
		user := getenv("GITHUB_ACTOR")
		if user == "" {
			user = "x-access-token"
		}
		if a, ok := pair(user, getenv("GITHUB_TOKEN")); ok {
			return a, nil
		}
		return authn.AuthConfig{}, errors.New("GITHUB_TOKEN is not set")
	}
}
