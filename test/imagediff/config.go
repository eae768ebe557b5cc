package imagediff

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// config is an image's config as it is written, fields that no library knows included.
type config map[string]any

func readConfig(img v1.Image) (config, error) {
	raw, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	var c config
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("reading the config: %w", err)
	}
	return c, nil
}

// untimed removes all that depends on when the image was built. The diff IDs are
// among it, as layers hold file times; how many there are stays.
func (c config) untimed() {
	delete(c, "created")
	if history, ok := c["history"].([]any); ok {
		for _, step := range history {
			if step, ok := step.(map[string]any); ok {
				delete(step, "created")
			}
		}
	}
	if rootfs, ok := c["rootfs"].(map[string]any); ok {
		ids, _ := rootfs["diff_ids"].([]any) // null is none
		rootfs["diff_ids"] = len(ids)
	}
}

// values compares two values out of JSON and names the innermost that differ.
func (r *report) values(name string, a, b any) {
	switch a := a.(type) {
	case map[string]any:
		if b, ok := b.(map[string]any); ok {
			r.objects(name, a, b)
			return
		}
	case []any:
		// Steps of a history are compared one by one; other lists read better whole.
		if b, ok := b.([]any); ok && name == "history" {
			r.lists(name, a, b)
			return
		}
	}
	r.differ(name, text(a), text(b))
}

func (r *report) objects(name string, a, b map[string]any) {
	keys := maps.Clone(a)
	maps.Copy(keys, b)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		inner := key
		if name != "" {
			inner = name + "." + key
		}
		r.values(inner, a[key], b[key])
	}
}

func (r *report) lists(name string, a, b []any) {
	for i := range max(len(a), len(b)) {
		var va, vb any
		if i < len(a) {
			va = a[i]
		}
		if i < len(b) {
			vb = b[i]
		}
		r.values(fmt.Sprintf("%s[%d]", name, i), va, vb)
	}
}

// text is a value as JSON; one that is absent is "none".
func text(v any) string {
	if v == nil {
		return "none"
	}
	out, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(out)
}
