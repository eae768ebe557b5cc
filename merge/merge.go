// Package merge makes one multi-platform image of many images that were built
// apart: it checks their digest records against each other and against the
// registry, assembles the index, publishes it by digest, and only then moves
// the tags.
//
// It must not know how the images were built or where the records come from:
// files, or the memory of the process that built. It does not link the build
// engine.
package merge

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// Reader is what verifying and a dry run need of a registry. Errors wrap
// registry.ErrNotFound where that is the reason.
type Reader interface {
	Manifest(ctx context.Context, ref registry.Ref) (ocispecs.Descriptor, []byte, error)
	Blob(ctx context.Context, repo registry.Ref, desc ocispecs.Descriptor) (io.ReadCloser, error)
}

// Writer is what publishing needs besides.
type Writer interface {
	PushManifest(ctx context.Context, ref registry.Ref, mediaType string, data []byte) (ocispecs.Descriptor, error)
	// CopyImage copies a manifest and the blobs that the other side lacks.
	CopyImage(ctx context.Context, to, from registry.Ref) error
}

// Registry is satisfied by internal/registry.Client.
type Registry interface {
	Reader
	Writer
}

// Mode decides what becomes of images of Docker's media types.
type Mode string

const (
	// ModeAuto, also the empty mode, follows the images: only Docker images
	// make a Docker manifest list, all else an OCI index.
	ModeAuto Mode = "auto"
	// ModeOCI makes an OCI index and rewrites Docker images to OCI ones. Their
	// digests change; the report has both.
	ModeOCI Mode = "oci"
	// ModeDocker makes a Docker manifest list and refuses OCI images.
	ModeDocker Mode = "docker"
)

// Options say what to merge and where to publish it.
type Options struct {
	// Records, one for each platform; see record.Read.
	Records []record.Found
	// Destinations are references with a tag; one without tag publishes by
	// digest only. The images are looked for in the first one's repository
	// first, and copied to every other. At least one is needed.
	Destinations []string
	// Platforms that the index must have, neither more nor less. Empty takes
	// what the records name.
	Platforms []ocispecs.Platform
	// Key picks the records of one image. Empty means that all have one key.
	Key string
	// Annotations are [PREFIX:]KEY=VALUE. Without prefix, and with "index:",
	// they belong to the index; with "manifest-descriptor:" to every entry of
	// it, with "manifest-descriptor[linux/arm64]:" to one.
	Annotations []string
	OCIMode     Mode
	// DryRun verifies and assembles but writes nothing to any registry.
	DryRun bool
	// ExplicitPush is set when the user demanded a push: records of images
	// that were not pushed are then an error, not a reason for a dry run.
	ExplicitPush bool
	// IgnoreImmutableTags leaves a tag out, with a warning, that the registry does
	// not let move.
	IgnoreImmutableTags bool
}

// Report is the result. Its JSON form is the report file.
type Report struct {
	Digest digest.Digest `json:"digest"`
	// Image is name@digest in the first destination's repository.
	Image string `json:"image"`
	// Tags are the full references that were moved, or would have been.
	Tags []string `json:"tags"`
	// Platforms in canonical form, in the order of the index.
	Platforms []string `json:"platforms"`
	MediaType string   `json:"mediaType"`
	Size      int64    `json:"size"`
	// Published is false after a dry run.
	Published bool    `json:"published"`
	Images    []Image `json:"images"`
	// Index holds the exact bytes of the index.
	Index json.RawMessage `json:"index"`
	// Notices are worth a line in the log, Warnings a coloured one.
	Notices  []string `json:"notices"`
	Warnings []string `json:"warnings"`
}

// Image is one entry of the index.
type Image struct {
	Platform  string        `json:"platform"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
	MediaType string        `json:"mediaType"`
	// Source is the digest that was built, which differs from Digest when the
	// image was converted.
	Source digest.Digest `json:"source"`
	// CopiedFrom is the repository that the image was copied from, if it was
	// not in the destination's.
	CopiedFrom string `json:"copiedFrom,omitempty"`
	// Record is the file that named the image.
	Record string `json:"record,omitempty"`
}

// Run verifies, assembles and, unless it is a dry run, publishes.
//
// Wrong options are a *UsageError. What the verification found wrong is a
// *VerifyError, and no tag has moved then. A tag that could not be moved is a
// *TagError. Other errors are the registry's.
func Run(ctx context.Context, reg Registry, opts Options) (*Report, error) {
	m, err := newMerger(opts)
	if err != nil {
		return nil, err
	}
	m.choose()
	if err := m.inspect(ctx, reg); err != nil {
		return nil, err
	}
	m.checkPlatforms()
	mediaType := m.settleTypes()
	m.annotate(mediaType)
	if len(m.problems) > 0 {
		return nil, &VerifyError{Problems: m.problems}
	}
	data, err := m.index(mediaType)
	if err != nil {
		return nil, fmt.Errorf("assembling the index: %w", err)
	}
	if m.dryRun {
		return m.report(mediaType, data), nil
	}
	if err := m.publish(ctx, reg, mediaType, data); err != nil {
		return nil, err
	}
	report := m.report(mediaType, data)
	report.Published = true
	return report, nil
}

// merger is the state of one run.
type merger struct {
	opts        Options
	annotations annotations
	// repos are the destinations' repositories, each once; tags the full names.
	repos, tags []registry.Ref
	children    []*child
	// dryRun is the user's wish, or follows from images that were not pushed.
	dryRun            bool
	problems          []string
	notices, warnings []string
}

func newMerger(opts Options) (*merger, error) {
	m := &merger{opts: opts, dryRun: opts.DryRun}
	switch opts.OCIMode {
	case "", ModeAuto, ModeOCI, ModeDocker:
	default:
		return nil, usage("oci-mode %q: use auto, oci or docker", opts.OCIMode)
	}
	if len(opts.Destinations) == 0 {
		return nil, usage("no destination: say where to publish the index, for example --destination ghcr.io/acme/app:1.0")
	}
	for _, s := range opts.Destinations {
		ref, err := registry.ParseRef(s)
		if err != nil {
			return nil, usage("destination: %w", err)
		}
		if ref.Digest != "" {
			return nil, usage("destination %q: a destination has a tag or nothing, its digest is what merge finds out", s)
		}
		if repo := ref.WithTag(""); !slices.Contains(m.repos, repo) {
			m.repos = append(m.repos, repo)
		}
		if ref.Tag != "" && !slices.Contains(m.tags, ref) {
			m.tags = append(m.tags, ref)
		}
	}
	var err error
	m.annotations, err = parseAnnotations(opts.Annotations)
	return m, err
}

// requests is how many images are looked at in parallel: enough to hide
// latency, too few to meet a registry's rate limit.
const requests = 4

// inspect fills in the children's descriptors, from the registry or, when no
// image was pushed, from the records.
func (m *merger) inspect(ctx context.Context, reg Reader) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(requests)
	for _, c := range m.children {
		if !c.pushed() {
			c.assume()
			continue
		}
		group.Go(func() error { return c.inspect(ctx, reg, m.repos) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("verifying the images: %w", err)
	}
	for _, c := range m.children {
		m.problems = append(m.problems, c.problems...)
	}
	slices.SortStableFunc(m.children, func(a, b *child) int { return platform.Compare(a.platform, b.platform) })
	return nil
}

func (m *merger) problem(format string, args ...any) {
	m.problems = append(m.problems, fmt.Sprintf(format, args...))
}

func (m *merger) notice(format string, args ...any) {
	m.notices = append(m.notices, fmt.Sprintf(format, args...))
}

func (m *merger) report(mediaType string, data []byte) *Report {
	d := digest.FromBytes(data)
	r := &Report{
		Digest:    d,
		Image:     m.repos[0].WithDigest(d).String(),
		Tags:      []string{},
		MediaType: mediaType,
		Size:      int64(len(data)),
		Index:     data,
		Notices:   append([]string{}, m.notices...),
		Warnings:  append([]string{}, m.warnings...),
	}
	for _, tag := range m.tags {
		r.Tags = append(r.Tags, tag.String())
	}
	for _, c := range m.children {
		r.Platforms = append(r.Platforms, platform.Format(c.platform))
		img := Image{
			Platform: platform.Format(c.platform), Digest: c.desc.Digest, Size: c.desc.Size, MediaType: c.desc.MediaType,
			Source: c.found.Record.Digest, Record: c.found.Path,
		}
		if c.pushed() && c.source != m.repos[0] {
			img.CopiedFrom = c.source.Name()
		}
		r.Images = append(r.Images, img)
	}
	return r
}
