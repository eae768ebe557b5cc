package registry

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"gotest.tools/v3/assert"
)

// authConfig is the JSON that docker login writes.
func authConfig(registry, user, password string) string {
	return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, registry, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
}

// tokenRegistry wants bearer tokens and gives them out itself.
type tokenRegistry struct {
	next http.Handler
	// user and password get tokens; an empty user lets everybody pull.
	user, password string
	// uses is how many requests a token is good for; 0 is no limit.
	uses int
	// expires is what the server says of a token's life, in seconds.
	expires int
	// openRoot answers /v2/ without asking for a login.
	openRoot bool
	// rename is the scope to ask for instead of the usual.
	rename string
	// refresh is the identity token that gets tokens.
	refresh string

	mu     sync.Mutex
	tokens map[string]*issued
	asked  []string
}

type issued struct {
	scopes []string
	left   int
}

func (s *tokenRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == "/token" {
		s.issue(w, req)
		return
	}
	if req.URL.Path == "/v2/" && s.openRoot {
		return
	}
	if s.allowed(req) {
		if req.URL.Path != "/v2/" {
			s.next.ServeHTTP(w, req)
		}
		return
	}
	challenge := fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, req.Host)
	if req.URL.Path != "/v2/" {
		challenge += fmt.Sprintf(`,scope=%q`, s.want(req))
	}
	w.Header().Set("WWW-Authenticate", challenge)
	w.WriteHeader(401)
	fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
}

func (s *tokenRegistry) want(req *http.Request) string {
	if s.rename != "" {
		return s.rename
	}
	repo := strings.TrimPrefix(req.URL.Path, "/v2/")
	for _, part := range []string{"/manifests/", "/blobs/"} {
		repo, _, _ = strings.Cut(repo, part)
	}
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		return "repository:" + repo + ":pull"
	}
	return "repository:" + repo + ":pull,push"
}

func (s *tokenRegistry) allowed(req *http.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tokens[strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")]
	if t == nil {
		return false
	}
	if !scopes(t.scopes).cover(s.want(req)) {
		return false
	}
	t.left--
	return s.uses == 0 || t.left >= 0
}

func (s *tokenRegistry) issue(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user, password, _ := req.BasicAuth()
	req.ParseForm()
	wanted := req.Form["scope"]
	if req.Method == http.MethodPost {
		wanted = strings.Fields(req.Form.Get("scope"))
	}
	s.asked = append(s.asked, user+" "+strings.Join(wanted, " "))
	oauth := s.refresh != "" && req.Form.Get("refresh_token") == s.refresh
	if !oauth && (user != s.user || password != s.password) {
		w.WriteHeader(401)
		fmt.Fprint(w, `{"details":"incorrect username or password"}`)
		return
	}
	if s.tokens == nil {
		s.tokens = map[string]*issued{}
	}
	secret := fmt.Sprintf("t0ken-%d-abcdefgh", len(s.tokens))
	s.tokens[secret] = &issued{wanted, s.uses}
	json.NewEncoder(w).Encode(map[string]any{"token": secret, "expires_in": s.expires})
}

func TestTokens(t *testing.T) {
	t.Parallel()
	s := &tokenRegistry{next: inMemory(), user: "bob", password: "hunter22", expires: 300}
	rec := &recorder{next: s}
	repo := serve(t, rec)
	c := newClient(t, Options{Getenv: env("DOCKER_AUTH_CONFIG", authConfig(repo.Registry, "bob", "hunter22"))})
	data, desc := blobOf(1000)
	push(t, c, repo, data, desc.MediaType)
	for range 3 {
		ok, err := c.HasBlob(t.Context(), repo, desc.Digest)
		assert.NilError(t, err)
		assert.Assert(t, ok)
	}
	assert.DeepEqual(t, s.asked, []string{"bob repository:acme/app:pull,push", "bob repository:acme/app:pull"})
	assert.Equal(t, rec.count("GET", "/v2/"), 1, "one probe")
}

func TestTokensAreRenewed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		s     *tokenRegistry
		asked int
	}{
		{"short_lived", &tokenRegistry{expires: 0, uses: 2}, 3},
		{"revoked", &tokenRegistry{expires: 3600, uses: 1}, 5},
		{"root_is_open", &tokenRegistry{openRoot: true, expires: 300}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.s.next = inMemory()
			repo := serve(t, tc.s)
			c := newClient(t, Options{})
			for range 5 {
				_, err := c.HasBlob(t.Context(), repo, someDigest)
				assert.NilError(t, err)
			}
			assert.Equal(t, len(tc.s.asked), tc.asked)
		})
	}
}

func TestScopeThatTheRegistryAsksFor(t *testing.T) {
	t.Parallel()
	s := &tokenRegistry{next: inMemory(), rename: "repository:docker-local/acme/app:pull", expires: 300}
	repo := serve(t, s)
	c := newClient(t, Options{})
	for range 3 {
		_, err := c.HasBlob(t.Context(), repo, someDigest)
		assert.NilError(t, err)
	}
	assert.DeepEqual(t, s.asked, []string{
		" repository:acme/app:pull",
		" repository:docker-local/acme/app:pull repository:acme/app:pull",
	})
}

func TestIdentityToken(t *testing.T) {
	t.Parallel()
	s := &tokenRegistry{next: inMemory(), user: "nobody", password: "x", refresh: "r3fresh", expires: 300}
	repo := serve(t, s)
	config := fmt.Sprintf(`{"auths":{%q:{"auth":"PHRva2VuPjo=","identitytoken":"r3fresh"}}}`, repo.Registry)
	_, err := newClient(t, Options{Getenv: env("DOCKER_AUTH_CONFIG", config)}).HasBlob(t.Context(), repo, someDigest)
	assert.NilError(t, err)
}

// TestTokenServerBeside is GitLab on an address: the token server has another
// port at the registry's address.
func TestTokenServerBeside(t *testing.T) {
	t.Parallel()
	s := &tokenRegistry{next: inMemory(), user: "bob", password: "hunter22", expires: 300}
	tokens := serve(t, s)
	repo := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		req.Host = tokens.Registry
		s.ServeHTTP(w, req)
	}))
	c := newClient(t, Options{Getenv: env("DOCKER_AUTH_CONFIG", authConfig(repo.Registry, "bob", "hunter22"))})
	_, err := c.HasBlob(t.Context(), repo, someDigest)
	assert.NilError(t, err)
}

func TestDenied(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		h      http.Handler
		login  bool
		text   []string
		secret []string
	}{
		{"token_server_refuses", &tokenRegistry{next: inMemory(), user: "bob", password: "right"}, true,
			[]string{"the token server of ", "401 Unauthorized", "the credentials from DOCKER_AUTH_CONFIG do not allow it", "run: docker login "}, []string{"hunter22"}},
		{"token_server_wants_a_login", &tokenRegistry{next: inMemory(), user: "bob", password: "right"}, false,
			[]string{"401 Unauthorized", "no credentials for ", "DOCKER_CONFIG (not set), DOCKER_AUTH_CONFIG (not set), ", "config.json (no such file)", "run: docker login "}, nil},
		{"basic", basicRegistry("bob", "right"), true, []string{"401 Unauthorized", "do not allow it"}, []string{"hunter22", "Ym9i"}},
		{"forbidden", http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path != "/v2/" {
				w.WriteHeader(403)
				fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"see https://x.test/why?token=s3cr3t and Bearer abcdefghijkl"}]}`)
			}
		}), true, []string{"403 Forbidden", "DENIED: see https://x.test/why"}, []string{"s3cr3t", "abcdefghijkl"}},
		{"token_does_not_help", &tokenRegistry{next: inMemory(), rename: "x:y:z", uses: -1}, false, []string{"401 Unauthorized (UNAUTHORIZED: authentication required)"}, []string{"t0ken-"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ref := serve(t, tc.h).WithTag("1")
			o := Options{}
			if tc.login {
				o.Getenv = env("DOCKER_AUTH_CONFIG", authConfig(ref.Registry, "bob", "hunter22"))
			}
			c := newClient(t, o)
			_, _, err := c.Manifest(t.Context(), ref)
			assert.Assert(t, errors.Is(err, ErrDenied), "%v", err)
			contains(t, err, append(tc.text, ref.String())...)
			for _, s := range tc.secret {
				assert.Assert(t, !strings.Contains(err.Error(), s), "%v", err)
			}
		})
	}
}

func basicRegistry(user, password string) http.Handler {
	next := inMemory()
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if u, p, ok := req.BasicAuth(); !ok || u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(401)
			return
		}
		next.ServeHTTP(w, req)
	})
}

func TestTokenAnswersAreNotShown(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, answer string }{
		{"no_token", `{"refresh_token":"s3cr3t"}`},
		{"not_json", `s3cr3t`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ref := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.URL.Path == "/token" {
					fmt.Fprint(w, tc.answer)
					return
				}
				w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+req.Host+`/token"`)
				w.WriteHeader(401)
			})).WithTag("1")
			_, err := newClient(t, Options{}).Head(t.Context(), ref)
			assert.Assert(t, errors.Is(err, ErrRejected), "%v", err)
			contains(t, err, "no usable answer")
			assert.Assert(t, !strings.Contains(err.Error(), "s3cr3t"), "%v", err)
		})
	}
}

func TestRealmAtAPrivateAddressIsRefused(t *testing.T) {
	t.Parallel()
	ref := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://169.254.169.254/latest"`)
		w.WriteHeader(401)
	})).WithTag("1")
	_, err := newClient(t, Options{}).Head(t.Context(), ref)
	assert.ErrorContains(t, err, "private or link-local")
}

func TestOrderOfCredentials(t *testing.T) {
	t.Parallel()
	repo := Ref{Registry: "ghcr.io", Repository: "acme/app"}
	write := func(t *testing.T, dir, config string) {
		t.Helper()
		assert.NilError(t, os.MkdirAll(dir, 0o700))
		assert.NilError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600))
	}
	for _, tc := range []struct {
		name                   string
		dockerConfig, env, hom string
		want                   string
	}{
		{"docker_config_first", authConfig("ghcr.io", "a", "x"), authConfig("ghcr.io", "b", "x"), authConfig("ghcr.io", "c", "x"), "a"},
		{"then_the_variable", authConfig("quay.io", "a", "x"), authConfig("ghcr.io", "b", "x"), authConfig("ghcr.io", "c", "x"), "b"},
		{"then_home", "", authConfig("quay.io", "b", "x"), authConfig("ghcr.io", "c", "x"), "c"},
		{"nothing", "", "", "", ""},
		{"repository_before_host", `{"auths":{"ghcr.io":{"auth":"YTp4"},"ghcr.io/acme":{"auth":"Yjp4"}}}`, "", "", "b"},
		{"other_repository", `{"auths":{"ghcr.io/other":{"auth":"Yjp4"}}}`, "", "", ""},
		{"look_alike_host", authConfig("ghcr.io.evil.test", "a", "x"), authConfig("evilghcr.io", "a", "x"), "", ""},
		{"old_url", authConfig("https://ghcr.io/v2/", "a", "x"), "", "", "a"},
		{"gitlab_fields", "", `{"auths":{"ghcr.io":{"auth":"Yjp4"}},"credHelpers":{}}`, "", "b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir, home := t.TempDir(), t.TempDir()
			if tc.dockerConfig != "" {
				write(t, dir, tc.dockerConfig)
			}
			if tc.hom != "" {
				write(t, filepath.Join(home, ".docker"), tc.hom)
			}
			c := newClient(t, Options{HomeDir: home, Getenv: env("DOCKER_CONFIG", dir, "DOCKER_AUTH_CONFIG", tc.env)})
			assert.Equal(t, c.creds.lookup(t.Context(), repo, false).config.Username, tc.want)
		})
	}
}

func TestHubCredentials(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"https://index.docker.io/v1/", "docker.io", "index.docker.io", "https://registry-1.docker.io/v2/"} {
		c := newClient(t, Options{Getenv: env("DOCKER_AUTH_CONFIG", authConfig(key, "a", "x"))})
		hub, err := ParseRef("alpine")
		assert.NilError(t, err)
		assert.Equal(t, c.creds.lookup(t.Context(), hub, false).config.Username, "a", key)
	}
}

func TestBadCredentialFiles(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, config string }{
		{"not_json", "s3cr3t"}, {"bad_base64", `{"auths":{"x":{"auth":"s3cr3t!"}}}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := New(Options{Getenv: env("DOCKER_AUTH_CONFIG", tc.config)})
			assert.ErrorContains(t, err, "DOCKER_AUTH_CONFIG is not a docker configuration")
			assert.Assert(t, !strings.Contains(err.Error(), "s3cr3t"), "%v", err)
		})
	}
}

// TestCredentialHelpers is not parallel: helpers are found on the PATH.
func TestCredentialHelpers(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	script := func(name, text string) {
		assert.NilError(t, os.WriteFile(filepath.Join(bin, "docker-credential-"+name), []byte("#!/bin/sh\nread server\n"+text), 0o700))
	}
	calls := filepath.Join(bin, "calls")
	script("good", `echo $server >>`+calls+`; n=$(wc -l <`+calls+`); printf '{"Username":"u%s","Secret":"%s"}' "$n" "$server"`)
	script("identity", `echo '{"Username":"<token>","Secret":"r3fresh"}'`)
	script("none", `echo "credentials not found in native keychain"; exit 1`)
	script("bad", `echo "it is locked"; exit 1`)

	repo := Ref{Registry: "ghcr.io", Repository: "acme/app"}
	look := func(config string) login {
		c := newClient(t, Options{Getenv: env("DOCKER_AUTH_CONFIG", config)})
		return c.creds.lookup(t.Context(), repo, false)
	}
	assert.Equal(t, look(`{"credsStore":"good"}`).config.Password, "ghcr.io")
	assert.Equal(t, look(`{"credHelpers":{"ghcr.io":"good"},"credsStore":"bad"}`).config.Password, "ghcr.io")
	assert.Equal(t, look(`{"credsStore":"identity"}`).config.IdentityToken, "r3fresh")
	for _, helper := range []string{"none", "bad", "absent"} {
		got := look(`{"credsStore":"` + helper + `","auths":{"ghcr.io":{"auth":"Yjp4"}}}`)
		assert.Equal(t, got.config.Username, "b", helper)
	}

	c := newClient(t, Options{Getenv: env("DOCKER_AUTH_CONFIG", `{"credHelpers":{"ghcr.io":"good"}}`)})
	first := c.creds.lookup(t.Context(), repo, false)
	assert.Equal(t, c.creds.lookup(t.Context(), repo, false), first, "remembered")
	assert.Assert(t, c.creds.refresh(t.Context(), first, repo), "the helper says something else now")
	assert.Assert(t, c.creds.lookup(t.Context(), repo, false).config != first.config)

	// A registry whose password the helper renews.
	assert.NilError(t, os.Remove(calls))
	r := serve(t, basicRegistryFor(func() string { return "u2" }))
	c = newClient(t, Options{Getenv: env("DOCKER_AUTH_CONFIG", fmt.Sprintf(`{"credHelpers":{%q:"good"}}`, r.Registry))})
	_, err := c.HasBlob(t.Context(), r, someDigest)
	assert.NilError(t, err)
}

func basicRegistryFor(user func() string) http.Handler {
	next := inMemory()
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if u, _, _ := req.BasicAuth(); u != user() {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(401)
			return
		}
		next.ServeHTTP(w, req)
	})
}

func TestScopesCover(t *testing.T) {
	t.Parallel()
	s := scopes{"repository:a/b:pull,push", "repository:localhost:5000/c:pull"}
	assert.Assert(t, s.cover("repository:a/b:pull"))
	assert.Assert(t, s.cover("repository:a/b:push,pull"))
	assert.Assert(t, s.cover("repository:localhost:5000/c:pull"))
	assert.Assert(t, !s.cover("repository:a/b:delete"))
	assert.Assert(t, !s.cover("repository:a/bc:pull"))
	assert.Assert(t, !s.cover("registry"))
}

// What a helper said before holds on when it cannot be asked any more: a build's
// step may have the root directory for itself.
func TestCredentialHelper_out_of_reach(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	helper := filepath.Join(bin, "docker-credential-here")
	repo := Ref{Registry: "ghcr.io", Repository: "acme/app"}
	for _, then := range []string{"", "#!/bin/sh\nexit 1\n"} {
		assert.NilError(t, os.WriteFile(helper, []byte("#!/bin/sh\necho '{\"Username\":\"u\",\"Secret\":\"hunter22\"}'\n"), 0o700))
		c := newClient(t, Options{Getenv: env("DOCKER_AUTH_CONFIG", `{"credsStore":"here"}`)})
		assert.Equal(t, c.creds.lookup(t.Context(), repo, false).config.Password, "hunter22")
		assert.NilError(t, os.Remove(helper))
		if then != "" {
			assert.NilError(t, os.WriteFile(helper, []byte(then), 0o700))
		}
		for range 2 {
			assert.Equal(t, c.creds.lookup(t.Context(), repo, true).config.Password, "hunter22")
		}
	}
}

func TestRegistryAuthFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "auth.json")
	assert.NilError(t, os.WriteFile(file, []byte(authConfig("ghcr.io", "bob", "hunter22")), 0o600))
	c := newClient(t, Options{Getenv: env("REGISTRY_AUTH_FILE", file)})
	assert.Equal(t, c.creds.lookup(t.Context(), Ref{Registry: "ghcr.io", Repository: "a"}, false).config.Username, "bob")
}
