package merge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// arrange decides which images of the sources make the index, and sorts them.
func (m *merger) arrange() {
	for _, s := range m.sources {
		if len(s.left) > 0 {
			m.notice("%s: left out %s", s, strings.Join(s.left, ", "))
		}
		m.children = append(m.children, s.children...)
		m.attached = append(m.attached, s.attached...)
	}
	m.replaceExisting()
	m.dropTwins()
	// By digest as well, so that the order of the sources changes nothing.
	slices.SortStableFunc(m.children, func(a, b *child) int {
		return cmp.Or(platform.Compare(a.full(), b.full()), cmp.Compare(a.desc.Digest, b.desc.Digest))
	})
	m.checkRemoved()
}

func (c *child) full() ocispecs.Platform {
	if c.desc.Platform != nil {
		return *c.desc.Platform
	}
	return c.platform
}

// replaceExisting takes an image out of the index that is appended to when
// there is a new one of the same platform.
func (m *merger) replaceExisting() {
	var fresh []*child
	for _, c := range m.children {
		if !c.source.existing && c.platform.OS != "" {
			fresh = append(fresh, c)
		}
	}
	m.children = slices.DeleteFunc(m.children, func(old *child) bool {
		if !old.source.existing {
			return false
		}
		i := slices.IndexFunc(fresh, func(c *child) bool { return same(c.full(), old.full()) })
		if i >= 0 && fresh[i].built != old.built {
			m.notice("%s: its %s %s gives way to %s from %s", old.source, old.name(), old.built, fresh[i].built, fresh[i].source)
		}
		return i >= 0
	})
}

// dropTwins takes an image that several references brought once.
func (m *merger) dropTwins() {
	type identity struct {
		digest   digest.Digest
		platform string
	}
	seen := map[identity]bool{}
	m.children = slices.DeleteFunc(m.children, func(c *child) bool {
		if c.source.isRecord() || c.desc.Digest == "" {
			return false
		}
		id := identity{c.built, c.name()}
		twin := seen[id]
		seen[id] = true
		return twin
	})
}

// checkRemoved finds typing errors: what is to be removed was there.
func (m *merger) checkRemoved() {
	for _, p := range m.opts.Remove {
		name := platform.Format(p)
		if slices.ContainsFunc(m.children, func(c *child) bool { return same(p, c.full()) }) {
			m.problem("platform %s is to be removed, but a record or a reference to a single image brings it; leave that out", name)
			continue
		}
		if !slices.ContainsFunc(m.sources, func(s *source) bool { return slices.Contains(s.left, name) }) {
			m.notice("platform %s is to be removed, but was not there", name)
		}
	}
}

// settleAttached keeps the attachments of the images that stay.
func (m *merger) settleAttached(mediaType string) {
	byDigest := map[digest.Digest]*child{}
	for _, c := range m.children {
		byDigest[c.built] = c
	}
	slices.SortStableFunc(m.attached, func(a, b *attachment) int {
		return cmp.Or(cmp.Compare(a.position(m.children), b.position(m.children)), cmp.Compare(a.desc.Digest, b.desc.Digest))
	})
	var kept []*attachment
	var seen []digest.Digest
	var dropped []string
	for _, a := range m.attached {
		d := a.desc.Digest
		if slices.Contains(seen, d) {
			continue
		}
		seen = append(seen, d)
		if a.attests() && m.opts.Attestations == DropAttestations {
			dropped = append(dropped, d.String())
			continue
		}
		if m.checkAttached(a, byDigest, mediaType) {
			kept = append(kept, a)
		}
	}
	if len(dropped) > 0 {
		m.notice("left out the attestations %s", strings.Join(dropped, ", "))
	}
	m.attached = kept
}

// checkAttachedExist looks for what is taken over unread: an index that names
// what is gone would be refused halfway, or cannot be copied any more.
func (m *merger) checkAttachedExist(ctx context.Context, reg Reader) error {
	for _, a := range m.attached {
		_, err := reg.Head(ctx, a.repo.WithDigest(a.desc.Digest))
		if errors.Is(err, registry.ErrNotFound) {
			m.problem("%s: its index names %s, which is not there any more; use attestations=drop, or build again", a.source, a.desc.Digest)
			continue
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", a.repo.WithDigest(a.desc.Digest), err)
		}
	}
	return nil
}

// attests tells attestations from other things in an index.
func (a *attachment) attests() bool { return isAttestation(a.desc) }

// position is that of the attachment's image.
func (a *attachment) position(children []*child) int {
	if i := slices.IndexFunc(children, func(c *child) bool { return c.built == a.about }); i >= 0 {
		return i
	}
	return len(children)
}

// checkAttached tells whether a stays; what cannot stay silently is a problem.
func (m *merger) checkAttached(a *attachment, images map[digest.Digest]*child, mediaType string) bool {
	d := a.desc.Digest
	if !a.attests() {
		return m.fits(a, mediaType)
	}
	if m.opts.Attestations == RefuseAttestations {
		m.problem("%s: it holds the attestation %s, which attestations=error refuses; build without provenance and SBOM, or use keep or drop", a.source, d)
		return false
	}
	c := images[a.about]
	switch {
	case c == nil && a.source.lists(a.about):
		m.notice("%s: left out the attestation %s, as its image %s is", a.source, d, a.about)
		return false
	case c == nil:
		m.problem("%s: the attestation %s is about %q, which is not in the index; use attestations=drop", a.source, d, a.about)
		return false
	case c.changed:
		m.problem("%s: the attestation %s is about %s, whose digest changes here (oci-mode=oci, manifest: annotations); use attestations=drop, or leave the image as it is", a.source, d, a.about)
		return false
	}
	return m.fits(a, mediaType)
}

// fits refuses what a Docker list cannot hold.
func (m *merger) fits(a *attachment, mediaType string) bool {
	if mediaType == dockerList && a.desc.MediaType != dockerManifest {
		m.problem("%s: %s is %s, which a Docker manifest list cannot hold; use oci-mode=oci, or attestations=drop", a.source, a.desc.Digest, a.desc.MediaType)
		return false
	}
	return true
}

// lists tells whether the index of the source names a digest.
func (s *source) lists(d digest.Digest) bool {
	if s.index == nil {
		return false
	}
	return slices.ContainsFunc(s.index.Manifests, func(e ocispecs.Descriptor) bool { return e.Digest == d })
}
