package merge

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/org/kaniko-multiarch/internal/registry"
)

// publish brings the images and the index to every repository, reads the index
// back, and moves the tags last, so that whatever fails before leaves them as
// they were.
func (m *merger) publish(ctx context.Context, reg Registry, out result) error {
	for _, repo := range m.repos {
		for _, c := range m.children {
			if err := m.bring(ctx, reg, c, repo); err != nil {
				return err
			}
		}
		for _, a := range m.attached {
			if err := copyTo(ctx, reg, repo, a.repo.WithDigest(a.desc.Digest)); err != nil {
				return err
			}
		}
	}
	for _, repo := range m.repos {
		if err := m.publishIndex(ctx, reg, repo, out); err != nil {
			return err
		}
	}
	if m.opts.Layout != "" {
		if err := m.writeLayout(ctx, reg, out); err != nil {
			return fmt.Errorf("writing the OCI layout %s: %w", m.opts.Layout, err)
		}
	}
	return m.moveTags(ctx, reg, out)
}

// publishIndex pushes by digest, unless it is there, and reads back.
func (m *merger) publishIndex(ctx context.Context, reg Registry, repo registry.Ref, out result) error {
	ref := repo.WithDigest(out.digest)
	if _, err := reg.Head(ctx, ref); err != nil {
		// Whatever the reason is, the push meets it again if it matters.
		if _, err := reg.PushManifest(ctx, ref, out.mediaType, out.data); err != nil {
			return fmt.Errorf("pushing the index %s: %w", ref, err)
		}
	}
	if err := readBack(ctx, reg, ref, out); err != nil {
		return err
	}
	if kept := m.kept(); kept != nil && kept.desc.Digest == out.digest {
		return m.copyReferrers(ctx, reg, repo, kept.repo.WithDigest(out.digest))
	}
	return nil
}

// bring makes sure that repo has the image.
func (m *merger) bring(ctx context.Context, reg Writer, c *child, repo registry.Ref) error {
	from := c.repo.WithDigest(c.built)
	if err := copyTo(ctx, reg, repo, from); err != nil {
		return err
	}
	if !c.changed {
		return m.copyReferrers(ctx, reg, repo, from)
	}
	ref := repo.WithDigest(c.desc.Digest)
	if _, err := reg.PushManifest(ctx, ref, c.desc.MediaType, c.manifest); err != nil {
		return fmt.Errorf("pushing the changed manifest %s: %w", ref, err)
	}
	return nil
}

// copyTo copies a manifest, if it is of another repository.
func copyTo(ctx context.Context, reg Writer, repo, from registry.Ref) error {
	if from.Name() == repo.Name() {
		return nil
	}
	if err := reg.CopyImage(ctx, repo.WithDigest(from.Digest), from); err != nil {
		return fmt.Errorf("copying %s to %s: %w", from, repo.Name(), err)
	}
	return nil
}

// copyReferrers copies the signatures of what was copied: a policy that wants
// them would refuse the image otherwise.
func (m *merger) copyReferrers(ctx context.Context, reg Writer, repo, from registry.Ref) error {
	if m.opts.SkipReferrers || from.Name() == repo.Name() {
		return nil
	}
	n, err := reg.CopyReferrers(ctx, repo.WithDigest(from.Digest), from)
	if err != nil {
		return fmt.Errorf("copying what refers to %s (referrers=false leaves it out): %w", from, err)
	}
	if n > 0 {
		m.notice("copied %d referrers of %s to %s", n, from, repo.Name())
	}
	return nil
}

func readBack(ctx context.Context, reg Reader, ref registry.Ref, out result) error {
	desc, got, err := reg.Manifest(ctx, ref)
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return &VerifyError{Problems: []string{fmt.Sprintf("the registry took the index %s but does not have it; try again", ref)}}
	case errors.Is(err, registry.ErrCorrupt):
		return &VerifyError{Problems: []string{fmt.Sprintf("reading the index back: %v", err)}}
	case err != nil:
		return fmt.Errorf("reading the index back: %w", err)
	case !bytes.Equal(got, out.data):
		return &VerifyError{Problems: []string{fmt.Sprintf("the registry answers with other content for the index %s", ref)}}
	case desc.MediaType != out.mediaType:
		return &VerifyError{Problems: []string{fmt.Sprintf("the registry serves the index %s as %s, it was pushed as %s", ref, desc.MediaType, out.mediaType)}}
	}
	return nil
}

func (m *merger) moveTags(ctx context.Context, reg Writer, out result) error {
	var moved []registry.Ref
	for i, tag := range m.tags {
		if m.there[tag] {
			moved = append(moved, tag)
			continue
		}
		_, err := reg.PushManifest(ctx, tag, out.mediaType, out.data)
		if m.opts.IgnoreImmutableTags && errors.Is(err, registry.ErrImmutable) {
			m.warnings = append(m.warnings, fmt.Sprintf("%s was left as it is: the registry does not let the tag move", tag))
			continue
		}
		if err != nil {
			return &TagError{
				Digest: out.digest, Tag: tag.String(), Err: err,
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
