package merge

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/annotation"
	"github.com/org/kaniko-multiarch/internal/platform"
)

// annotations are what the user asked for, by where it belongs.
type annotations struct {
	index map[string]string
	// entries belong to descriptors, by canonical platform; "" is all of them.
	entries map[string]map[string]string
}

func parseAnnotations(lines []string) (annotations, error) {
	a := annotations{index: map[string]string{}, entries: map[string]map[string]string{}}
	for _, line := range lines {
		if strings.TrimSpace(line) == "" {
			continue
		}
		list, err := annotation.Parse(line, annotation.Index)
		if err != nil {
			return annotations{}, usage("%w", err)
		}
		for _, one := range list {
			if err := a.put(one); err != nil {
				return annotations{}, usage("annotation %q: %w", line, err)
			}
		}
	}
	return a, nil
}

func (a annotations) put(one annotation.Annotation) error {
	switch one.Place {
	case annotation.Index:
		return set(a.index, one.Key, one.Value)
	case annotation.ManifestDescriptor:
		if a.entries[one.Platform] == nil {
			a.entries[one.Platform] = map[string]string{}
		}
		return set(a.entries[one.Platform], one.Key, one.Value)
	case annotation.Manifest:
		return fmt.Errorf("the images are pushed already, merge does not change them; annotate manifests when building, or use index: or manifest-descriptor: here")
	}
	return fmt.Errorf("an index in a registry has no descriptor; use index")
}

// set refuses to choose between two values of the user's.
func set(to map[string]string, key, value string) error {
	if old, ok := to[key]; ok && old != value {
		return fmt.Errorf("%s is given twice with different values, the other is %q", key, old)
	}
	to[key] = value
	return nil
}

// annotate puts annotations on the descriptors: the record's, then the user's
// for all platforms, then the user's for one. Nothing is ever dropped: what has
// no place is a problem.
func (m *merger) annotate(mediaType string) {
	names := []string{""}
	keys := map[string]bool{}
	for key := range m.annotations.index {
		keys[key] = true
	}
	for _, c := range m.children {
		name := platform.Format(c.platform)
		names = append(names, name)
		all := map[string]string{}
		maps.Copy(all, c.found.Record.Annotations)
		for _, more := range []map[string]string{m.annotations.entries[""], m.annotations.entries[name]} {
			for _, key := range slices.Sorted(maps.Keys(more)) {
				if old, ok := c.found.Record.Annotations[key]; ok && old != more[key] {
					m.notice("%s: annotation %s=%s of the record gives way to %s", c.found, key, old, more[key])
				}
				all[key] = more[key]
			}
		}
		if len(all) > 0 {
			c.desc.Annotations = all
		}
		for key := range all {
			keys[key] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.annotations.entries)) {
		if !slices.Contains(names, name) {
			m.problem("an annotation is meant for %s, which is not in the index", name)
		}
	}
	if mediaType != ocispecs.MediaTypeImageIndex && len(keys) > 0 {
		m.problem("a Docker manifest list cannot hold annotations, and these would be lost: %s; use oci-mode=oci, or leave them out",
			strings.Join(slices.Sorted(maps.Keys(keys)), ", "))
	}
}
