package matrix

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/platform"
)

// Dimension is something that images of one matrix differ in.
type Dimension struct {
	// Name is image, target, dockerfile, context, or the name of a build
	// argument; build-arg:NAME is one for certain.
	Name   string
	Values []string
}

// Selection is a set of NAME=VALUE that picks combinations. The name platform
// may occur more than once.
type Selection struct {
	Values    map[string]string
	Platforms []ocispecs.Platform
}

var argument = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ParseDimension reads NAME=VALUE,VALUE or NAME=["VALUE","VALUE"].
func ParseDimension(line string) (Dimension, error) {
	name, text, ok := strings.Cut(line, "=")
	d := Dimension{Name: dimensionName(name)}
	if !ok || !validDimension(d.Name) {
		return d, fmt.Errorf("dimension %q: write it as NAME=VALUE,VALUE; NAME is image, target, dockerfile, context or a build argument", line)
	}
	if text = strings.TrimSpace(text); strings.HasPrefix(text, "[") {
		if err := json.Unmarshal([]byte(text), &d.Values); err != nil {
			return d, fmt.Errorf("dimension %q: not a JSON array of texts: %w", line, err)
		}
	} else if text != "" {
		for _, v := range strings.Split(text, ",") {
			d.Values = append(d.Values, strings.TrimSpace(v))
		}
	}
	for i, v := range d.Values {
		if slices.Contains(d.Values[:i], v) {
			return d, fmt.Errorf("dimension %q: %q is there twice", line, v)
		}
	}
	return d, nil
}

func dimensionName(name string) string {
	switch name = strings.TrimSpace(name); name {
	case "file":
		return "dockerfile"
	case "tag", "tags", "platforms", "key":
		return "" // made of the others, or with a place of its own
	}
	return name
}

func validDimension(name string) bool {
	name, _ = strings.CutPrefix(name, "build-arg:")
	return argument.MatchString(name) && name != "platform"
}

// ParseSelection reads NAME=VALUE,NAME=VALUE. The names are those of dims, or
// platform.
func ParseSelection(line string, dims []Dimension) (Selection, error) {
	s := Selection{Values: map[string]string{}}
	for pair := range strings.SplitSeq(line, ",") {
		name, value, ok := strings.Cut(pair, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok {
			return s, fmt.Errorf("%q: write it as NAME=VALUE,NAME=VALUE", line)
		}
		if name == "platform" {
			p, err := platform.Parse(value)
			if err != nil {
				return s, fmt.Errorf("%q: %w", line, err)
			}
			s.Platforms = append(s.Platforms, p)
			continue
		}
		name = dimensionName(name)
		if !slices.ContainsFunc(dims, func(d Dimension) bool { return d.Name == name }) {
			return s, fmt.Errorf("%q: there is no dimension %q", line, name)
		}
		if _, twice := s.Values[name]; twice {
			return s, fmt.Errorf("%q: %s is given twice", line, name)
		}
		s.Values[name] = value
	}
	return s, nil
}

// Product makes an image of every combination of the dimensions' values.
// Exclude takes combinations out, or some of their platforms; then include adds
// some. {NAME} in texts of base stands for the value of that dimension. A
// dimension without values makes no images.
func Product(base Image, dims []Dimension, include, exclude []Selection) ([]Image, error) {
	for i, d := range dims {
		if slices.ContainsFunc(dims[:i], func(o Dimension) bool { return o.Name == d.Name }) {
			return nil, fmt.Errorf("dimension %s is given twice", d.Name)
		}
	}
	all := []combination{{values: map[string]string{}, platforms: base.Platforms}}
	for _, d := range dims {
		var next []combination
		for _, c := range all {
			for _, v := range d.Values {
				next = append(next, c.with(d.Name, v))
			}
		}
		all = next
	}
	for _, s := range exclude {
		all = exclusion(all, s)
	}
	for _, s := range include {
		all = inclusion(all, s, base.Platforms)
	}
	var out []Image
	for _, c := range all {
		out = append(out, c.image(base, dims))
	}
	return out, nil
}

// combination is a value for each dimension. One that was included may lack
// some.
type combination struct {
	values    map[string]string
	platforms []ocispecs.Platform
}

func (c combination) with(name, value string) combination {
	values := map[string]string{name: value}
	for k, v := range c.values {
		values[k] = v
	}
	return combination{values, c.platforms}
}

func (c combination) matches(s Selection) bool {
	for name, value := range s.Values {
		if c.values[name] != value {
			return false
		}
	}
	return true
}

func exclusion(all []combination, s Selection) []combination {
	var out []combination
	for _, c := range all {
		if c.matches(s) {
			if len(s.Platforms) == 0 {
				continue
			}
			c.platforms = slices.DeleteFunc(slices.Clone(c.platforms), func(p ocispecs.Platform) bool { return contains(s.Platforms, p) })
		}
		out = append(out, c)
	}
	return out
}

// inclusion adds platforms to a combination that is there, or a combination.
func inclusion(all []combination, s Selection, platforms []ocispecs.Platform) []combination {
	if len(s.Platforms) > 0 {
		platforms = s.Platforms
	}
	for i, c := range all {
		if len(c.values) == len(s.Values) && c.matches(s) {
			all[i].platforms = append(slices.Clone(c.platforms), slices.DeleteFunc(slices.Clone(platforms), func(p ocispecs.Platform) bool { return contains(c.platforms, p) })...)
			return all
		}
	}
	return append(all, combination{s.Values, platforms})
}

func contains(list []ocispecs.Platform, p ocispecs.Platform) bool {
	return slices.ContainsFunc(list, func(q ocispecs.Platform) bool { return platform.Equal(p, q) })
}

// image puts the values into base.
func (c combination) image(base Image, dims []Dimension) Image {
	img := base
	img.Platforms = c.platforms
	img.BuildArgs = slices.Clone(base.BuildArgs)
	var pairs, labels []string
	for _, d := range dims {
		value, ok := c.values[d.Name]
		pairs = append(pairs, "{"+strings.TrimPrefix(d.Name, "build-arg:")+"}", value)
		if !ok {
			continue
		}
		switch d.Name {
		case "image":
			img.Image = value
		case "target":
			img.Target = value
		case "dockerfile":
			img.Dockerfile = value
		case "context":
			img.Context = value
		default:
			name := strings.TrimPrefix(d.Name, "build-arg:")
			img.BuildArgs = slices.DeleteFunc(img.BuildArgs, func(arg string) bool { return strings.HasPrefix(arg, name+"=") })
			img.BuildArgs = append(img.BuildArgs, name+"="+value)
		}
		if d.Name != "image" && d.Name != "target" {
			labels = append(labels, value)
		}
	}
	r := strings.NewReplacer(pairs...)
	img.Label = strings.Join(labels, " ")
	img.Image, img.Target, img.Dockerfile = r.Replace(img.Image), r.Replace(img.Target), r.Replace(img.Dockerfile)
	img.Context, img.Key = r.Replace(img.Context), r.Replace(img.Key)
	img.Tags, img.BuildArgs = replaceAll(r, img.Tags), replaceAll(r, img.BuildArgs)
	return img
}

func replaceAll(r *strings.Replacer, list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = r.Replace(s)
	}
	return out
}
