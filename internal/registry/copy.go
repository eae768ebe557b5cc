package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// copyJobs is how many blobs of an image are copied at a time.
const copyJobs = 4

// CopyImage copies an image, or an index with all its images, byte by byte.
// from needs a digest; to gets the tag that it has, or none. Blobs are mounted
// within a registry, and streamed from one to another without touching the disk.
func (c *Client) CopyImage(ctx context.Context, to, from Ref) error {
	if from.Digest == "" {
		return fmt.Errorf("copying %s: name it by digest, a tag may move meanwhile", from)
	}
	if to.Digest != "" && to.Digest != from.Digest {
		return fmt.Errorf("copying %s to %s: the digests differ", from, to)
	}
	return about(c.copyTree(ctx, to, from, 0), "copying "+from.String()+" to", to)
}

func (c *Client) copyTree(ctx context.Context, to, from Ref, depth int) error {
	if depth > maxNesting {
		return &failure{kind: ErrRejected, text: fmt.Sprintf("indexes are nested more than %d deep", maxNesting)}
	}
	if to.Tag == "" {
		// A manifest is there only with all that it names.
		_, err := c.Head(ctx, to.WithDigest(from.Digest))
		if err == nil || !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDenied) {
			return err
		}
	}
	d, data, err := c.Manifest(ctx, from.WithDigest(from.Digest))
	if err != nil {
		return err
	}
	if to.Name() != from.Name() {
		if err := c.copyParts(ctx, to, from, d, data, depth); err != nil {
			return err
		}
	}
	_, err = c.PushManifest(ctx, to, d.MediaType, data)
	return err
}

// copyParts copies what a manifest names.
func (c *Client) copyParts(ctx context.Context, to, from Ref, d ocispecs.Descriptor, data []byte, depth int) error {
	if IsIndex(d.MediaType) {
		var index ocispecs.Index
		if err := json.Unmarshal(data, &index); err != nil {
			return fmt.Errorf("reading the index: %w", err)
		}
		for _, m := range index.Manifests {
			if err := c.copyTree(ctx, to.WithDigest(m.Digest), from.WithDigest(m.Digest), depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	var m ocispecs.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("reading the manifest: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(copyJobs)
	seen := map[digest.Digest]bool{}
	for _, blob := range append([]ocispecs.Descriptor{m.Config}, m.Layers...) {
		// Windows base layers have URLs: their licence keeps them there.
		if seen[blob.Digest] || len(blob.URLs) > 0 {
			continue
		}
		seen[blob.Digest] = true
		g.Go(func() error { return c.copyBlob(ctx, to, from, blob) })
	}
	return g.Wait()
}

func (c *Client) copyBlob(ctx context.Context, to, from Ref, d ocispecs.Descriptor) error {
	mounted, err := c.MountBlob(ctx, to, from, d.Digest)
	if err != nil || mounted {
		return err
	}
	src := &remoteBlob{c: c, ctx: ctx, repo: from, desc: d}
	defer src.close()
	return c.PushBlob(ctx, to, d, src, nil)
}

// remoteBlob is a blob in a registry as an io.ReaderAt. Reads in order use one
// connection; any other offset opens a new one. Its reads take none of the
// places for downloads, since the upload that they feed holds one already.
type remoteBlob struct {
	c    *Client
	ctx  context.Context
	repo Ref
	desc ocispecs.Descriptor
	at   int64
	body io.ReadCloser
}

func (r *remoteBlob) ReadAt(p []byte, off int64) (int, error) {
	if r.body == nil || r.at != off {
		r.close()
		b, err := r.c.openBlob(r.ctx, r.repo, r.desc, off)
		if err != nil {
			return 0, about(err, "pulling blob", r.repo.WithDigest(r.desc.Digest))
		}
		r.body, r.at = b, off
	}
	n, err := io.ReadFull(r.body, p)
	r.at += int64(n)
	// Not errors.Is: a source that failed for good wraps it, too.
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}

func (r *remoteBlob) close() {
	if r.body != nil {
		r.body.Close()
	}
	r.body = nil
}
