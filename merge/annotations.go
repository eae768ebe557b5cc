package merge

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/platform"
)

// annotations are what the user asked for, by where it belongs.
type annotations struct {
	index map[string]string
	// entries belong to descriptors, by canonical platform; "" is all of them.
	entries map[string]map[string]string
}

// The grammar is that of docker buildx: TYPE[PLATFORM],TYPE:KEY=VALUE.
var (
	annotationPrefix = regexp.MustCompile(`^([a-z-]+(?:\[[^\],]*\])?(?:,[a-z-]+(?:\[[^\],]*\])?)*):(.*)$`)
	annotationType   = regexp.MustCompile(`^([a-z-]+)(?:\[(.*)\])?$`)
)

func parseAnnotations(lines []string) (annotations, error) {
	a := annotations{index: map[string]string{}, entries: map[string]map[string]string{}}
	for _, line := range lines {
		if strings.TrimSpace(line) == "" {
			continue
		}
		if err := a.parse(strings.TrimSpace(line)); err != nil {
			return annotations{}, usage("annotation %q: %w", line, err)
		}
	}
	return a, nil
}

func (a annotations) parse(line string) error {
	// A platform never holds a '=', so the first one ends the key.
	key, value, ok := strings.Cut(line, "=")
	if !ok {
		return fmt.Errorf("write it as KEY=VALUE")
	}
	places := []string{"index"}
	if m := annotationPrefix.FindStringSubmatch(key); m != nil {
		places, key = strings.Split(m[1], ","), m[2]
	}
	if strings.TrimSpace(key) == "" {
		return fmt.Errorf("its key is empty")
	}
	for _, place := range places {
		m := annotationType.FindStringSubmatch(place)
		if err := a.put(m[1], m[2], strings.Contains(place, "["), key, value); err != nil {
			return err
		}
	}
	return nil
}

func (a annotations) put(place, name string, narrowed bool, key, value string) error {
	switch place {
	case "index":
		if narrowed {
			return fmt.Errorf("an index is of no platform; use manifest-descriptor[%s]:", name)
		}
		return set(a.index, key, value)
	case "manifest-descriptor":
		if narrowed {
			p, err := platform.Parse(name)
			if err != nil {
				return err
			}
			name = platform.Format(p)
		}
		if a.entries[name] == nil {
			a.entries[name] = map[string]string{}
		}
		return set(a.entries[name], key, value)
	case "manifest":
		return fmt.Errorf("the images are pushed already, merge does not change them; annotate manifests when building, or use index: or manifest-descriptor: here")
	case "index-descriptor":
		return fmt.Errorf("an index in a registry has no descriptor; use index:")
	}
	return fmt.Errorf("%q is no place for an annotation; use index: or manifest-descriptor:", place)
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
