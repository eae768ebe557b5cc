package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/hashicorp/go-retryablehttp"
)

const (
	// tokenLifetime holds when the token server names none (distribution's
	// token specification: 60 seconds).
	tokenLifetime = time.Minute
	// tokenMargin is how long before its end a token is replaced, so that it
	// does not end on the way.
	tokenMargin = 10 * time.Second
)

// scopes are what a request needs, in the words of the token specification.
type scopes []string

func pullScope(r Ref) scopes { return scopes{"repository:" + r.Repository + ":pull"} }
func pushScope(r Ref) scopes { return scopes{"repository:" + r.Repository + ":pull,push"} }

func (s scopes) key() string { return strings.Join(s, " ") }

func (s scopes) onlyPull() bool {
	return !slices.ContainsFunc(s, func(one string) bool { return !strings.HasSuffix(one, ":pull") })
}

// cover reports whether what is asked for is in s already.
func (s scopes) cover(asked string) bool {
	i := strings.LastIndexByte(asked, ':')
	for _, have := range s {
		j := strings.LastIndexByte(have, ':')
		if have == asked {
			return true
		}
		if i < 0 || j < 0 || have[:j] != asked[:i] {
			continue
		}
		actions := strings.Split(have[j+1:], ",")
		missing := slices.ContainsFunc(strings.Split(asked[i+1:], ","), func(a string) bool { return !slices.Contains(actions, a) })
		if !missing {
			return true
		}
	}
	return false
}

// grant is the permission that a request was sent with.
type grant struct {
	// header is the value of Authorization; empty for none.
	header string
	login  login
	// challenge is what the registry had asked for.
	challenge *transport.Challenge
	// token is where the header came from, nil unless it was fetched.
	token *token
}

// token is a bearer token and its end. Its lock is held while it is fetched,
// so that requests that need the same one wait for it.
type token struct {
	mu    sync.Mutex
	grant grant
	until time.Time
}

// authorize returns the permission for a request to r.
func (c *Client) authorize(ctx context.Context, h *host, r Ref, want scopes) (grant, error) {
	h.mu.Lock()
	ch := h.challenge
	if extra := h.learned[want.key()]; extra != "" {
		// First: some registries look at the first scope only.
		want = append(scopes{extra}, want...)
	}
	h.mu.Unlock()
	if ch == nil {
		return grant{}, nil
	}
	switch strings.ToLower(ch.Scheme) {
	case "basic":
		l := c.creds.lookup(ctx, r, false)
		return grant{header: basic(l), login: l, challenge: ch}, nil
	case "bearer":
		return c.bearer(ctx, h, r, ch, want)
	}
	return grant{challenge: ch}, nil
}

func basic(l login) string {
	switch {
	case l.config.RegistryToken != "":
		return "Bearer " + l.config.RegistryToken
	case l.config.Username != "":
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(l.config.Username+":"+l.config.Password))
	}
	return ""
}

func (c *Client) bearer(ctx context.Context, h *host, r Ref, ch *transport.Challenge, want scopes) (grant, error) {
	h.mu.Lock()
	t := h.tokens[want.key()]
	if t == nil {
		t = &token{}
		h.tokens[want.key()] = t
	}
	h.mu.Unlock()

	t.mu.Lock()
	defer t.mu.Unlock()
	if t.grant.header != "" && t.grant.challenge == ch && time.Now().Before(t.until) {
		return t.grant, nil
	}
	l := login{}
	if !h.anonymous(r, want) {
		l = c.creds.lookup(ctx, r, false)
	}
	if l.config.RegistryToken != "" {
		return grant{header: "Bearer " + l.config.RegistryToken, login: l, challenge: ch, token: t}, nil
	}
	secret, life, err := c.fetchToken(ctx, h, r, l, ch, want)
	if errors.Is(err, ErrDenied) && c.creds.refresh(ctx, l, r) {
		l = c.creds.lookup(ctx, r, false)
		secret, life, err = c.fetchToken(ctx, h, r, l, ch, want)
	}
	if errors.Is(err, ErrDenied) && c.decline(h, r, want, l) {
		// That they were refused tells more than that anonymous users are.
		if s, d, anonymousErr := c.fetchToken(ctx, h, r, login{}, ch, want); anonymousErr == nil {
			l, secret, life, err = login{}, s, d, nil
		}
	}
	if err != nil {
		return grant{}, err
	}
	g := grant{header: "Bearer " + secret, login: l, challenge: ch, token: t}
	t.grant, t.until = g, time.Now().Add(life-min(tokenMargin, life/2))
	return g, nil
}

// decline stops the use of a login that nobody named, such as a token that CI
// put there for something else: public images can be pulled without. It
// reports whether that makes a difference.
func (c *Client) decline(h *host, r Ref, want scopes, l login) bool {
	if !l.implied || !want.onlyPull() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.declined[r.Repository] {
		return false
	}
	h.declined[r.Repository] = true
	c.log.Debug("credentials were refused, going on without", "repository", r.Name(), "from", l.from)
	return true
}

// anonymous reports whether pulls from a repository go without a login.
func (h *host) anonymous(r Ref, want scopes) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.declined[r.Repository] && want.onlyPull()
}

func (c *Client) fetchToken(ctx context.Context, h *host, r Ref, l login, ch *transport.Challenge, want scopes) (string, time.Duration, error) {
	start := time.Now()
	tok, err := transport.Exchange(onBehalf(ctx, h.name), realmRegistry(h.registry, ch), l.authenticator(), &retryablehttp.RoundTripper{Client: c.tokens}, want, ch)
	if err != nil {
		return "", 0, c.tokenError(ctx, h, r, start, err)
	}
	life := max(time.Duration(tok.ExpiresIn)*time.Second, 0)
	if life == 0 {
		life = tokenLifetime
	}
	if tok.AccessToken != "" {
		return tok.AccessToken, life, nil
	}
	return tok.Token, life, nil
}

// realmRegistry is the registry on whose behalf the token server is asked.
// go-containerregistry refuses realms at private addresses, lest a registry
// sends us to a cloud's metadata service, unless host and port are its own. A
// token server beside the registry, at the same address with another port, is
// what GitLab on an address without name does: it passes for the registry.
func realmRegistry(reg name.Registry, ch *transport.Challenge) name.Registry {
	u, err := url.Parse(ch.Parameters["realm"])
	if err != nil || u.Hostname() != hostOnly(reg.RegistryStr()) {
		return reg
	}
	if beside, err := name.NewRegistry(u.Host); err == nil {
		return beside
	}
	return reg
}

// tokenError says why there is no token. The text of unknown errors is left
// out: it may hold the token server's answer.
func (c *Client) tokenError(ctx context.Context, h *host, r Ref, start time.Time, err error) error {
	if e, ok := errors.AsType[*transport.Error](err); ok {
		status := e.StatusCode
		if status == http.StatusBadRequest {
			// RFC 6749, section 5.2: an invalid login is a 400.
			status = http.StatusUnauthorized
		}
		body, err := json.Marshal(map[string]any{"errors": e.Errors})
		if err != nil {
			body = nil
		}
		return c.answerError(r, "the token server of "+h.name, status, body)
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return c.requestError(ctx, h.name, start, err)
	}
	text := fmt.Sprintf("the token server of %s gave no usable answer", h.name)
	if strings.HasPrefix(err.Error(), "invalid realm") {
		text += ": " + foreign(err.Error())
	}
	return &failure{kind: ErrRejected, text: text}
}

// refused learns from an answer 401 or 403 to a request that was sent with g.
// It reports whether another try with a new grant makes sense.
func (c *Client) refused(ctx context.Context, h *host, r Ref, want scopes, g grant, resp *http.Response) bool {
	if resp.Request.URL.Host != h.base.Host {
		return false
	}
	forget(g)
	ch := parseChallenge(resp, h.plain)
	if resp.StatusCode == http.StatusForbidden || ch == nil {
		return c.creds.refresh(ctx, g.login, r) || c.decline(h, r, want, g.login)
	}
	return c.challenged(h, want, ch) || c.creds.refresh(ctx, g.login, r)
}

// challenged keeps what the registry asks for and reports whether that is new,
// or worth a new token.
func (c *Client) challenged(h *host, want scopes, ch *transport.Challenge) bool {
	asked := ch.Parameters["scope"]
	h.mu.Lock()
	defer h.mu.Unlock()
	if asked != "" && !want.cover(asked) {
		h.learned[want.key()] = asked
	}
	if h.challenge == nil || !sameChallenge(h.challenge, ch) {
		h.challenge = ch
		return true
	}
	return strings.EqualFold(ch.Scheme, "bearer")
}

func sameChallenge(a, b *transport.Challenge) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) && a.Parameters["realm"] == b.Parameters["realm"] &&
		a.Parameters["service"] == b.Parameters["service"]
}

// forget drops the token of a refused grant, unless it was replaced already.
func forget(g grant) {
	if g.token == nil {
		return
	}
	g.token.mu.Lock()
	defer g.token.mu.Unlock()
	if g.token.grant.header == g.header {
		g.token.until = time.Time{}
	}
}
