package merge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// maxConfig bounds what is read of an image's config; real ones are a few
// kilobytes.
const maxConfig = 8 << 20

// child is one image on its way into the index.
type child struct {
	source *source
	// platform is that of the record or index, or of the config where they are
	// silent; it has no OS as long as it is not known. The entry of the index
	// may say more (a version of Windows).
	platform ocispecs.Platform
	// listed is set when an index named the image; desc starts as its entry.
	listed bool
	// repo is where the image was found, built its digest there.
	repo  registry.Ref
	built digest.Digest
	// desc is the entry of the index; its digest is empty when the image could
	// not be read.
	desc ocispecs.Descriptor
	// manifest are the bytes in the registry, or those to push when changed.
	manifest []byte
	changed  bool
}

// name is the platform with all that the index says about it.
func (c *child) name() string {
	if c.desc.Platform != nil {
		return platform.Format(*c.desc.Platform)
	}
	return platform.Format(c.platform)
}

// read takes the manifest in and checks it. What is wrong with the image
// becomes a problem of its source.
func (c *child) read(ctx context.Context, reg Reader, desc ocispecs.Descriptor, raw []byte) error {
	s := c.source
	if !isImage(desc.MediaType) {
		s.problem("%s is no image but %s", c.built, desc.MediaType)
		return nil
	}
	var manifest ocispecs.Manifest
	if err := json.Unmarshal(raw, &manifest); err != nil {
		s.problem("the manifest %s cannot be read: %v", c.built, err)
		return nil
	}
	if manifest.MediaType != "" && manifest.MediaType != desc.MediaType {
		s.problem("the manifest %s says that it is %s, the registry serves it as %s", c.built, manifest.MediaType, desc.MediaType)
	}
	if !isConfig(manifest.Config.MediaType) {
		s.problem("%s is no container image: its config is %s", c.built, manifest.Config.MediaType)
		return nil
	}
	built, err := c.checkConfig(ctx, reg, manifest.Config)
	if err != nil || built == nil {
		return err
	}
	c.manifest = raw
	if c.listed {
		if c.desc.Platform == nil {
			c.desc.Platform = built
		}
		return nil
	}
	c.desc = ocispecs.Descriptor{MediaType: desc.MediaType, Digest: c.built, Size: int64(len(raw)), Platform: built}
	return nil
}

// checkConfig returns the platform that the image was built for, or nothing
// when it is not that of the record, which is then among the problems.
func (c *child) checkConfig(ctx context.Context, reg Reader, desc ocispecs.Descriptor) (*ocispecs.Platform, error) {
	s := c.source
	told, err := readPlatform(ctx, reg, c.repo, desc)
	switch {
	case errors.Is(err, registry.ErrNotFound), errors.Is(err, registry.ErrCorrupt), errors.Is(err, errBadConfig):
		s.problem("the config of %s: %v", c.built, err)
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading the config of %s: %w", c.repo.WithDigest(c.built), err)
	}
	if s.only.OS != "" && !c.listed {
		return c.override(told), nil
	}
	if told.OS == "" || told.Architecture == "" {
		s.problem("the config of %s does not name os and architecture; say what it is with --from PLATFORM=REF", c.built)
		return nil, nil
	}
	built := platform.Normalize(told)
	if c.platform.OS == "" {
		c.platform = short(built)
	}
	// Many images for arm leave the variant to the index.
	if c.listed && told.Variant == "" {
		built.Variant = c.platform.Variant
	}
	if !same(built, c.platform) {
		what := "record"
		if c.listed {
			what = "entry"
		}
		s.problem("it is the %s of %s, but the image %s was built for %s", what, platform.Format(c.platform), c.built, platform.Format(built))
		return nil, nil
	}
	return &built, nil
}

// override takes the user's word for the platform of an image. What the config
// says besides (a version of Windows) stays.
func (c *child) override(told ocispecs.Platform) *ocispecs.Platform {
	only := c.source.only
	if told.OS != "" && told.Architecture != "" && !same(platform.Normalize(told), only) {
		c.source.notice("its config says %s, it is entered as %s", platform.Format(platform.Normalize(told)), platform.Format(only))
	}
	c.platform = short(only)
	if told.OS == only.OS && only.OSVersion == "" {
		only.OSVersion, only.OSFeatures = told.OSVersion, told.OSFeatures
	}
	return &only
}

// errBadConfig is a config that is there but cannot be used.
var errBadConfig = errors.New("not usable")

// readPlatform reads the platform from the config that desc describes, as it is
// there.
func readPlatform(ctx context.Context, reg Reader, repo registry.Ref, desc ocispecs.Descriptor) (_ ocispecs.Platform, err error) {
	var p ocispecs.Platform
	if err := desc.Digest.Validate(); err != nil {
		return p, fmt.Errorf("%w: digest %q: %w", errBadConfig, desc.Digest, err)
	}
	if desc.Size > maxConfig {
		return p, fmt.Errorf("%w: %d bytes are too many", errBadConfig, desc.Size)
	}
	rc, err := reg.Blob(ctx, repo, desc)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	data, err := io.ReadAll(io.LimitReader(rc, maxConfig+1))
	if err != nil {
		return p, err
	}
	if int64(len(data)) != desc.Size || desc.Digest.Algorithm().FromBytes(data) != desc.Digest {
		return p, fmt.Errorf("%w: its content does not match %s", errBadConfig, desc.Digest)
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("%w: %w", errBadConfig, err)
	}
	return p, nil
}
