package local

import (
	"slices"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/annotation"
	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// target is where a build goes.
type target struct {
	// repository takes the images by digest. It is zero when nothing is
	// published, and no name is given.
	repository registry.Ref
	// tags are moved when all is there; empty for a push by digest.
	tags []registry.Ref
	// copies are further repositories that take the images by digest.
	copies      []registry.Ref
	annotations []annotation.Annotation
	index       bool
	platforms   int
}

func (t *target) none() bool { return t.repository.Repository == "" }

func parseTarget(o build.Options, platforms int) (*target, error) {
	t := &target{index: o.PublishIndex || platforms > 1, platforms: platforms}
	names := o.Destinations
	if o.Image != "" {
		names = append([]string{o.Image}, names...)
	}
	byDigest := o.PushByDigest || o.Image != "" || o.DigestsTo != "" && platforms == 1
	for i, name := range names {
		flag := "--destination"
		if o.Image != "" && i == 0 {
			flag = "--image"
		}
		ref, err := registry.ParseRef(name)
		if err != nil {
			return nil, badInput("%s: %w", flag, err)
		}
		if ref.Digest != "" {
			return nil, badInput("%s %s: a digest comes out of a build, it cannot be pushed to", flag, name)
		}
		if flag == "--image" && ref.Tag != "" {
			return nil, badInput("--image %s: want a repository without tag, tags are given with --destination", name)
		}
		repository := ref.WithTag("")
		if i == 0 {
			t.repository = repository
		} else if repository != t.repository && !slices.Contains(t.copies, repository) {
			t.copies = append(t.copies, repository)
		}
		if ref.Tag != "" && !byDigest && !slices.Contains(t.tags, ref) {
			t.tags = append(t.tags, ref)
		}
	}
	if len(names) == 0 && !o.NoPush {
		return nil, badInput("nowhere to push to: give --destination REPO:TAG or --image REPO, or --no-push")
	}
	return t, t.parseAnnotations(o.Annotations)
}

// parseAnnotations sorts the annotations out. Without a place they are for the
// manifest, as in buildx.
func (t *target) parseAnnotations(lines []string) error {
	for _, line := range lines {
		list, err := annotation.Parse(line, annotation.Manifest)
		if err != nil {
			return &InputError{Err: err}
		}
		for _, a := range list {
			if a.Place == annotation.IndexDescriptor {
				return badInput("annotation %q: an index in a registry has no descriptor: use index:", line)
			}
			if a.Place == annotation.Index && !t.index {
				return badInput("annotation %q: one platform makes no index: add --publish-index or use manifest:", line)
			}
		}
		t.annotations = append(t.annotations, list...)
	}
	return nil
}

func (t *target) manifestAnnotations(p ocispecs.Platform) map[string]string {
	return t.on(annotation.Manifest, platform.Format(p))
}

func (t *target) descriptorAnnotations(platform string) map[string]string {
	return t.on(annotation.ManifestDescriptor, platform)
}

// on collects what is to be put on a place of one platform. What names the
// platform goes before what is for all.
func (t *target) on(place annotation.Place, platform string) map[string]string {
	var out map[string]string
	for _, narrowed := range []string{"", platform} {
		for _, a := range t.annotations {
			if a.Place != place || a.Platform != narrowed {
				continue
			}
			if out == nil {
				out = map[string]string{}
			}
			out[a.Key] = a.Value
		}
	}
	return out
}

// check refuses annotations that nothing would hold.
func (t *target) check(platforms []ocispecs.Platform, o build.Options) error {
	for _, a := range t.annotations {
		if a.Platform != "" && !slices.ContainsFunc(platforms, func(p ocispecs.Platform) bool { return platform.Format(p) == a.Platform }) {
			return badInput("annotation %s is for %s, which is not built: add it to --platform", a.Key, a.Platform)
		}
		if a.Place == annotation.ManifestDescriptor && !t.index && o.DigestsTo == "" {
			return badInput("annotation %s: one platform makes no index whose descriptor could hold it: add --publish-index, or use manifest:", a.Key)
		}
	}
	return nil
}

// indexAnnotations are lines for merge.
func (t *target) indexAnnotations() []string {
	var out []string
	for _, a := range t.annotations {
		if a.Place == annotation.Index {
			out = append(out, "index:"+a.Key+"="+a.Value)
		}
	}
	return out
}

// Target is where a build goes, for a driver that builds each platform elsewhere.
type Target struct {
	Platforms []ocispecs.Platform
	// Repository takes the images by digest; it is zero when nothing is published
	// and no name is given.
	Repository registry.Ref

	target *target
}

// ParseTarget checks all that o says of where the result goes, as Build does.
func ParseTarget(o build.Options) (*Target, error) {
	platforms, err := parsePlatforms(o.Platforms)
	if err != nil {
		return nil, err
	}
	t, err := parseTarget(o, len(platforms))
	if err != nil {
		return nil, err
	}
	return &Target{platforms, t.repository, t}, t.check(platforms, o)
}

// ManifestAnnotations are those of the image's manifest.
func (t *Target) ManifestAnnotations(p ocispecs.Platform) map[string]string {
	return t.target.manifestAnnotations(p)
}

// DescriptorAnnotations are those of the image in an index.
func (t *Target) DescriptorAnnotations(p ocispecs.Platform) map[string]string {
	return t.target.descriptorAnnotations(platform.Format(p))
}
