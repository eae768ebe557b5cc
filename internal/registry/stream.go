package registry

import (
	"context"
	"io"
	"math"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Growing is a blob that is still being made.
type Growing interface {
	// ReadAt waits for what is not there yet.
	io.ReaderAt
	// Wait returns what the whole blob is, once it is complete.
	Wait(ctx context.Context) (ocispecs.Descriptor, error)
}

// StreamBlob is PushBlob for a blob that is still being made, and returns what
// it turned out to be. It does not ask first whether the repository has it:
// nobody knows what it is. progress is called while that is so, too.
func (c *Client) StreamBlob(ctx context.Context, repo Ref, content Growing, progress func(sent int64)) (ocispecs.Descriptor, error) {
	if progress == nil {
		progress = func(int64) {}
	}
	desc, err := c.streamBlob(ctx, repo, content, progress)
	if desc.Digest != "" {
		repo = repo.WithDigest(desc.Digest)
	}
	return desc, about(err, "pushing blob", repo)
}

func (c *Client) streamBlob(ctx context.Context, repo Ref, content Growing, progress func(sent int64)) (ocispecs.Descriptor, error) {
	u, done, err := c.newUpload(ctx, repo, ocispecs.Descriptor{Size: unknownSize})
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	defer done()
	u.content, u.growing, u.progress = content, content, progress
	err = u.run(ctx)
	return u.desc, err
}

// unknownSize is that of a blob that is still being made. Everything in an
// upload that needs more than that waits for the blob to be complete.
const unknownSize = math.MaxInt64
