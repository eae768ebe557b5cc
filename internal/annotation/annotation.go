// Package annotation reads the annotations that users write: the grammar of
// docker buildx, PLACE[PLATFORM],PLACE:KEY=VALUE.
//
// It must not know which places a command can serve.
package annotation

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/org/kaniko-multiarch/internal/platform"
)

// Place is what an annotation is put on.
type Place string

const (
	Index              Place = "index"
	IndexDescriptor    Place = "index-descriptor"
	Manifest           Place = "manifest"
	ManifestDescriptor Place = "manifest-descriptor"
)

// Annotation is one key and value for one place.
type Annotation struct {
	Place Place
	// Platform, in canonical form, narrows Place to one image; empty is all.
	Platform   string
	Key, Value string
}

var (
	prefix = regexp.MustCompile(`^([a-z-]+(?:\[[^\],]*\])?(?:,[a-z-]+(?:\[[^\],]*\])?)*):(.+)$`)
	place  = regexp.MustCompile(`^([a-z-]+)(?:\[(.*)\])?$`)
)

// isPlaces tells a prefix that nothing follows.
func isPlaces(key string) bool {
	rest, ok := strings.CutSuffix(key, ":")
	return ok && prefix.MatchString(rest+":x")
}

// Parse reads one line. A key without a prefix belongs to byDefault.
func Parse(line string, byDefault Place) ([]Annotation, error) {
	line = strings.TrimSpace(line)
	// A platform never holds a '=', so the first one ends the key.
	key, value, ok := strings.Cut(line, "=")
	if !ok {
		return nil, fmt.Errorf("annotation %q: write it as KEY=VALUE", line)
	}
	places := []string{string(byDefault)}
	if m := prefix.FindStringSubmatch(key); m != nil {
		places, key = strings.Split(m[1], ","), m[2]
	}
	if strings.TrimSpace(key) == "" || strings.HasPrefix(key, ":") || isPlaces(key) {
		return nil, fmt.Errorf("annotation %q: its key is empty", line)
	}
	var out []Annotation
	for _, p := range places {
		m := place.FindStringSubmatch(p)
		a := Annotation{Place: Place(m[1]), Key: key, Value: value}
		switch a.Place {
		case Index, IndexDescriptor, Manifest, ManifestDescriptor:
		default:
			return nil, fmt.Errorf("annotation %q: %q is no place for an annotation: use index, manifest or manifest-descriptor", line, m[1])
		}
		if strings.Contains(p, "[") {
			if a.Place == Index || a.Place == IndexDescriptor {
				return nil, fmt.Errorf("annotation %q: an index is of no platform: use manifest-descriptor[%s]", line, m[2])
			}
			of, err := platform.Parse(m[2])
			if err != nil {
				return nil, fmt.Errorf("annotation %q: %w", line, err)
			}
			a.Platform = platform.Format(of)
		}
		out = append(out, a)
	}
	return out, nil
}
