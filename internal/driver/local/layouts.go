package local

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/ocicontext"
	"github.com/org/kaniko-multiarch/internal/ocilayout"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// layoutScheme begins references to images in OCI layouts. What follows is the
// name of the layout in this build and a digest.
const layoutScheme = "oci-layout://"

// inLayout reports whether an image is in an OCI layout instead of a registry.
func inLayout(ref string) bool { return strings.HasPrefix(ref, layoutScheme) }

// addLayout opens DIRECTORY[:TAG][@DIGEST] as a named context. Instead of a
// directory it can be a context in a registry, which has a digest itself.
func (c *contexts) addLayout(ctx context.Context, o build.Options, name, location string) error {
	if strings.HasPrefix(location, ocicontext.Scheme) {
		i := strings.LastIndexByte(location, '@')
		dir, err := c.remote.fetch(ctx, o, name, location[:i])
		if err != nil {
			return &ContextError{Name: name, Err: err}
		}
		return c.openLayout(name, dir, "", location[i+1:])
	}
	dir, want, _ := strings.Cut(location, "@")
	dir, tag, _ := strings.Cut(dir, ":")
	return c.openLayout(name, dir, tag, want)
}

func (c *contexts) openLayout(name, dir, tag, want string) error {
	if want != "" {
		if err := digest.Digest(want).Validate(); err != nil {
			return &ContextError{Name: name, Err: fmt.Errorf("digest %q: %w", want, err)}
		}
	}
	l, err := ocilayout.Open(dir)
	if err != nil {
		return &ContextError{Name: name, Err: err}
	}
	// The name does not depend on the directory, nor does what is built.
	store := fmt.Sprintf("layout%d", len(c.layouts))
	c.layouts[store] = l
	root, err := l.Resolve(tag, digest.Digest(want))
	if err != nil {
		return &ContextError{Name: name, Err: err}
	}
	c.images[name] = layoutScheme + store + "@" + root.Digest.String()
	return nil
}

// layout finds the layout and the digest that a reference names.
func (b *baseImages) layout(ref string) (*ocilayout.Layout, digest.Digest, error) {
	store, d, _ := strings.Cut(strings.TrimPrefix(ref, layoutScheme), "@")
	l, ok := b.layouts[store]
	if !ok {
		return nil, "", fmt.Errorf("there is no OCI layout %q", store)
	}
	return l, digest.Digest(d), nil
}

// fromLayout is an image of a layout as one of a registry.
func (b *baseImages) fromLayout(_ context.Context, ref string, p ocispecs.Platform) (*registry.Image, error) {
	l, root, err := b.layout(ref)
	if err != nil {
		return nil, err
	}
	manifest, config, err := l.Image(root, p)
	if err != nil {
		return nil, err
	}
	return &registry.Image{Root: root, Manifest: manifest, Config: config, Platform: p}, nil
}
