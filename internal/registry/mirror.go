package registry

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
)

// mirrors knows which places stand for which names.
type mirrors struct {
	// by has the mirrors of HOST[:PORT][/PATH]: only registry and repository
	// of the Refs are set, the latter is a path or empty.
	by         map[string][]Ref
	skipOrigin bool
}

func parseMirrors(o Options) (mirrors, error) {
	m := mirrors{by: map[string][]Ref{}, skipOrigin: o.SkipDefaultFallback}
	add := func(of string, list []string) error {
		key, err := parsePlace(of)
		if err != nil {
			return err
		}
		for _, s := range list {
			place, err := parsePlace(s)
			if err != nil {
				return fmt.Errorf("mirror of %s: %w", of, err)
			}
			m.by[placeName(key)] = append(m.by[placeName(key)], place)
		}
		return nil
	}
	for _, of := range slices.Sorted(maps.Keys(o.Maps)) {
		if err := add(of, o.Maps[of]); err != nil {
			return mirrors{}, err
		}
	}
	return m, add(hub, o.Mirrors)
}

// parsePlace reads HOST[:PORT][/PATH].
func parsePlace(s string) (Ref, error) {
	host, repo, _ := strings.Cut(strings.ToLower(strings.TrimSuffix(s, "/")), "/")
	_, hostErr := name.NewRegistry(host)
	_, nameErr := reference.WithName(path.Join(host, repo, "x"))
	if host == "" || hostErr != nil || nameErr != nil || strings.Contains(s, "//") {
		return Ref{}, fmt.Errorf("registry %q: give HOST[:PORT][/PATH], without scheme and tag", s)
	}
	return Ref{Registry: canonical(host), Repository: repo}, nil
}

func placeName(r Ref) string { return path.Join(r.Registry, r.Repository) }

// places are where to look for what ref names, in this order.
func (m mirrors) places(ref Ref) []Ref {
	var found []Ref
	whole := placeName(Ref{Registry: canonical(ref.Registry), Repository: ref.Repository})
	for prefix := whole; prefix != "."; prefix = path.Dir(prefix) {
		rest := strings.TrimPrefix(whole[len(prefix):], "/")
		for _, place := range m.by[prefix] {
			at := ref
			at.Registry, at.Repository = place.Registry, path.Join(place.Repository, rest)
			// A mirror without path cannot stand for a whole repository.
			if at.Repository != "" && !slices.Contains(found, at) {
				found = append(found, at)
			}
		}
	}
	if len(found) > 0 && m.skipOrigin || slices.Contains(found, ref) {
		return found
	}
	return append(found, ref)
}

// fallThrough asks one place after the other until one can do it. All but the
// last are asked in haste.
func fallThrough[T any](ctx context.Context, c *Client, ref Ref, places []Ref, ask func(*Client, Ref) (T, error)) (T, error) {
	var failed []string
	for i, place := range places[:len(places)-1] {
		got, err := ask(c.hasty, place)
		if err == nil || ctx.Err() != nil {
			return got, err
		}
		c.log.Debug("mirror failed, going on", "image", ref, "mirror", place.Name(), "next", places[i+1].Name(), "error", err)
		failed = append(failed, err.Error())
	}
	last := places[len(places)-1]
	got, err := ask(c.base, last)
	if err == nil || ctx.Err() != nil {
		return got, err
	}
	return got, passedOver(err, ref, last, failed)
}

// passedOver adds to the error of the last place what the others said.
func passedOver(err error, ref, last Ref, failed []string) error {
	if last.Name() != ref.Name() {
		err = fmt.Errorf("%w; %s itself was not asked, since it has mirrors and no fallback", err, ref.Registry)
	}
	if len(failed) > 0 {
		err = fmt.Errorf("%w; its mirrors failed before: %s", err, strings.Join(failed, "; "))
	}
	return err
}

// origins remembers where images were found, so that their blobs come from
// there, too.
type origins struct {
	mu     sync.Mutex
	places map[string][]Ref
}

// of returns the places for an image that was found before, the one that had
// it first. They are without tag and digest unless ref has them.
func (o *origins) of(ref Ref) []Ref {
	o.mu.Lock()
	defer o.mu.Unlock()
	places := slices.Clone(o.places[originKey(ref)])
	for i := range places {
		places[i].Tag, places[i].Digest = ref.Tag, ref.Digest
	}
	return places
}

// originKey is empty for a repository: many images may come from it.
func originKey(ref Ref) string {
	switch {
	case ref.Digest != "":
		return ref.WithDigest(ref.Digest).String()
	case ref.Tag != "":
		return ref.String()
	}
	return ""
}

func (o *origins) remember(ref Ref, img *Image, places []Ref) {
	first := slices.IndexFunc(places, func(p Ref) bool { return p.Name() == img.Source.Name() })
	if first < 0 {
		return
	}
	order := append([]Ref{places[first]}, slices.Delete(slices.Clone(places), first, first+1)...)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.places == nil {
		o.places = map[string][]Ref{}
	}
	for _, key := range []Ref{ref, img.Ref, ref.WithDigest(img.Root)} {
		o.places[originKey(key)] = order
	}
}

// hub is Docker Hub's name in references.
const hub = "docker.io"

// canonical is the name of a registry in references. Docker Hub's API has
// others, and kaniko's flags use this one.
func canonical(host string) string {
	if host = strings.ToLower(host); host == "index.docker.io" {
		return hub
	}
	return host
}
