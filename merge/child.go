package merge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// maxConfig bounds what is read of an image's config; real ones are a few
// kilobytes.
const maxConfig = 8 << 20

// child is one image on its way into the index.
type child struct {
	found record.Found
	// platform is that of the record, or of the config for a bare digest; it
	// has no OS as long as it is not known. The entry of the index may say more
	// (a version of Windows).
	platform ocispecs.Platform
	// source is the repository where the image was found.
	source registry.Ref
	// desc is the entry of the index; its digest is empty when the image could
	// not be read.
	desc ocispecs.Descriptor
	// manifest are the bytes in the registry, or those to push when converted.
	manifest  []byte
	converted bool
	problems  []string
}

func newChild(f record.Found) *child {
	c := &child{found: f}
	if f.Bare() {
		return c
	}
	p, err := platform.Parse(f.Record.Platform)
	if err != nil {
		c.problem("%v", err)
	}
	c.platform = p
	return c
}

// pushed is true for a bare digest too: kaniko writes it after its push.
func (c *child) pushed() bool { return c.found.Bare() || c.found.Record.Pushed }

func (c *child) problem(format string, args ...any) {
	c.problems = append(c.problems, c.found.String()+": "+fmt.Sprintf(format, args...))
}

// assume believes the record of an image that is in no registry.
func (c *child) assume() {
	r := c.found.Record
	c.desc = ocispecs.Descriptor{MediaType: r.MediaType, Digest: r.Digest, Size: r.Size, Platform: &c.platform}
}

// inspect checks the record against the registry and keeps the manifest. What
// is wrong with the image becomes a problem; an error is a registry that does
// not answer.
func (c *child) inspect(ctx context.Context, reg Reader, repos []registry.Ref) error {
	r := c.found.Record
	desc, raw, err := c.fetch(ctx, reg, repos)
	if err != nil || raw == nil {
		return err
	}
	if got := digest.FromBytes(raw); got != r.Digest {
		c.problem("the registry answers with the content of %s when asked for %s", got, r.Digest)
		return nil
	}
	if !c.found.Bare() {
		if r.Size != int64(len(raw)) {
			c.problem("its size is %d, that of %s in the registry is %d", r.Size, r.Digest, len(raw))
		}
		if r.MediaType != desc.MediaType {
			c.problem("its media type is %s, that of %s in the registry is %s", r.MediaType, r.Digest, desc.MediaType)
		}
	}
	if isIndex(desc.MediaType) {
		c.problem("%s is itself an index; merge takes the image of one platform (builders that add provenance or an SBOM make an index of it: turn both off)", r.Digest)
		return nil
	}
	if !isImage(desc.MediaType) {
		c.problem("%s is no image but %s", r.Digest, desc.MediaType)
		return nil
	}
	var manifest ocispecs.Manifest
	if err := json.Unmarshal(raw, &manifest); err != nil {
		c.problem("the manifest %s cannot be read: %v", r.Digest, err)
		return nil
	}
	if manifest.MediaType != "" && manifest.MediaType != desc.MediaType {
		c.problem("the manifest %s says that it is %s, the registry serves it as %s", r.Digest, manifest.MediaType, desc.MediaType)
	}
	if !isConfig(manifest.Config.MediaType) {
		c.problem("%s is no container image: its config is %s", r.Digest, manifest.Config.MediaType)
		return nil
	}
	built, err := c.checkConfig(ctx, reg, manifest.Config)
	if err != nil || built == nil {
		return err
	}
	c.manifest = raw
	c.desc = ocispecs.Descriptor{MediaType: desc.MediaType, Digest: r.Digest, Size: int64(len(raw)), Platform: built}
	return nil
}

// fetch looks for the manifest in the first destination and where it was pushed
// to; for a bare digest, which does not say that, in every destination. Without
// an error and without bytes the reason is among the problems.
func (c *child) fetch(ctx context.Context, reg Reader, repos []registry.Ref) (ocispecs.Descriptor, []byte, error) {
	var none ocispecs.Descriptor
	d := c.found.Record.Digest
	if !c.found.Bare() {
		image, err := registry.ParseRef(c.found.Record.Image)
		if err != nil {
			c.problem("%v", err)
			return none, nil, nil
		}
		repos = slices.Compact([]registry.Ref{repos[0], image.WithTag("")})
	}
	var denied error
	var names []string
	for _, repo := range repos {
		desc, raw, err := reg.Manifest(ctx, repo.WithDigest(d))
		switch {
		case err == nil:
			c.source = repo
			return desc, raw, nil
		case errors.Is(err, registry.ErrNotFound):
			names = append(names, repo.Name())
		case errors.Is(err, registry.ErrCorrupt):
			c.problem("%v", err)
			return none, nil, nil
		case errors.Is(err, registry.ErrDenied) && denied == nil:
			// Some registries answer so for a repository that the first push
			// will create.
			denied = fmt.Errorf("reading %s: %w", repo.WithDigest(d), err)
		case !errors.Is(err, registry.ErrDenied):
			return none, nil, fmt.Errorf("reading %s: %w", repo.WithDigest(d), err)
		}
	}
	if denied != nil {
		return none, nil, denied
	}
	c.problem("%s is not in %s: it was pushed elsewhere, or has been deleted", d, list(names))
	return none, nil, nil
}

// checkConfig returns the platform that the image was built for, or nothing
// when it is not that of the record, which is then among the problems.
func (c *child) checkConfig(ctx context.Context, reg Reader, desc ocispecs.Descriptor) (*ocispecs.Platform, error) {
	built, err := readPlatform(ctx, reg, c.source, desc)
	switch {
	case errors.Is(err, registry.ErrNotFound), errors.Is(err, registry.ErrCorrupt), errors.Is(err, errBadConfig):
		c.problem("the config of %s: %v", c.found.Record.Digest, err)
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading the config of %s: %w", c.source.WithDigest(c.found.Record.Digest), err)
	}
	short := ocispecs.Platform{OS: built.OS, Architecture: built.Architecture, Variant: built.Variant}
	if c.platform.OS == "" {
		c.platform = short
	}
	if !platform.Equal(short, c.platform) && !platform.Equal(built, c.platform) {
		c.problem("it is the record of %s, but the image %s was built for %s", platform.Format(c.platform), c.found.Record.Digest, platform.Format(built))
		return nil, nil
	}
	return &built, nil
}

// errBadConfig is a config that is there but cannot be used.
var errBadConfig = errors.New("not usable")

// readPlatform reads the platform from the config that desc describes.
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
	if p.OS == "" || p.Architecture == "" {
		return p, fmt.Errorf("%w: it does not name os and architecture", errBadConfig)
	}
	return platform.Normalize(p), nil
}
