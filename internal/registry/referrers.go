package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// signatureTags are the ends of tags under which cosign keeps what belongs to a
// digest where a registry has no referrers.
var signatureTags = []string{".sig", ".att", ".sbom"}

// Referrers lists the manifests whose subject is ref, which needs a digest. A
// registry without the API may keep the list under a tag; one without either
// has none. OCI distribution specification 1.1, "Listing Referrers".
func (c *Client) Referrers(ctx context.Context, ref Ref) ([]ocispecs.Descriptor, error) {
	list, _, err := c.referrers(ctx, ref)
	return list, about(err, "listing what refers to", ref)
}

// maxPages bounds a list of referrers whose pages never end.
const maxPages = 100

// referrers also says whether the registry has the API.
func (c *Client) referrers(ctx context.Context, ref Ref) (list []ocispecs.Descriptor, api bool, _ error) {
	q := call{
		method: http.MethodGet, repo: ref, path: "referrers/" + ref.Digest.String(), scopes: pullScope(ref),
		header: header("Accept", ocispecs.MediaTypeImageIndex),
	}
	for range maxPages {
		a, err := c.do(ctx, q)
		switch {
		case err == nil && strings.HasPrefix(a.header.Get("Content-Type"), ocispecs.MediaTypeImageIndex):
		case len(list) == 0 && (err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrRejected) || errors.Is(err, ErrDenied)):
			// Old registries answer what they like to a path that they do not know.
			list, err := c.referrersTag(ctx, ref)
			return list, false, err
		case err != nil:
			return nil, false, err
		}
		page, err := parseReferrers(a.body)
		if err != nil {
			return nil, false, err
		}
		list = append(list, page...)
		if q.location = nextPage(a); q.location == nil {
			return list, true, nil
		}
	}
	return nil, false, &failure{kind: ErrRejected, text: fmt.Sprintf("the list has more than %d pages", maxPages)}
}

// nextPage is where a list goes on (RFC 8288), or nil at its end.
func nextPage(a *answer) *url.URL {
	link, rest, ok := strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
	if !ok || !strings.Contains(strings.ReplaceAll(rest, `"`, ""), "rel=next") {
		return nil
	}
	next, err := url.Parse(link)
	if err != nil {
		return nil
	}
	return a.url.ResolveReference(next)
}

// referrersTag is the list that clients keep up where the registry does not.
func (c *Client) referrersTag(ctx context.Context, ref Ref) ([]ocispecs.Descriptor, error) {
	_, data, err := c.manifest(ctx, fallbackTag(ref))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseReferrers(data)
}

func fallbackTag(ref Ref) Ref {
	return ref.WithTag(ref.Digest.Algorithm().String() + "-" + ref.Digest.Encoded())
}

func parseReferrers(data []byte) ([]ocispecs.Descriptor, error) {
	var index ocispecs.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, &failure{kind: ErrRejected, text: fmt.Sprintf("reading the list of referrers: %v", err)}
	}
	return index.Manifests, nil
}

// CopyReferrers copies what refers to from, which needs a digest, into the
// repository of to, and what refers to that; cosign's tags, too. It returns how
// many manifests it copied. What they refer to must have been copied before.
func (c *Client) CopyReferrers(ctx context.Context, to, from Ref) (int, error) {
	n, err := c.copyReferrers(ctx, to, from, 0)
	return n, about(err, "copying what refers to "+from.String()+" to", to.WithTag(""))
}

func (c *Client) copyReferrers(ctx context.Context, to, from Ref, depth int) (int, error) {
	if depth > maxNesting {
		return 0, nil
	}
	list, _, err := c.referrers(ctx, from)
	if err != nil {
		return 0, err
	}
	copied := 0
	for _, d := range list {
		target := to.WithDigest(d.Digest)
		if err := c.CopyImage(ctx, target, from.WithDigest(d.Digest)); err != nil {
			return copied, err
		}
		copied++
		below, err := c.copyReferrers(ctx, target, from.WithDigest(d.Digest), depth+1)
		copied += below
		if err != nil {
			return copied, err
		}
	}
	if len(list) > 0 {
		if err := c.listReferrers(ctx, to.WithDigest(from.Digest), list); err != nil {
			return copied, err
		}
	}
	tags, err := c.copySignatureTags(ctx, to, from)
	return copied + tags, err
}

// listReferrers keeps up the list under a tag in a registry that has no API.
func (c *Client) listReferrers(ctx context.Context, ref Ref, more []ocispecs.Descriptor) error {
	list, api, err := c.referrers(ctx, ref)
	if api || err != nil {
		return err
	}
	before := len(list)
	for _, d := range more {
		if !slices.ContainsFunc(list, func(old ocispecs.Descriptor) bool { return old.Digest == d.Digest }) {
			list = append(list, d)
		}
	}
	if len(list) == before {
		return nil
	}
	index := ocispecs.Index{MediaType: ocispecs.MediaTypeImageIndex, Manifests: list}
	index.SchemaVersion = 2
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	_, err = c.pushManifest(ctx, fallbackTag(ref), index.MediaType, data)
	return err
}

// checkAdds refuses to put one image in the place of another which has something
// that it does not: signatures are layers of the image under their tag.
func (c *Client) checkAdds(ctx context.Context, image, old Ref, tag string) error {
	var layers [2]struct{ Layers []ocispecs.Descriptor }
	for i, ref := range []Ref{image, old} {
		_, data, err := c.manifest(ctx, ref)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(data, &layers[i]); err != nil {
			return &failure{kind: ErrRejected, text: fmt.Sprintf("reading %s: %v", ref, err)}
		}
	}
	for _, l := range layers[1].Layers {
		if !slices.ContainsFunc(layers[0].Layers, func(n ocispecs.Descriptor) bool { return n.Digest == l.Digest }) {
			return &failure{kind: ErrRejected, text: fmt.Sprintf("the tag %s has signatures or attestations there that the copy would remove: bring them together with cosign, or remove the tag", tag)}
		}
	}
	return nil
}

func (c *Client) copySignatureTags(ctx context.Context, to, from Ref) (int, error) {
	copied := 0
	for _, end := range signatureTags {
		tag := fallbackTag(from).Tag + end
		d, err := c.Head(ctx, from.WithTag(tag))
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return copied, err
		}
		there, err := c.Head(ctx, to.WithTag(tag))
		if err == nil && there.Digest == d.Digest {
			continue
		}
		if err == nil {
			err = c.checkAdds(ctx, from.WithDigest(d.Digest), to.WithDigest(there.Digest), tag)
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return copied, err
		}
		if err := c.CopyImage(ctx, to.WithTag(tag), from.WithDigest(d.Digest)); err != nil {
			return copied, err
		}
		copied++
	}
	return copied, nil
}
