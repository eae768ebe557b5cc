package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"
)

// cancelTimeout bounds the courtesy of ending an upload that is not needed.
const cancelTimeout = 10 * time.Second

// MountBlob makes a blob of one repository known in another one of the same
// registry, without moving a byte. It is false when the registry declines or
// the registries differ; then the blob has to be pushed.
func (c *Client) MountBlob(ctx context.Context, to, from Ref, d digest.Digest) (bool, error) {
	if to.Registry != from.Registry {
		return false, nil
	}
	ok, err := c.mountBlob(ctx, to, from, d)
	return ok, about(err, "mounting blob of "+from.Name()+" as", to.WithDigest(d))
}

func (c *Client) mountBlob(ctx context.Context, to, from Ref, d digest.Digest) (bool, error) {
	if err := d.Validate(); err != nil {
		return false, fmt.Errorf("digest %q: %w", d, err)
	}
	a, err := c.do(ctx, call{
		method: http.MethodPost, repo: to, path: "blobs/uploads/",
		query:  url.Values{"mount": {d.String()}, "from": {from.Repository}},
		scopes: append(pushScope(to), pullScope(from)...),
	})
	if errors.Is(err, ErrDenied) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrRejected) {
		// Reading the other repository may be what is denied: the push decides.
		c.log.Debug("registry declined a mount", "error", err)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if a.status == http.StatusCreated {
		return true, nil
	}
	u := &upload{c: c, repo: to, scopes: pushScope(to)}
	if u.follow(a) == nil {
		u.cancel(ctx)
	}
	return false, nil
}

// cancel ends the session so that the registry need not keep what it got. It
// is a courtesy: registries drop old sessions themselves.
func (u *upload) cancel(ctx context.Context) {
	if u.location == nil {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer stop()
	_, err := u.c.do(ctx, call{method: http.MethodDelete, repo: u.repo, location: u.location, scopes: u.scopes, once: true})
	if err != nil {
		u.c.log.Debug("could not cancel an upload", "repository", u.repo.Name(), "error", err)
	}
	u.location = nil
}
