// Package imagediff tells how two images differ: in their files as a container
// would see them, in their configs and histories, and in the number of layers.
// It is how the tests compare our images with those of another builder, and knows
// nothing of either.
package imagediff

import (
	"fmt"
	"maps"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Options say what is compared beyond what always is.
type Options struct {
	// Times compares file times, the config's and history's times, and with them
	// the layers' diff IDs.
	Times bool
	// Since compares file times, to the second, but not those of which both lie
	// between it and now: the builds' own clock made them. For a directory it is
	// enough if the second does: BuildKit leaves its time on a directory that it
	// made a mount point in. Zero compares none.
	Since time.Time
	// Layers keeps what layers hold from one comparison to the next; it may be nil.
	Layers *Layers
}

// times are what the report says of the times of two files.
func (o Options) times(a, b time.Time, directory bool) (string, string) {
	if o.Times {
		return stamp(a), stamp(b)
	}
	since, now := o.Since.Truncate(time.Second), time.Now()
	clock := func(t time.Time) bool { return !t.Before(since) && !t.After(now) }
	if o.Since.IsZero() || clock(b) && (directory || clock(a)) {
		return "", ""
	}
	// BuildKit's layers have no parts of seconds.
	return stamp(a.Truncate(time.Second)), stamp(b.Truncate(time.Second))
}

// Images lists the differences of two images, one a line, in a fixed order.
func Images(a, b v1.Image, o Options) ([]string, error) {
	configA, treeA, err := load(a, o.Layers)
	if err != nil {
		return nil, fmt.Errorf("reading the first image: %w", err)
	}
	configB, treeB, err := load(b, o.Layers)
	if err != nil {
		return nil, fmt.Errorf("reading the second image: %w", err)
	}
	if !o.Times {
		configA.untimed()
		configB.untimed()
	}
	var r report
	r.objects("", configA, configB)
	r.trees(treeA, treeB, o)
	return r.lines, nil
}

func load(img v1.Image, known *Layers) (config, tree, error) {
	c, err := readConfig(img)
	if err != nil {
		return nil, nil, err
	}
	t, err := flatten(img, known)
	return c, t, err
}

// Indexes lists the differences of two multi-platform images: platforms that only
// one of them has, and the differences of each pair. Attestations are no platforms.
func Indexes(a, b v1.ImageIndex, o Options) ([]string, error) {
	imagesA, err := byPlatform(a)
	if err != nil {
		return nil, fmt.Errorf("reading the first index: %w", err)
	}
	imagesB, err := byPlatform(b)
	if err != nil {
		return nil, fmt.Errorf("reading the second index: %w", err)
	}
	platforms := maps.Clone(imagesA)
	maps.Copy(platforms, imagesB)

	var r report
	for _, p := range slices.Sorted(maps.Keys(platforms)) {
		switch {
		case imagesB[p] == nil:
			r.add(p, "exists only in the first")
		case imagesA[p] == nil:
			r.add(p, "exists only in the second")
		default:
			lines, err := Images(imagesA[p], imagesB[p], o)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p, err)
			}
			for _, line := range lines {
				r.add(p, line)
			}
		}
	}
	return r.lines, nil
}

func byPlatform(index v1.ImageIndex) (map[string]v1.Image, error) {
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	images := map[string]v1.Image{}
	for _, child := range manifest.Manifests {
		p := child.Platform
		if p == nil || p.OS == "unknown" {
			continue
		}
		name := p.String()
		if name == "linux/arm64/v8" {
			name = "linux/arm64" // the same: v8 is the default
		}
		if images[name] != nil {
			return nil, fmt.Errorf("two images for %s", name)
		}
		if images[name], err = index.Image(child.Digest); err != nil {
			return nil, err
		}
	}
	return images, nil
}

// Descriptors compares what two references name: two indexes or two images.
func Descriptors(a, b *remote.Descriptor, o Options) ([]string, error) {
	if a.MediaType.IsIndex() != b.MediaType.IsIndex() {
		return []string{fmt.Sprintf("media type: %s | %s", a.MediaType, b.MediaType)}, nil
	}
	if a.MediaType.IsIndex() {
		indexA, err := a.ImageIndex()
		if err != nil {
			return nil, err
		}
		indexB, err := b.ImageIndex()
		if err != nil {
			return nil, err
		}
		return Indexes(indexA, indexB, o)
	}
	imageA, err := a.Image()
	if err != nil {
		return nil, err
	}
	imageB, err := b.Image()
	if err != nil {
		return nil, err
	}
	return Images(imageA, imageB, o)
}

// report collects lines.
type report struct{ lines []string }

func (r *report) add(name, what string) { r.lines = append(r.lines, name+": "+what) }

// differ adds a line if two values differ.
func (r *report) differ(name string, a, b any) {
	if a != b {
		r.add(name, fmt.Sprintf("%v | %v", a, b))
	}
}
