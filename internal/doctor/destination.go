package doctor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/registry"
)

// Registry is what a destination is asked.
type Registry interface {
	Head(ctx context.Context, ref registry.Ref) (ocispecs.Descriptor, error)
	PushBlob(ctx context.Context, repo registry.Ref, desc ocispecs.Descriptor, content io.ReaderAt, progress func(sent int64)) error
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

// errUnread ends an upload before its first byte.
var errUnread = errors.New("nothing is sent")

type unreadable struct{}

func (unreadable) ReadAt([]byte, int64) (int, error) { return 0, errUnread }

// push opens the upload of a blob that nobody has, and gives it up when the
// registry has let us begin: this is the first thing that needs the permission.
// Nothing is stored; what is left at most is an empty upload session, which
// registries remove in time.
func push(ctx context.Context, r Registry, ref registry.Ref) Check {
	c := Check{Kind: "push", Subject: ref.Name(), Status: OK, Detail: "allowed: it accepted an upload, which was cancelled"}
	content := []byte(rand.Text())
	desc := ocispecs.Descriptor{
		MediaType: "application/octet-stream", Digest: digest.FromBytes(content), Size: int64(len(content)),
	}
	err := r.PushBlob(ctx, ref, desc, unreadable{}, nil)
	switch {
	case errors.Is(err, errUnread):
	case err == nil:
		c.Status, c.Detail = Note, "it says that it has what was made up: whether it takes pushes cannot be told without one"
		c.Fix = "push something small to it"
	case errors.Is(err, registry.ErrDenied):
		c.fail(Lack, bare(err), fmt.Sprintf("use credentials that may push to %s", ref.Name()))
	case errors.Is(err, registry.ErrNotFound):
		c.fail(Lack, bare(err), "create the repository, or check its name")
	default:
		c.fail(Lack, bare(err), "check that the repository takes pushes")
	}
	return c
}

// bare leaves out the name of the made-up blob, which only confuses.
func bare(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}
