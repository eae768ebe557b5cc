package merge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// maxNesting is how deep indexes may lie in indexes.
const maxNesting = 3

// BuildKit's annotations of an attestation's entry (BuildKit,
// docs/attestations/attestation-storage.md).
const (
	attestationType  = "vnd.docker.reference.type"
	attestationAbout = "vnd.docker.reference.digest"
)

// attachment is an entry of an index that is no image. It is taken over as it
// is.
type attachment struct {
	source *source
	repo   registry.Ref
	desc   ocispecs.Descriptor
	// about is the image that it belongs to; empty for what is no attestation.
	about digest.Digest
}

func isAttestation(d ocispecs.Descriptor) bool {
	return d.Annotations[attestationType] != "" || d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

// flatten takes the images out of an index: a platform's record may name one
// when its builder added attestations. recorded is the platform of the record.
func (s *source) flatten(ctx context.Context, reg Reader, recorded ocispecs.Platform) error {
	index, err := s.walk(ctx, reg, s.desc, s.raw, 0)
	if err != nil {
		return err
	}
	s.index = index
	if s.existing {
		return nil // all that it held may have been removed
	}
	if len(s.children) == 0 && len(s.problems) == 0 {
		s.problem("the index %s has no image%s", s.desc.Digest, s.butHas())
	}
	if recorded.OS == "" {
		return nil
	}
	for _, c := range s.children {
		if c.platform.OS != "" && !same(c.platform, recorded) {
			s.problem("it is the record of %s, but the index %s holds an image for %s", platform.Format(recorded), s.desc.Digest, platform.Format(c.platform))
		}
	}
	if len(s.children) == 0 {
		s.children = []*child{{source: s, platform: recorded}}
	}
	return nil
}

func (s *source) butHas() string {
	if len(s.left) == 0 {
		return ""
	}
	return " that is wanted; it has " + strings.Join(s.left, ", ")
}

func (s *source) walk(ctx context.Context, reg Reader, desc ocispecs.Descriptor, raw []byte, depth int) (*ocispecs.Index, error) {
	if depth > maxNesting {
		s.problem("indexes are nested more than %d deep", maxNesting)
		return nil, nil
	}
	var index ocispecs.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		s.problem("the index %s cannot be read: %v", desc.Digest, err)
		return nil, nil
	}
	for _, d := range index.Manifests {
		if err := s.entry(ctx, reg, d, depth); err != nil {
			return nil, err
		}
	}
	return &index, nil
}

func (s *source) entry(ctx context.Context, reg Reader, d ocispecs.Descriptor, depth int) error {
	if isAttestation(d) {
		s.attached = append(s.attached, &attachment{source: s, repo: s.repo, desc: d, about: digest.Digest(d.Annotations[attestationAbout])})
		return nil
	}
	if !isIndex(d.MediaType) && !isImage(d.MediaType) {
		s.attached = append(s.attached, &attachment{source: s, repo: s.repo, desc: d})
		return nil
	}
	if d.Platform != nil && !s.want(*d.Platform) {
		return nil
	}
	desc, raw, err := reg.Manifest(ctx, s.repo.WithDigest(d.Digest))
	switch {
	case errors.Is(err, registry.ErrNotFound), errors.Is(err, registry.ErrCorrupt):
		s.problem("its entry %s: %v", d.Digest, err)
		return nil
	case err != nil:
		return fmt.Errorf("reading %s: %w", s.repo.WithDigest(d.Digest), err)
	}
	if isIndex(desc.MediaType) {
		_, err := s.walk(ctx, reg, desc, raw, depth+1)
		return err
	}
	var manifest ocispecs.Manifest
	if json.Unmarshal(raw, &manifest) == nil && d.Platform == nil && !isConfig(manifest.Config.MediaType) {
		s.attached = append(s.attached, &attachment{source: s, repo: s.repo, desc: d})
		return nil
	}
	return s.image(ctx, reg, d, desc, raw)
}

// image takes over an image as its entry d describes it.
func (s *source) image(ctx context.Context, reg Reader, d, desc ocispecs.Descriptor, raw []byte) error {
	c := &child{source: s, listed: true, repo: s.repo, built: d.Digest, desc: d}
	if d.Platform != nil {
		c.platform = platform.Normalize(*d.Platform)
	}
	if d.Size != int64(len(raw)) || d.MediaType != desc.MediaType {
		s.problem("its entry %s is %s of %d bytes, the registry has %s of %d", d.Digest, d.MediaType, d.Size, desc.MediaType, len(raw))
	}
	if err := c.read(ctx, reg, desc, raw); err != nil {
		return err
	}
	if d.Platform == nil && !s.want(c.platform) {
		return nil
	}
	s.children = append(s.children, c)
	return nil
}

// want asks about an entry of the index and remembers what nobody wants.
func (s *source) want(p ocispecs.Platform) bool {
	p = platform.Normalize(p)
	if s.wants == nil || s.wants(p) {
		return true
	}
	s.left = append(s.left, platform.Format(p))
	return false
}
