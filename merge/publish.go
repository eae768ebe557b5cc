package merge

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/org/kaniko-multiarch/internal/registry"
)

// publish brings the images and the index to every repository, reads the index
// back, and moves the tags last, so that whatever fails before leaves them as
// they were.
func (m *merger) publish(ctx context.Context, reg Registry, mediaType string, data []byte) error {
	for _, repo := range m.repos {
		for _, c := range m.children {
			if err := c.bring(ctx, reg, repo); err != nil {
				return err
			}
		}
	}
	d := digest.FromBytes(data)
	for _, repo := range m.repos {
		ref := repo.WithDigest(d)
		if _, err := reg.PushManifest(ctx, ref, mediaType, data); err != nil {
			return fmt.Errorf("pushing the index %s: %w", ref, err)
		}
		if err := readBack(ctx, reg, ref, mediaType, data); err != nil {
			return err
		}
	}
	return m.moveTags(ctx, reg, mediaType, data)
}

// bring makes sure that repo has the image.
func (c *child) bring(ctx context.Context, reg Writer, repo registry.Ref) error {
	if c.source != repo {
		built := c.found.Record.Digest
		if err := reg.CopyImage(ctx, repo.WithDigest(built), c.source.WithDigest(built)); err != nil {
			return fmt.Errorf("copying %s to %s: %w", c.source.WithDigest(built), repo.Name(), err)
		}
	}
	if !c.converted {
		return nil
	}
	ref := repo.WithDigest(c.desc.Digest)
	if _, err := reg.PushManifest(ctx, ref, c.desc.MediaType, c.manifest); err != nil {
		return fmt.Errorf("pushing the converted manifest %s: %w", ref, err)
	}
	return nil
}

func readBack(ctx context.Context, reg Reader, ref registry.Ref, mediaType string, data []byte) error {
	desc, got, err := reg.Manifest(ctx, ref)
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return &VerifyError{Problems: []string{fmt.Sprintf("the registry took the index %s but does not have it; try again", ref)}}
	case errors.Is(err, registry.ErrCorrupt):
		return &VerifyError{Problems: []string{fmt.Sprintf("reading the index back: %v", err)}}
	case err != nil:
		return fmt.Errorf("reading the index back: %w", err)
	case !bytes.Equal(got, data):
		return &VerifyError{Problems: []string{fmt.Sprintf("the registry answers with other content for the index %s", ref)}}
	case desc.MediaType != mediaType:
		return &VerifyError{Problems: []string{fmt.Sprintf("the registry serves the index %s as %s, it was pushed as %s", ref, desc.MediaType, mediaType)}}
	}
	return nil
}

func (m *merger) moveTags(ctx context.Context, reg Writer, mediaType string, data []byte) error {
	var moved []registry.Ref
	for i, tag := range m.tags {
		_, err := reg.PushManifest(ctx, tag, mediaType, data)
		if m.opts.IgnoreImmutableTags && errors.Is(err, registry.ErrImmutable) {
			m.warnings = append(m.warnings, fmt.Sprintf("%s was left as it is: the registry does not let the tag move", tag))
			continue
		}
		if err != nil {
			return &TagError{
				Digest: digest.FromBytes(data), Tag: tag.String(), Err: err,
				Moved: texts(moved), NotMoved: texts(m.tags[i+1:]),
			}
		}
		moved = append(moved, tag)
	}
	m.tags = moved
	return nil
}

func texts(refs []registry.Ref) []string {
	var out []string
	for _, ref := range refs {
		out = append(out, ref.String())
	}
	return out
}
