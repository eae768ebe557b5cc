package merge

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/annotation"
	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/record"
)

// annotations are what the user asked for, by where it belongs.
type annotations struct {
	index, indexDescriptor map[string]string
	// entries belong to descriptors, manifests to the images, by canonical
	// platform; "" is all of them.
	entries, manifests map[string]map[string]string
}

// parseAnnotations reads the user's lines. Only a layout has an entry for the
// index.
func parseAnnotations(lines []string, layout bool) (annotations, error) {
	a := annotations{
		index: map[string]string{}, indexDescriptor: map[string]string{},
		entries: map[string]map[string]string{}, manifests: map[string]map[string]string{},
	}
	for _, line := range lines {
		if strings.TrimSpace(line) == "" {
			continue
		}
		list, err := annotation.Parse(line, annotation.Index)
		if err != nil {
			return annotations{}, usage("%w", err)
		}
		for _, one := range list {
			if one.Place == annotation.IndexDescriptor && !layout {
				err = errors.New("an index in a registry has no descriptor; use index, or write it to an OCI layout (--oci-layout)")
			} else {
				err = a.put(one)
			}
			if err != nil {
				return annotations{}, usage("annotation %q: %w", line, err)
			}
		}
	}
	return a, nil
}

func (a annotations) put(one annotation.Annotation) error {
	switch one.Place {
	case annotation.Index:
		return set(a.index, one)
	case annotation.IndexDescriptor:
		return set(a.indexDescriptor, one)
	case annotation.Manifest:
		return set(of(a.manifests, one.Platform), one)
	case annotation.ManifestDescriptor:
		return set(of(a.entries, one.Platform), one)
	}
	return fmt.Errorf("%s is no place for an annotation", one.Place)
}

func of(all map[string]map[string]string, platform string) map[string]string {
	if all[platform] == nil {
		all[platform] = map[string]string{}
	}
	return all[platform]
}

// set refuses to choose between two values of the user's.
func set(to map[string]string, one annotation.Annotation) error {
	if old, ok := to[one.Key]; ok && old != one.Value {
		return fmt.Errorf("%s is given twice with different values, the other is %q", one.Key, old)
	}
	to[one.Key] = one.Value
	return nil
}

// annotate puts annotations on the images and their descriptors: the record's,
// then the user's for all platforms, then the user's for one. Nothing is ever
// dropped: what has no place is a problem.
func (m *merger) annotate(mediaType string) {
	keys := slices.Collect(maps.Keys(m.annotations.index))
	for _, c := range m.children {
		m.annotateManifest(c)
		all := maps.Clone(c.desc.Annotations)
		if all == nil {
			all = map[string]string{}
		}
		recorded := c.source.found.Record.Annotations
		maps.Copy(all, recorded)
		for _, more := range c.pick(m.annotations.entries) {
			for _, key := range slices.Sorted(maps.Keys(more)) {
				if old, ok := recorded[key]; ok && old != more[key] {
					m.notice("%s: annotation %s=%s of the record gives way to %s", c.source, key, old, more[key])
				}
				all[key] = more[key]
			}
		}
		if len(all) > 0 {
			c.desc.Annotations = all
		}
		keys = slices.AppendSeq(keys, maps.Keys(all))
	}
	m.checkPlaces()
	if mediaType != ocispecs.MediaTypeImageIndex && len(keys) > 0 {
		slices.Sort(keys)
		m.problem("a Docker manifest list cannot hold annotations, and these would be lost: %s; use oci-mode=oci, or leave them out",
			strings.Join(slices.Compact(keys), ", "))
	}
}

// pick are the annotations for c: those for all, then those for its platform.
func (c *child) pick(from map[string]map[string]string) []map[string]string {
	out := []map[string]string{from[""], from[platform.Format(c.platform)]}
	if full := c.name(); full != platform.Format(c.platform) {
		out = append(out, from[full])
	}
	return out
}

// checkPlaces finds annotations for a platform that is not there.
func (m *merger) checkPlaces() {
	wanted := map[string]bool{}
	for _, all := range []map[string]map[string]string{m.annotations.entries, m.annotations.manifests} {
		for name := range all {
			wanted[name] = true
		}
	}
	delete(wanted, "")
	for _, c := range m.children {
		delete(wanted, platform.Format(c.platform))
		delete(wanted, c.name())
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		m.problem("an annotation is meant for %s, which is not in the index", name)
	}
}

// annotateManifest changes an image that lacks an annotation of its own. One
// that has it, because its build got it too, keeps its digest.
func (m *merger) annotateManifest(c *child) {
	add := map[string]string{}
	for _, more := range c.pick(m.annotations.manifests) {
		maps.Copy(add, more)
	}
	if len(add) == 0 || c.desc.Digest == "" {
		return
	}
	if !c.source.pushed() {
		m.notice("%s: its manifest is not there to be annotated, so its digest would be another", c.source)
		return
	}
	if c.desc.MediaType != ocispecs.MediaTypeImageManifest {
		m.problem("%s: %s is %s, which cannot hold annotations; use oci-mode=oci", c.source, c.built, c.desc.MediaType)
		return
	}
	var manifest ocispecs.Manifest
	if err := json.Unmarshal(c.manifest, &manifest); err != nil {
		m.problem("%s: %v", c.source, err)
		return
	}
	old := maps.Clone(manifest.Annotations)
	if manifest.Annotations == nil {
		manifest.Annotations = map[string]string{}
	}
	maps.Copy(manifest.Annotations, add)
	if maps.Equal(old, manifest.Annotations) {
		return
	}
	if err := c.rewrite(manifest); err != nil {
		m.problem("%s: %v", c.source, err)
		return
	}
	m.notice("%s: annotating the manifest of %s makes %s of %s", c.source, c.name(), c.desc.Digest, c.built)
}

// rewrite replaces the image's manifest.
func (c *child) rewrite(manifest ocispecs.Manifest) error {
	data, err := encode(manifest)
	if err != nil {
		return err
	}
	c.manifest, c.changed = data, true
	c.desc.MediaType = manifest.MediaType
	c.desc.Digest = digest.FromBytes(data)
	c.desc.Size = int64(len(data))
	return nil
}

// indexAnnotations are those of the index: of an index that is kept, then of
// the CI run, then the user's.
func (m *merger) indexAnnotations(mediaType string) map[string]string {
	all := map[string]string{}
	if kept := m.kept(); kept != nil {
		maps.Copy(all, kept.index.Annotations)
	}
	standard := m.standard()
	if mediaType == ocispecs.MediaTypeImageIndex {
		maps.Copy(all, standard)
	} else if len(standard) > 0 {
		m.notice("a Docker manifest list cannot hold the CI run's annotations, so they are left out: %s", strings.Join(slices.Sorted(maps.Keys(standard)), ", "))
	}
	maps.Copy(all, m.annotations.index)
	return all
}

// kept is the index that the result goes on from: the one that is appended to,
// or the only source.
func (m *merger) kept() *source {
	for _, s := range m.sources {
		if s.index != nil && !s.isRecord() && (s.existing || len(m.sources) == 1) {
			return s
		}
	}
	return nil
}

// standard are the annotations that follow from the CI run. What was built
// counts: the records know its commit better than the job that merges them.
func (m *merger) standard() map[string]string {
	var built *record.Record
	for _, s := range m.records() {
		if built == nil || built.Revision == "" || built.Revision == s.found.Record.Revision && built.Committed.IsZero() {
			built = &s.found.Record
		}
	}
	if built == nil {
		return nil
	}
	all := maps.Clone(m.opts.Standard)
	if all == nil || built.Revision == "" {
		return all
	}
	if all[ocispecs.AnnotationRevision] != built.Revision {
		delete(all, ocispecs.AnnotationVersion)
		delete(all, ocispecs.AnnotationCreated)
	}
	all[ocispecs.AnnotationRevision] = built.Revision
	if !built.Committed.IsZero() {
		all[ocispecs.AnnotationCreated] = built.Committed.UTC().Format(time.RFC3339)
	}
	return all
}
