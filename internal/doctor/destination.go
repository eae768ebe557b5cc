package doctor

import (
	"context"
	"errors"
	"fmt"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/registry"
)

// Registry is what a destination is asked.
type Registry interface {
	Head(ctx context.Context, ref registry.Ref) (ocispecs.Descriptor, error)
	CheckPush(ctx context.Context, repo registry.Ref) error
}

// destinations asks each registry once whether it is there, and each repository
// whether we may push to it.
func destinations(ctx context.Context, r Registry, refs []registry.Ref) []Check {
	var checks []Check
	reached, asked := map[string]bool{}, map[string]bool{}
	for _, ref := range refs {
		if _, known := reached[ref.Registry]; !known {
			c := reach(ctx, r, ref)
			reached[ref.Registry] = c.Status == OK
			checks = append(checks, c)
		}
		if reached[ref.Registry] && !asked[ref.Name()] {
			asked[ref.Name()] = true
			checks = append(checks, push(ctx, r, ref))
		}
	}
	return checks
}

func reach(ctx context.Context, r Registry, ref registry.Ref) Check {
	c := Check{Kind: "registry", Subject: ref.Registry, Status: OK, Detail: "it answers"}
	// Refusing to show an image is an answer, too: the push decides.
	_, err := r.Head(ctx, ref)
	if err != nil && !errors.Is(err, registry.ErrNotFound) && !errors.Is(err, registry.ErrDenied) {
		c.fail(Lack, err, "check the name, and HTTPS_PROXY and NO_PROXY where a proxy leads out; allow http or an unknown certificate with --insecure-registry "+ref.Registry)
	}
	return c
}

// push asks for the permission to push.
func push(ctx context.Context, r Registry, ref registry.Ref) Check {
	c := Check{Kind: "push", Subject: ref.Name(), Status: OK, Detail: "allowed: it accepted an upload, which was cancelled"}
	err := r.CheckPush(ctx, ref)
	switch {
	case err == nil:
	case errors.Is(err, registry.ErrDenied):
		c.fail(Lack, bare(err), fmt.Sprintf("use credentials that may push to %s", ref.Name()))
	case errors.Is(err, registry.ErrNotFound):
		c.fail(Lack, bare(err), "create the repository, or check its name")
	default:
		c.fail(Lack, bare(err), "check that the repository takes pushes")
	}
	return c
}

// bare leaves out what the check is about, which stands before it.
func bare(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}
