package local

import (
	"maps"
	"os"
	"slices"

	"github.com/org/kaniko-multiarch/internal/build"
)

// Secrets are values by their ID.
type Secrets map[string][]byte

// ReadSecrets reads the values from files and variables.
func ReadSecrets(list []build.Secret, lookup func(string) (string, bool)) (Secrets, error) {
	out := Secrets{}
	for _, s := range list {
		if _, ok := out[s.ID]; ok {
			return nil, badInput("secret %q is given twice", s.ID)
		}
		if s.Env != "" {
			// An empty value counts: a fork's pipeline gets one.
			value, ok := lookup(s.Env)
			if !ok {
				return nil, badInput("secret %q: the variable %s is not set: set it, or give id=%s,src=FILE", s.ID, s.Env, s.ID)
			}
			out[s.ID] = []byte(value)
			continue
		}
		data, err := os.ReadFile(s.File)
		if err != nil {
			return nil, badInput("secret %q: %w", s.ID, err)
		}
		out[s.ID] = data
	}
	return out, nil
}

// Values are what must not be shown, sorted.
func (s Secrets) Values() []string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(s)) {
		out = append(out, string(s[id]))
	}
	return out
}
