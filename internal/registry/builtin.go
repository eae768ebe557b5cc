package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

const (
	// builtinTimeout is how long a built-in helper may take before the registry
	// is asked without it: an image may be public. builtinPatience is how long
	// once the registry has refused that.
	builtinTimeout  = 3 * time.Second
	builtinPatience = 15 * time.Second
)

// builtin is a source of credentials that needs no configuration.
type builtin struct {
	// name is kaniko's for it.
	name string
	// serves reports the registries that it may be asked about. It never gets
	// to know of any other.
	serves func(registry string) bool
	// get returns the credentials, or why there are none. Its error is shown
	// when the registry refuses us.
	get func(context.Context, Ref) (authn.AuthConfig, error)
	// explicit is set where the user names the registry to it.
	explicit bool
}

// errNothing is a helper that has nothing to say about a registry.
var errNothing = errors.New("no credentials")

// builtins are the helpers in their order.
func builtins(o Options) ([]builtin, error) {
	all := []builtin{
		{name: "env", serves: everywhere, get: envHelper(o.Getenv), explicit: true},
		{name: "gitlab", serves: gitlabServes(o.Getenv), get: gitlabHelper(o.Getenv)},
		{name: "google", serves: isGoogle, get: googleHelper},
		{name: "ecr", serves: isECR, get: ecrHelper},
		{name: "acr", serves: isACR, get: newAzure(o.Getenv, o.UserAgent).get},
		{name: "github", serves: isGitHub, get: githubHelper(o.Getenv)},
	}
	if o.CredentialHelpers == nil {
		return all, nil
	}
	var names []string
	for _, b := range all {
		names = append(names, b.name)
	}
	for _, n := range o.CredentialHelpers {
		if !slices.Contains(names, n) {
			return nil, fmt.Errorf("credential helper %q: there are %s", n, strings.Join(names, ", "))
		}
	}
	return slices.DeleteFunc(all, func(b builtin) bool { return !slices.Contains(o.CredentialHelpers, b.name) }), nil
}

// told is what a built-in helper said about a registry. Its lock is held while
// the helper is asked.
type told struct {
	mu    sync.Mutex
	login login
	err   error
	// late is set when it did not answer in time.
	late bool
}

func (c *credentials) askBuiltin(ctx context.Context, b builtin, r Ref, fresh bool) login {
	if !b.serves(r.Registry) {
		return login{}
	}
	t := c.toldBy(b, r)
	t.mu.Lock()
	defer t.mu.Unlock()
	limit, first := c.timeout, true
	if !t.login.asked.IsZero() && time.Since(t.login.asked) < helperLifetime {
		if !fresh {
			return t.login
		}
		limit, first = c.patience, false
	}
	config, err := within(ctx, limit, func(ctx context.Context) (authn.AuthConfig, error) { return b.get(ctx, r) })
	if ctx.Err() != nil {
		return login{}
	}
	before := t.login.config
	t.login = login{config: config, from: "the helper " + b.name, helper: true, implied: !b.explicit, asked: time.Now()}
	t.err, t.late = err, first && errors.Is(err, context.DeadlineExceeded)
	if err != nil && !errors.Is(err, errNothing) {
		// What it said before may still hold.
		t.login.config = before
		c.log.Debug("no credentials from a built-in helper", "helper", b.name, "registry", r.Registry, "error", foreign(err.Error()))
	}
	return t.login
}

// within bounds what may not look at its context.
func within[T any](ctx context.Context, limit time.Duration, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s: %w", limit, context.DeadlineExceeded))
	defer cancel()
	type result struct {
		got T
		err error
	}
	done := make(chan result, 1)
	go func() {
		got, err := f(ctx)
		done <- result{got, err}
	}()
	var r result
	select {
	case r = <-done:
	case <-ctx.Done():
		r.err = ctx.Err()
	}
	if r.err != nil && ctx.Err() != nil {
		// Not every library says that it was the time.
		r.err = context.Cause(ctx)
	}
	return r.got, r.err
}

func (c *credentials) toldBy(b builtin, r Ref) *told {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := b.name + " " + r.Registry
	if c.told[k] == nil {
		c.told[k] = &told{}
	}
	return c.told[k]
}

// late reports whether a helper for the registry gets another chance.
func (c *credentials) late(r Ref) bool {
	return slices.ContainsFunc(c.builtins, func(b builtin) bool {
		if !b.serves(r.Registry) {
			return false
		}
		t := c.toldBy(b, r)
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.late
	})
}

// failures says for people why the helpers for a registry were of no use.
func (c *credentials) failures(r Ref) []string {
	var said []string
	for _, b := range c.builtins {
		if !b.serves(r.Registry) {
			continue
		}
		t := c.toldBy(b, r)
		t.mu.Lock()
		if t.err != nil && !errors.Is(t.err, errNothing) {
			said = append(said, fmt.Sprintf("the helper %s (%s)", b.name, foreign(t.err.Error())))
		}
		t.mu.Unlock()
	}
	return said
}

// known is the login that was used, without asking a built-in helper that was
// not asked before.
func (c *credentials) known(r Ref) login {
	for _, s := range c.sources {
		if l := c.ask(s, r, false); !l.anonymous() {
			return l
		}
	}
	for _, b := range c.builtins {
		if !b.serves(r.Registry) {
			continue
		}
		t := c.toldBy(b, r)
		t.mu.Lock()
		l := t.login
		t.mu.Unlock()
		if !l.anonymous() {
			return l
		}
	}
	return login{}
}

func everywhere(string) bool { return true }
