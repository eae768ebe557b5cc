package registry

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"gotest.tools/v3/assert"
)

func TestEnvHelper(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, registry, variable string
		want                     bool
	}{
		{"host", "ghcr.io", "GHCR_IO", true},
		{"hyphens", "my-reg.example.com", "MY_REG_EXAMPLE_COM", true},
		{"domain", "my-reg.example.com", "EXAMPLE_COM", true},
		{"no_top_level_domain", "ghcr.io", "IO", false},
		{"port", "reg.test:5000", "REG_TEST_5000", true},
		{"without_its_port", "reg.test:5000", "REG_TEST", true},
		{"another_port", "reg.test:5000", "REG_TEST_5001", false},
		{"hub", "docker.io", "DOCKER_IO", true},
		{"kanikos_name_of_the_hub", "docker.io", "INDEX_DOCKER_IO", true},
		{"single_label", "registry:5000", "REGISTRY_5000", true},
		{"address", "10.0.0.7:5000", "10_0_0_7", true},
		{"part_of_an_address", "10.0.0.7", "0_0_7", false},
		{"look_alike_end", "ghcr.io.evil.test", "GHCR_IO", false},
		{"look_alike_start", "evilghcr.io", "GHCR_IO", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := envHelper(env("KANIKO_"+tc.variable+"_USER", "bob", "KANIKO_"+tc.variable+"_PASSWORD", "x"))(t.Context(), Ref{Registry: tc.registry})
			if !tc.want {
				assert.ErrorIs(t, err, errNothing)
				assert.Equal(t, got, authn.AuthConfig{})
				return
			}
			assert.NilError(t, err)
			assert.Equal(t, got, authn.AuthConfig{Username: "bob", Password: "x"})
		})
	}
	_, err := envHelper(env("KANIKO_GHCR_IO_USER", "bob"))(t.Context(), Ref{Registry: "ghcr.io"})
	assert.ErrorIs(t, err, errNothing, "a user without password")
}

func TestGitLab(t *testing.T) {
	t.Parallel()
	job := []string{
		"CI_REGISTRY", "registry.gitlab.test:5050", "CI_JOB_TOKEN", "job",
		"CI_DEPENDENCY_PROXY_SERVER", "gitlab.test:443", "CI_DEPENDENCY_PROXY_USER", "proxy", "CI_DEPENDENCY_PROXY_PASSWORD", "x",
	}
	user := append([]string{"CI_REGISTRY_USER", "bob", "CI_REGISTRY_PASSWORD", "x"}, job...)
	for _, tc := range []struct {
		name, registry string
		env            []string
		want           string
	}{
		{"registry", "registry.gitlab.test:5050", user, "bob"},
		{"job_token", "registry.gitlab.test:5050", job, "gitlab-ci-token"},
		{"another_port", "registry.gitlab.test", user, ""},
		{"dependency_proxy", "gitlab.test", user, "proxy"},
		{"dependency_proxy_with_port", "gitlab.test:443", user, "proxy"},
		{"dependency_proxy_by_token", "gitlab.test", job[:6], "gitlab-ci-token"},
		{"look_alike", "gitlab.test.evil.test", user, ""},
		{"hub", "docker.io", user, ""},
		{"no_job", "", nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, Options{Getenv: env(tc.env...)})
			got := c.creds.lookup(t.Context(), Ref{Registry: tc.registry}, false)
			assert.Equal(t, got.config.Username, tc.want)
		})
	}
}

func TestOrderOfHelpers(t *testing.T) {
	t.Parallel()
	all := []string{
		"DOCKER_AUTH_CONFIG", authConfig("ghcr.io", "docker", "x"),
		"KANIKO_GHCR_IO_USER", "env", "KANIKO_GHCR_IO_PASSWORD", "x",
		"CI_REGISTRY", "ghcr.io", "CI_REGISTRY_USER", "gitlab", "CI_REGISTRY_PASSWORD", "x",
		"GITHUB_TOKEN", "x",
	}
	for _, tc := range []struct {
		name    string
		env     []string
		helpers []string
		want    string
	}{
		{"configuration", all, nil, "docker"},
		{"variables", all[2:], nil, "env"},
		{"ci", all[6:], nil, "gitlab"},
		{"token", all[12:], nil, "x-access-token"},
		{"actor", append([]string{"GITHUB_ACTOR", "bob"}, all[12:]...), nil, "bob"},
		{"nothing", nil, nil, ""},
		{"disabled", all[2:], []string{}, ""},
		{"configuration_is_no_helper", all, []string{}, "docker"},
		{"chosen", all[2:], []string{"github", "gitlab"}, "gitlab"},
		{"others_chosen", all[2:], []string{"ecr", "acr", "google"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, Options{Getenv: env(tc.env...), CredentialHelpers: tc.helpers})
			got := c.creds.lookup(t.Context(), Ref{Registry: "ghcr.io", Repository: "acme/app"}, false)
			assert.Equal(t, got.config.Username, tc.want)
		})
	}
	_, err := New(Options{Getenv: env(), CredentialHelpers: []string{"aws"}})
	assert.Error(t, err, `credential helper "aws": there are env, gitlab, google, ecr, acr, github`)
	list, err := builtins(Options{Getenv: env()})
	assert.NilError(t, err)
	var names []string
	for _, b := range list {
		names = append(names, b.name)
	}
	assert.Equal(t, strings.Join(names, " "), "env gitlab google ecr acr github")
}

// TestWhomHelpersServe: a token goes to the cloud that it is for, and a helper
// that asks a network is not even started for other registries.
func TestWhomHelpersServe(t *testing.T) {
	t.Parallel()
	list, err := builtins(Options{Getenv: env("GITHUB_TOKEN", "x")})
	assert.NilError(t, err)
	for registry, want := range map[string]string{
		"gcr.io": "google", "eu.gcr.io": "google", "europe-docker.pkg.dev": "google",
		"evilgcr.io": "", "gcr.io.evil.test": "", "pkg.dev": "", "evilpkg.dev": "", "docker.pkg.dev.evil.test": "", "gcr.io:5000": "", "evil.google.com": "",
		"public.ecr.aws": "ecr", "123456789012.dkr.ecr.eu-west-1.amazonaws.com": "ecr",
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com": "ecr", "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn": "ecr",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.test": "", "x123456789012.dkr.ecr.eu-west-1.amazonaws.com": "",
		"evil.test.dkr.ecr.eu-west-1.amazonaws.com": "", "123456789012.dkr.ecr.a.b.amazonaws.com": "", "evilpublic.ecr.aws": "", "public.ecr.aws.evil.test": "",
		"123456789012xdkrxecrxeu-west-1xamazonaws.com": "",
		"acme.azurecr.io": "acr", "acme.azurecr.cn": "acr", "acme.azurecr.us": "acr", "acme.privatelink.azurecr.io": "acr",
		"azurecr.io": "", ".azurecr.io": "", "acmeazurecr.io": "", "acme.azurecr.io.evil.test": "", "acme.azurecr.io:8080": "", "acme.azurecr.de": "", "mcr.microsoft.com": "",
		"ghcr.io": "github", "evilghcr.io": "", "x.ghcr.io": "", "ghcr.io.evil.test": "", "ghcr.io:5000": "",
		"docker.io": "", "localhost:5000": "", "quay.io": "",
	} {
		var got []string
		for _, b := range list[1:] {
			if b.serves(registry) {
				got = append(got, b.name)
			}
		}
		assert.Equal(t, strings.Join(got, " "), want, registry)
	}
}

// helperOf replaces the built-in helpers by one.
func helperOf(c *Client, registry string, get func(context.Context) (authn.AuthConfig, error)) {
	c.creds.builtins = []builtin{{
		name: "test", serves: func(r string) bool { return r == registry },
		get: func(ctx context.Context, _ Ref) (authn.AuthConfig, error) { return get(ctx) },
	}}
}

func TestHelpersAreAskedForTheirRegistryAlone(t *testing.T) {
	t.Parallel()
	public, other := serve(t, &tokenRegistry{next: inMemory(), expires: 300}), serve(t, inMemory())
	c := newClient(t, Options{})
	helperOf(c, other.Registry, func(context.Context) (authn.AuthConfig, error) {
		t.Error("it was asked")
		return authn.AuthConfig{}, nil
	})
	_, err := c.HasBlob(t.Context(), public, someDigest)
	assert.NilError(t, err)
	// Nor for its own registry when that wants no login.
	_, err = c.HasBlob(t.Context(), other, someDigest)
	assert.NilError(t, err)
}

// TestSlowHelper delays a public image by a short time, once; for a private
// one it gets a second chance.
func TestSlowHelper(t *testing.T) {
	t.Parallel()
	bob := authn.AuthConfig{Username: "bob", Password: "hunter22"}
	for _, tc := range []struct {
		name     string
		registry http.Handler
		// answers is the call in which the helper answers.
		answers, asked int32
		want           error
		text           string
	}{
		{"public", &tokenRegistry{next: inMemory(), expires: 300}, 9, 1, nil, ""},
		{"private_with_tokens", &tokenRegistry{next: inMemory(), user: "bob", password: "hunter22", expires: 300}, 2, 2, nil, ""},
		{"private_with_basic", basicRegistry("bob", "hunter22"), 2, 2, nil, ""},
		{"never_answers", &tokenRegistry{next: inMemory(), user: "bob", password: "hunter22"}, 9, 2, ErrDenied, "the helper test (no answer within "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			repo := serve(t, tc.registry)
			c := newClient(t, Options{})
			c.creds.timeout, c.creds.patience = time.Millisecond, 50*time.Millisecond
			asked := &atomic.Int32{}
			helperOf(c, repo.Registry, func(ctx context.Context) (authn.AuthConfig, error) {
				if asked.Add(1) >= tc.answers {
					return bob, nil
				}
				<-ctx.Done()
				return authn.AuthConfig{}, errors.New("what some libraries say then")
			})
			for range 3 {
				_, err := c.HasBlob(t.Context(), repo, someDigest)
				assert.Assert(t, errors.Is(err, tc.want), "%v", err)
				if tc.text != "" {
					contains(t, err, tc.text)
				}
			}
			assert.Equal(t, asked.Load(), tc.asked)
		})
	}
}

// TestHelperThatHangs does not even look at its context.
func TestHelperThatHangs(t *testing.T) {
	t.Parallel()
	repo := serve(t, &tokenRegistry{next: inMemory(), expires: 300})
	c := newClient(t, Options{})
	c.creds.timeout = time.Millisecond
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	helperOf(c, repo.Registry, func(context.Context) (authn.AuthConfig, error) {
		<-hang
		return authn.AuthConfig{}, nil
	})
	_, err := c.HasBlob(t.Context(), repo, someDigest)
	assert.NilError(t, err)
}

func TestHelperThatFails(t *testing.T) {
	t.Parallel()
	repo := serve(t, &tokenRegistry{next: inMemory(), user: "bob", password: "x"})
	c := newClient(t, Options{})
	asked := 0
	helperOf(c, repo.Registry, func(context.Context) (authn.AuthConfig, error) {
		asked++
		return authn.AuthConfig{Username: "half"}, errors.New("no role at https://sts.test/?token=s3cr3t")
	})
	for range 2 {
		_, err := c.HasBlob(t.Context(), repo, someDigest)
		assert.Assert(t, errors.Is(err, ErrDenied), "%v", err)
		contains(t, err, "no credentials for "+repo.Registry, "the helper test (no role at https://sts.test/)")
		assert.Assert(t, !strings.Contains(err.Error(), "s3cr3t"))
	}
	assert.Equal(t, asked, 1)
}

// TestImpliedLoginIsDeclined: a token that is there for something else must not
// keep anybody from a public image.
func TestImpliedLoginIsDeclined(t *testing.T) {
	t.Parallel()
	// forbidding takes the login for a token, but that is good for nothing.
	forbidding := func(s *tokenRegistry) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/token" {
				if _, _, ok := req.BasicAuth(); ok {
					w.Write([]byte(`{"token":"good-for-nothing"}`))
					return
				}
			}
			if strings.Contains(req.Header.Get("Authorization"), "good-for-nothing") {
				w.WriteHeader(403)
				return
			}
			s.ServeHTTP(w, req)
		})
	}
	for _, tc := range []struct {
		name     string
		registry func(*tokenRegistry) http.Handler
		implied  bool
		want     error
	}{
		{"refused_by_the_token_server", func(s *tokenRegistry) http.Handler { return s }, true, nil},
		{"refused_by_the_registry", forbidding, true, nil},
		{"named", func(s *tokenRegistry) http.Handler { return s }, false, ErrDenied},
		{"named_and_forbidden", forbidding, false, ErrDenied},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			repo := serve(t, tc.registry(&tokenRegistry{next: inMemory(), expires: 300}))
			o := Options{}
			if !tc.implied {
				o.Getenv = env("DOCKER_AUTH_CONFIG", authConfig(repo.Registry, "bob", "wrong"))
			}
			c := newClient(t, o)
			helperOf(c, repo.Registry, func(context.Context) (authn.AuthConfig, error) {
				return authn.AuthConfig{Username: "bob", Password: "wrong"}, nil
			})
			push := func() {
				_, err := c.PushManifest(t.Context(), repo.WithTag("1"), "application/vnd.oci.image.index.v1+json", []byte(emptyIndex))
				assert.Assert(t, errors.Is(err, ErrDenied), "pushes do not go without: %v", err)
				contains(t, err, "the credentials from ")
			}
			push()
			for range 2 {
				_, err := c.HasBlob(t.Context(), repo, someDigest)
				assert.Assert(t, errors.Is(err, tc.want), "%v", err)
			}
			push()
		})
	}
}
