package merge

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/registry"
)

// guard are the patterns of tags that must not move.
type guard []string

func parseGuard(patterns []string) (guard, error) {
	for _, p := range patterns {
		if _, err := path.Match(strings.TrimPrefix(p, "!"), ""); err != nil {
			return nil, usage("immutable-tags %q: not a pattern like v*, *.*.* or !latest", p)
		}
	}
	return patterns, nil
}

// covers tells whether a tag is guarded: the last pattern that matches decides.
func (g guard) covers(tag string) bool {
	covered := false
	for _, p := range g {
		pattern, not := strings.CutPrefix(p, "!")
		if ok, _ := path.Match(pattern, tag); ok {
			covered = !not
		}
	}
	return covered
}

// lookAtTags finds out which tags name the result already, and refuses to move
// those that are guarded, before anything is written.
func (m *merger) lookAtTags(ctx context.Context, reg Reader, out result) error {
	if m.unpushed {
		return nil // such a run asks no registry
	}
	for _, tag := range m.tags {
		guarded := m.guard.covers(tag.Tag)
		desc, err := reg.Head(ctx, tag)
		switch {
		case err == nil && desc.Digest == out.digest:
			m.there[tag] = true
		case err == nil && guarded:
			m.problem("%s names %s and must not move (immutable-tags); use a new tag", tag, desc.Digest)
		case err == nil, errors.Is(err, registry.ErrNotFound):
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case guarded:
			return fmt.Errorf("looking whether %s exists: %w", tag, err)
		}
		// Otherwise moving it will say what is wrong.
	}
	return m.failed()
}

// findSubject describes what the index refers to.
func (m *merger) findSubject(ctx context.Context, reg Reader, mediaType string) error {
	s := m.opts.Subject
	if s == "" {
		return nil
	}
	if len(m.repos) == 0 {
		return usage("subject: it is looked for in the repository of the first destination: give one")
	}
	if mediaType != ocispecs.MediaTypeImageIndex {
		m.problem("a Docker manifest list has no subject; use oci-mode=oci")
	}
	ref := m.repos[0].WithTag(s)
	if d := digest.Digest(s); d.Validate() == nil {
		ref = m.repos[0].WithDigest(d)
	} else if _, err := registry.ParseRef(ref.String()); err != nil {
		return usage("subject %q: give a tag or a digest in %s", s, m.repos[0].Name())
	}
	desc, err := reg.Head(ctx, ref)
	if errors.Is(err, registry.ErrNotFound) {
		m.problem("the subject %s is not there", ref)
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the subject: %w", err)
	}
	m.subject = &ocispecs.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
	return nil
}
