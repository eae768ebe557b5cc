package merge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// source is one thing to merge: a digest record, or a reference that the user
// named or wants to append to. It brings one image, or an index of them.
type source struct {
	// found is the record; its digest is empty for a reference.
	found record.Found
	// ref is the reference; zero for a record.
	ref registry.Ref
	// only is the platform that the user wants of a reference, or says that it
	// is of; its OS is empty where he says nothing.
	only ocispecs.Platform
	// existing is the index that is appended to.
	existing bool
	// wants tells the platforms of an index that are needed; nil wants all.
	wants func(ocispecs.Platform) bool

	// repo is where it was found, desc and raw what it is there.
	repo registry.Ref
	desc ocispecs.Descriptor
	raw  []byte
	// index is set where it is one.
	index    *ocispecs.Index
	children []*child
	attached []*attachment
	// left are the platforms of the index that nobody wants.
	left     []string
	problems []string
	notices  []string
}

func (s *source) isRecord() bool { return s.ref == registry.Ref{} }

// bare is a record that has nothing but a digest.
func (s *source) bare() bool { return s.isRecord() && s.found.Bare() }

// pushed is true for a bare digest too: kaniko writes it after its push.
func (s *source) pushed() bool { return !s.isRecord() || s.found.Bare() || s.found.Record.Pushed }

// String names the source in messages.
func (s *source) String() string {
	switch {
	case s.existing:
		return "the existing " + s.ref.String()
	case !s.isRecord():
		return "--from " + s.ref.String()
	}
	return s.found.String()
}

// label is the source in the report.
func (s *source) label() string {
	if s.isRecord() {
		return s.found.Path
	}
	return s.ref.String()
}

func (s *source) problem(format string, args ...any) {
	s.problems = append(s.problems, s.String()+": "+fmt.Sprintf(format, args...))
}

func (s *source) notice(format string, args ...any) {
	s.notices = append(s.notices, s.String()+": "+fmt.Sprintf(format, args...))
}

// parseFrom reads the references among the options.
func (m *merger) parseFrom() error {
	for _, text := range m.opts.From {
		s := &source{}
		name, ref, ok := strings.Cut(text, "=")
		if !ok {
			name, ref = "", text
		}
		if ok {
			p, err := platform.Parse(name)
			if err != nil {
				return usage("from %q: %w; write PLATFORM=REF, or REF alone", text, err)
			}
			s.only = p
		}
		parsed, err := registry.ParseRef(strings.TrimSpace(ref))
		if err != nil {
			return usage("from: %w", err)
		}
		s.ref = parsed.DefaultTag()
		m.sources = append(m.sources, s)
	}
	for _, s := range m.sources {
		s.wants = m.wanted(s.only, m.opts.Platforms)
	}
	if m.opts.Append {
		m.sources = append([]*source{{ref: m.tags[0], existing: true, wants: m.wanted(ocispecs.Platform{}, nil)}}, m.sources...)
	}
	return nil
}

// wanted narrows what an index brings. The one that is appended to is not
// narrowed to what is expected: nothing disappears from a tag that is not to be
// removed by name.
func (m *merger) wanted(only ocispecs.Platform, expected []ocispecs.Platform) func(ocispecs.Platform) bool {
	return func(p ocispecs.Platform) bool {
		is := func(q ocispecs.Platform) bool { return same(q, p) }
		switch {
		case only.OS != "" && !is(only), len(expected) > 0 && !slices.ContainsFunc(expected, is):
			return false
		}
		return !slices.ContainsFunc(m.opts.Remove, is)
	}
}

// same compares platforms; a version of the operating system counts only if
// both have one.
func same(a, b ocispecs.Platform) bool {
	return platform.Equal(a, b) || platform.Equal(short(a), short(b)) && (a.OSVersion == "" || b.OSVersion == "")
}

func short(p ocispecs.Platform) ocispecs.Platform {
	return ocispecs.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
}

// requests is how many sources are looked at in parallel: enough to hide
// latency, too few to meet a registry's rate limit.
const requests = 4

// inspect reads the sources, from the registry or, when no image was pushed,
// from the records.
func (m *merger) inspect(ctx context.Context, reg Reader) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(requests)
	for _, s := range m.sources {
		if !s.pushed() {
			s.assume()
			continue
		}
		group.Go(func() error { return s.inspect(gctx, reg, m.repos, m.opts.Wait) })
	}
	if err := group.Wait(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("verifying the images: %w", err)
	}
	for _, s := range m.sources {
		m.problems = append(m.problems, s.problems...)
		m.notices = append(m.notices, s.notices...)
	}
	return nil
}

// assume believes the record of an image that is in no registry.
func (s *source) assume() {
	r := s.found.Record
	p, err := platform.Parse(r.Platform)
	if err != nil {
		s.problem("%v", err)
	}
	s.children = []*child{{
		source: s, platform: p, built: r.Digest,
		desc: ocispecs.Descriptor{MediaType: r.MediaType, Digest: r.Digest, Size: r.Size, Platform: &p},
	}}
}

// inspect checks what the source says against the registry. What is wrong
// becomes a problem; an error is a registry that does not answer.
func (s *source) inspect(ctx context.Context, reg Reader, repos []registry.Ref, wait []time.Duration) error {
	var recorded ocispecs.Platform
	if s.isRecord() && !s.bare() {
		var err error
		if recorded, err = platform.Parse(s.found.Record.Platform); err != nil {
			s.problem("%v", err)
		}
	}
	// An image that cannot be read counts with the platform of its record, so
	// that it is not reported as missing as well.
	unread := &child{source: s, platform: recorded}
	if err := s.fetch(ctx, reg, repos, wait); err != nil {
		return err
	}
	if s.raw == nil {
		if !s.existing {
			s.children = []*child{unread}
		}
		return nil
	}
	if got := digest.FromBytes(s.raw); s.isRecord() && got != s.found.Record.Digest {
		s.problem("the registry answers with the content of %s when asked for %s", got, s.found.Record.Digest)
		s.children = []*child{unread}
		return nil
	}
	s.checkRecord()
	if isIndex(s.desc.MediaType) {
		return s.flatten(ctx, reg, recorded)
	}
	c := &child{source: s, platform: recorded, built: s.desc.Digest, repo: s.repo}
	s.children = []*child{c}
	return c.read(ctx, reg, s.desc, s.raw)
}

// checkRecord compares the record with what is in the registry.
func (s *source) checkRecord() {
	r := s.found.Record
	if !s.isRecord() || s.bare() {
		return
	}
	if r.Size != int64(len(s.raw)) {
		s.problem("its size is %d, that of %s in the registry is %d", r.Size, r.Digest, len(s.raw))
	}
	if r.MediaType != s.desc.MediaType {
		s.problem("its media type is %s, that of %s in the registry is %s", r.MediaType, r.Digest, s.desc.MediaType)
	}
}

// candidates are the names under which the source may be found: the first
// destination and where it was pushed to; for a bare digest, which does not say
// that, every destination.
func (s *source) candidates(repos []registry.Ref) ([]registry.Ref, error) {
	if !s.isRecord() {
		return []registry.Ref{s.ref}, nil
	}
	if !s.bare() {
		image, err := registry.ParseRef(s.found.Record.Image)
		if err != nil {
			return nil, err
		}
		repos = append(slices.Clone(repos[:min(1, len(repos))]), image.WithTag(""))
		repos = slices.Compact(repos)
	}
	var out []registry.Ref
	for _, repo := range repos {
		out = append(out, repo.WithDigest(s.found.Record.Digest))
	}
	if len(out) == 0 {
		return nil, errors.New("a digest alone does not say where the image is: give a destination in its repository")
	}
	return out, nil
}

// fetch looks for the manifest, more than once if it is not there. Without an
// error and without bytes the reason is among the problems.
func (s *source) fetch(ctx context.Context, reg Reader, repos []registry.Ref, wait []time.Duration) error {
	refs, err := s.candidates(repos)
	if err != nil {
		s.problem("%v", err)
		return nil
	}
	if s.existing {
		wait = nil // it may well be that there is none
	}
	for try := 0; ; try++ {
		missing, err := s.fetchOnce(ctx, reg, refs)
		if err != nil || !missing {
			return err
		}
		if try >= len(wait) {
			break
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait[try]):
		}
	}
	switch {
	case s.existing:
		s.notice("it does not exist yet, so there is nothing to append to")
	case !s.isRecord():
		s.problem("it is not there: check its name, tag or digest")
	default:
		var names []string
		for _, ref := range refs {
			names = append(names, ref.Name())
		}
		s.problem("%s is not in %s: it was pushed elsewhere, or has been deleted", s.found.Record.Digest, list(names))
	}
	return nil
}

func (s *source) fetchOnce(ctx context.Context, reg Reader, refs []registry.Ref) (missing bool, _ error) {
	var denied error
	for _, ref := range refs {
		desc, raw, err := reg.Manifest(ctx, ref)
		switch {
		case err == nil:
			s.repo, s.desc, s.raw = ref.WithTag(""), desc, raw
			return false, nil
		case errors.Is(err, registry.ErrNotFound):
		case errors.Is(err, registry.ErrCorrupt):
			s.problem("%v", err)
			return false, nil
		case errors.Is(err, registry.ErrDenied):
			// Some registries answer so for a repository that the first push
			// will create.
			if denied == nil {
				denied = fmt.Errorf("reading %s: %w", ref, err)
			}
		default:
			return false, fmt.Errorf("reading %s: %w", ref, err)
		}
	}
	return denied == nil, denied
}
