package cli

import (
	"encoding/csv"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// attributes are the keys of one output or cache; what is taken is gone.
type attributes struct {
	values map[string]string
	err    error
}

// parseAttributes reads KEY=VALUE,KEY=VALUE, in which a value may be quoted as in
// CSV. It returns nil for a line that is one word.
func parseAttributes(line string) (*attributes, error) {
	fields, err := csv.NewReader(strings.NewReader(line)).Read()
	if err != nil {
		return nil, err
	}
	if len(fields) == 1 && !strings.Contains(line, "=") {
		return nil, nil
	}
	a := &attributes{values: map[string]string{}}
	for _, field := range fields {
		name, value, ok := strings.Cut(field, "=")
		if !ok {
			return nil, fmt.Errorf("%q: want KEY=VALUE", field)
		}
		name = strings.TrimSpace(name)
		key := strings.ToLower(name)
		if i := strings.IndexAny(name, ".["); i >= 0 {
			key = strings.ToLower(name[:i]) + name[i:] // an annotation's name
		}
		if _, ok := a.values[key]; ok && key != "name" {
			return nil, fmt.Errorf("%s is given twice", key)
		}
		a.values[key] = value
	}
	return a, nil
}

func (a *attributes) keys() []string { return slices.Sorted(maps.Keys(a.values)) }

func (a *attributes) take(key string) string {
	v := a.values[key]
	delete(a.values, key)
	return v
}

// flag takes a boolean; nil when it is not given.
func (a *attributes) flag(key string) *bool {
	v, ok := a.values[key]
	if !ok {
		return nil
	}
	delete(a.values, key)
	b, err := strconv.ParseBool(v)
	if err != nil {
		a.err = fmt.Errorf("%s=%s: use true or false", key, v)
		return nil
	}
	return &b
}

func (a *attributes) rest(kind string) error {
	if a.err != nil {
		return a.err
	}
	if keys := a.keys(); len(keys) > 0 {
		return fmt.Errorf("%s is unknown for type=%s", keys[0], kind)
	}
	return nil
}
