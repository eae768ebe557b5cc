package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxNesting is how deep indexes may lie in indexes.
const maxNesting = 3

// Image is what a reference stands for on one platform.
type Image struct {
	// Ref names the manifest by its digest, without tag.
	Ref Ref
	// Source is where it was read: Ref, or a mirror's name for it.
	Source Ref
	// Root is the digest of what the reference named: an index or the manifest.
	Root digest.Digest
	// Descriptor is the manifest's; its platform is that of Platform.
	Descriptor  ocispecs.Descriptor
	Manifest    ocispecs.Manifest
	RawManifest []byte
	Config      []byte
	// Platform is the config's, normalised, with the index's variant where
	// the config has none.
	Platform ocispecs.Platform
}

// Image reads manifest and config of a reference for a platform. From an index
// it takes the best match as containerd does: the platform or one that runs on
// it, such as arm/v6 for arm/v7. A reference to a single manifest is taken when
// its config does not contradict p. Otherwise the error is a *PlatformError.
//
// Mirrors are asked first. One that fails, lacks the image or the platform, or
// sends something that does not match its digest is passed over.
func (c *Client) Image(ctx context.Context, ref Ref, p ocispecs.Platform) (*Image, error) {
	ref = ref.DefaultTag()
	places := c.origins.of(ref)
	if len(places) == 0 {
		places = c.mirrors.places(ref)
	}
	img, err := fallThrough(ctx, c, ref, places, func(from *Client, place Ref) (*Image, error) {
		return from.image(ctx, place, p)
	})
	if err != nil {
		return nil, err
	}
	img.Source, img.Ref = img.Ref, ref.WithDigest(img.Descriptor.Digest)
	c.origins.remember(ref, img, places)
	return img, nil
}

func (c *Client) image(ctx context.Context, ref Ref, p ocispecs.Platform) (*Image, error) {
	d, data, err := c.Manifest(ctx, ref)
	if err != nil {
		return nil, err
	}
	s := search{c: c, ref: ref, want: platforms.Normalize(p)}
	img, err := s.image(ctx, d, data, 0)
	if err != nil {
		return nil, err
	}
	if img == nil {
		return nil, &PlatformError{Ref: ref, Want: s.want, Have: s.have}
	}
	img.Root = d.Digest
	return img, nil
}

// search looks for one platform and remembers the others.
type search struct {
	c    *Client
	ref  Ref
	want ocispecs.Platform
	have []string
}

// image is nil without an error where the platform is not to be had.
func (s *search) image(ctx context.Context, d ocispecs.Descriptor, data []byte, depth int) (*Image, error) {
	if !IsIndex(d.MediaType) {
		return s.single(ctx, d, data)
	}
	if depth == maxNesting {
		return nil, &failure{kind: ErrRejected, text: fmt.Sprintf("pulling %s: indexes are nested more than %d deep", s.ref, maxNesting)}
	}
	var index ocispecs.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, &failure{kind: ErrRejected, text: fmt.Sprintf("pulling %s: reading the index %s: %v", s.ref, d.Digest, err)}
	}
	for _, child := range s.candidates(index.Manifests) {
		cd, data, err := s.c.Manifest(ctx, s.ref.WithDigest(child.Digest))
		if err != nil {
			return nil, err
		}
		cd.Platform, cd.Annotations = child.Platform, child.Annotations
		img, err := s.image(ctx, cd, data, depth+1)
		if img != nil || err != nil {
			return img, err
		}
	}
	return nil, nil
}

// candidates are the children to look into: the best match, or those whose
// platform the index does not tell.
func (s *search) candidates(children []ocispecs.Descriptor) []ocispecs.Descriptor {
	match := platforms.Only(s.want)
	var fit, untold []ocispecs.Descriptor
	for _, d := range children {
		switch {
		case !IsIndex(d.MediaType) && !isManifest(d.MediaType), isAttestation(d):
		case d.Platform == nil:
			untold = append(untold, d)
		default:
			s.saw(*d.Platform)
			if match.Match(*d.Platform) {
				fit = append(fit, d)
			}
		}
	}
	if len(fit) == 0 {
		return untold
	}
	slices.SortStableFunc(fit, func(a, b ocispecs.Descriptor) int {
		switch {
		case match.Less(*a.Platform, *b.Platform):
			return -1
		case match.Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	})
	return fit[:1]
}

// isAttestation reports BuildKit's provenance and SBOM beside the images.
func isAttestation(d ocispecs.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" ||
		d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

func (s *search) saw(p ocispecs.Platform) {
	if name := platforms.Format(platforms.Normalize(p)); !slices.Contains(s.have, name) {
		s.have = append(s.have, name)
	}
}

// single reads the config of a manifest. An index's word on the platform was
// checked before; without one the config decides.
func (s *search) single(ctx context.Context, d ocispecs.Descriptor, data []byte) (*Image, error) {
	ref := s.ref.WithDigest(d.Digest)
	img := &Image{Ref: ref, Descriptor: d, RawManifest: data}
	if err := json.Unmarshal(data, &img.Manifest); err != nil {
		return nil, &failure{kind: ErrRejected, text: fmt.Sprintf("pulling %s: reading the manifest: %v", ref, err)}
	}
	if t := img.Manifest.Config.MediaType; t != ocispecs.MediaTypeImageConfig && t != MediaTypeDockerConfig {
		return nil, &failure{kind: ErrRejected, text: fmt.Sprintf("pulling %s: it is no container image: its config is %q", ref, t)}
	}
	var err error
	if img.Config, err = s.c.config(ctx, ref, img.Manifest.Config); err != nil {
		return nil, err
	}
	var told ocispecs.Platform
	if err := json.Unmarshal(img.Config, &told); err != nil {
		return nil, &failure{kind: ErrRejected, text: fmt.Sprintf("pulling %s: reading the config: %v", ref, err)}
	}
	if d.Platform == nil && !s.accepts(told) {
		s.saw(told)
		return nil, nil
	}
	img.Platform = s.settle(told, d.Platform)
	p := img.Platform
	img.Descriptor.Platform = &p
	return img, nil
}

// accepts reports whether a config fits: what it leaves out contradicts
// nothing. Many single images for arm have no variant.
func (s *search) accepts(told ocispecs.Platform) bool {
	if told.OS == "" && told.Architecture == "" {
		return true
	}
	if told.OS == s.want.OS && told.Variant == "" && told.Architecture == s.want.Architecture {
		return true
	}
	return platforms.Only(s.want).Match(told)
}

// settle fills what the config leaves out from the index, then from the wish.
func (s *search) settle(told ocispecs.Platform, index *ocispecs.Platform) ocispecs.Platform {
	from := s.want
	if index != nil {
		from = *index
	}
	if told.OS == "" {
		told.OS = from.OS
	}
	if told.Architecture == "" {
		told.Architecture = from.Architecture
	}
	if told.Variant == "" && told.Architecture == from.Architecture {
		told.Variant = from.Variant
	}
	return platforms.Normalize(told)
}

func (c *Client) config(ctx context.Context, ref Ref, d ocispecs.Descriptor) ([]byte, error) {
	if d.Size > maxManifest {
		return nil, &failure{kind: ErrRejected, text: fmt.Sprintf("pulling %s: its config has %d bytes, %d are the limit", ref, d.Size, maxManifest)}
	}
	b, err := c.Blob(ctx, ref, d)
	if err != nil {
		return nil, fmt.Errorf("reading the config of %s: %w", ref, err)
	}
	defer b.Close()
	data, err := io.ReadAll(b)
	if err != nil {
		return nil, fmt.Errorf("reading the config of %s: %w", ref, err)
	}
	return data, nil
}
