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
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// Reader is what verifying and a dry run need of a registry. Errors wrap
// registry.ErrNotFound where that is the reason.
type Reader interface {
	Head(ctx context.Context, ref registry.Ref) (ocispecs.Descriptor, error)
	Manifest(ctx context.Context, ref registry.Ref) (ocispecs.Descriptor, []byte, error)
	Blob(ctx context.Context, repo registry.Ref, desc ocispecs.Descriptor) (io.ReadCloser, error)
}

// Writer is what publishing needs besides.
type Writer interface {
	PushManifest(ctx context.Context, ref registry.Ref, mediaType string, data []byte) (ocispecs.Descriptor, error)
	// CopyImage copies a manifest and the blobs that the other side lacks.
	CopyImage(ctx context.Context, to, from registry.Ref) error
	// CopyReferrers copies what refers to a manifest and returns how many
	// manifests that were.
	CopyReferrers(ctx context.Context, to, from registry.Ref) (int, error)
}

// Registry is satisfied by internal/registry.Client.
type Registry interface {
	Reader
	Writer
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
	m.chooseRecords()
	if err := m.inspect(ctx, reg); err != nil {
		return nil, err
	}
	m.arrange()
	m.checkPlatforms()
	mediaType := m.settleTypes()
	m.annotate(mediaType)
	m.settleAttached(mediaType)
	if err := m.checkAttachedExist(ctx, reg); err != nil {
		return nil, err
	}
	if err := m.findSubject(ctx, reg, mediaType); err != nil {
		return nil, err
	}
	if err := m.failed(); err != nil {
		return nil, err
	}
	out, err := m.assemble(mediaType)
	if err != nil {
		return nil, fmt.Errorf("assembling the index: %w", err)
	}
	if err := m.lookAtTags(ctx, reg, out); err != nil {
		return nil, err
	}
	if !m.dryRun {
		if err := m.publish(ctx, reg, out); err != nil {
			return nil, err
		}
	}
	report := m.report(out)
	report.Published = !m.dryRun && len(m.repos) > 0
	return report, nil
}

// merger is the state of one run.
type merger struct {
	opts        Options
	annotations annotations
	// repos are the destinations' repositories, each once; tags the full names.
	repos, tags []registry.Ref
	sources     []*source
	// children and attached are the entries of the index.
	children []*child
	attached []*attachment
	subject  *ocispecs.Descriptor
	guard    guard
	// there are the tags that name the result already.
	there map[registry.Ref]bool
	// dryRun is the user's wish, or follows from images that were not pushed.
	dryRun, unpushed  bool
	problems          []string
	notices, warnings []string
}

// result is what gets published.
type result struct {
	mediaType   string
	data        []byte
	digest      digest.Digest
	annotations map[string]string
}

func newMerger(opts Options) (*merger, error) {
	m := &merger{opts: opts, dryRun: opts.DryRun, there: map[registry.Ref]bool{}}
	switch opts.OCIMode {
	case "", ModeAuto, ModeOCI, ModeDocker:
	default:
		return nil, usage("oci-mode %q: use auto, oci or docker", opts.OCIMode)
	}
	switch opts.Attestations {
	case "", KeepAttestations, DropAttestations, RefuseAttestations:
	default:
		return nil, usage("attestations %q: use keep, drop or error", opts.Attestations)
	}
	if err := m.parseDestinations(); err != nil {
		return nil, err
	}
	if err := m.parseFrom(); err != nil {
		return nil, err
	}
	var err error
	if m.guard, err = parseGuard(opts.Immutable); err != nil {
		return nil, err
	}
	m.annotations, err = parseAnnotations(opts.Annotations, opts.Layout != "")
	return m, err
}

func (m *merger) parseDestinations() error {
	if len(m.opts.Destinations) == 0 && m.opts.Layout == "" {
		return usage("no destination: say where to publish the index, for example --destination ghcr.io/acme/app:1.0")
	}
	for _, s := range m.opts.Destinations {
		ref, err := registry.ParseRef(s)
		if err != nil {
			return usage("destination: %w", err)
		}
		if ref.Digest != "" {
			return usage("destination %q: a destination has a tag or nothing, its digest is what merge finds out", s)
		}
		if repo := ref.WithTag(""); !slices.Contains(m.repos, repo) {
			m.repos = append(m.repos, repo)
		}
		if ref.Tag != "" && !slices.Contains(m.tags, ref) {
			m.tags = append(m.tags, ref)
		}
	}
	if m.opts.Append && len(m.tags) == 0 {
		return usage("append: give a destination with the tag to append to")
	}
	return nil
}

func (m *merger) failed() error {
	if len(m.problems) == 0 {
		return nil
	}
	return &VerifyError{Problems: m.problems}
}

func (m *merger) problem(format string, args ...any) {
	m.problems = append(m.problems, fmt.Sprintf(format, args...))
}

func (m *merger) notice(format string, args ...any) {
	m.notices = append(m.notices, fmt.Sprintf(format, args...))
}

func (m *merger) report(out result) *Report {
	r := &Report{
		Digest:      out.digest,
		Tags:        []string{},
		Unchanged:   []string{},
		Platforms:   []string{},
		MediaType:   out.mediaType,
		Size:        int64(len(out.data)),
		Attached:    []Attached{},
		Annotations: out.annotations,
		Index:       out.data,
		Notices:     append([]string{}, m.notices...),
		Warnings:    append([]string{}, m.warnings...),
	}
	if r.Annotations == nil {
		r.Annotations = map[string]string{}
	}
	if !m.dryRun {
		r.Layout = m.opts.Layout
	}
	if len(m.repos) > 0 {
		r.Image = m.repos[0].WithDigest(out.digest).String()
	}
	for _, tag := range m.tags {
		r.Tags = append(r.Tags, tag.String())
		if m.there[tag] {
			r.Unchanged = append(r.Unchanged, tag.String())
		}
	}
	for _, c := range m.children {
		name := platform.Format(c.platform)
		if !slices.Contains(r.Platforms, name) {
			r.Platforms = append(r.Platforms, name)
		}
		img := Image{
			Platform: name, Digest: c.desc.Digest, Size: c.desc.Size, MediaType: c.desc.MediaType,
			Source: c.built, Record: c.source.label(),
		}
		if len(m.repos) > 0 && c.repo != m.repos[0] && c.source.pushed() {
			img.CopiedFrom = c.repo.Name()
		}
		r.Images = append(r.Images, img)
	}
	for _, a := range m.attached {
		r.Attached = append(r.Attached, Attached{Digest: a.desc.Digest, MediaType: a.desc.MediaType, About: a.about})
	}
	return r
}
