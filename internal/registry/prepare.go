package registry

import (
	"context"
	"crypto/rand"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Prepare finds out what is needed to talk to the registry of a repository, and
// asks those for credentials that serve it: where they are can be out of reach
// later, while a build's step has the root directory for itself.
func (c *Client) Prepare(ctx context.Context, repo Ref) error {
	if _, err := c.host(ctx, repo); err != nil {
		return about(err, "reaching the registry of", repo.WithTag(""))
	}
	c.creds.lookup(ctx, repo, false)
	return nil
}

// CheckPush opens the upload of a blob that nobody has, and gives it up when the
// registry has let us begin: this is the first thing that needs the permission
// to push. Nothing is stored; what is left at most is an empty upload session,
// which registries remove in time.
func (c *Client) CheckPush(ctx context.Context, repo Ref) error {
	desc := ocispecs.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromString(rand.Text())}
	u, done, err := c.newUpload(ctx, repo, desc)
	if err == nil {
		defer done()
		err = u.open(ctx)
	}
	if err != nil {
		return about(err, "trying to push to", repo.WithTag(""))
	}
	u.cancel(ctx)
	return nil
}
