package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/matrix"
)

// buildEntry is one element of --builds. Its names are those of the flags and of
// build-push-action.
type buildEntry struct {
	Image      string   `yaml:"image"`
	Tags       textList `yaml:"tags"`
	Target     *string  `yaml:"target"`
	Context    string   `yaml:"context"`
	Dockerfile string   `yaml:"dockerfile"`
	File       string   `yaml:"file"`
	BuildArgs  argList  `yaml:"build-args"`
	Platforms  textList `yaml:"platforms"`
	Key        string   `yaml:"key"`
}

// textList is a YAML list, or a text with commas or lines.
type textList []string

func (l *textList) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		*l = splitList([]string{node.Value})
		return nil
	}
	var list []string
	err := node.Decode(&list)
	*l = append(textList{}, list...)
	return err
}

// argList is a YAML list of NAME=VALUE, a map, or a text of lines.
type argList map[string]string

func (l *argList) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.MappingNode {
		var values map[string]string
		err := node.Decode(&values)
		*l = values
		return err
	}
	var lines []string
	if node.Kind == yaml.ScalarNode {
		lines = splitLines([]string{node.Value})
	} else if err := node.Decode(&lines); err != nil {
		return err
	}
	var err error
	*l, err = pairs("build-args", lines, nil)
	return err
}

// readBuilds reads YAML, or a file with it, into images. What an entry leaves
// out is that of base.
func readBuilds(text string, base matrix.Image) ([]matrix.Image, error) {
	text = strings.TrimSpace(text)
	data := []byte(text)
	if !strings.HasPrefix(text, "[") && !strings.HasPrefix(text, "-") {
		var err error
		if data, err = os.ReadFile(text); err != nil {
			return nil, fmt.Errorf("%w; give a YAML list, or a file with one", err)
		}
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var entries []buildEntry
	if err := dec.Decode(&entries); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var out []matrix.Image
	for i, e := range entries {
		img, err := e.image(base)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		}
		out = append(out, img)
	}
	return out, nil
}

func (e buildEntry) image(base matrix.Image) (matrix.Image, error) {
	img := base
	set := func(to *string, value string) {
		if value != "" {
			*to = value
		}
	}
	if e.Image != "" || len(e.Tags) > 0 {
		img.Image = "" // that of the first tag
	}
	set(&img.Image, e.Image)
	if e.Dockerfile != "" && e.File != "" {
		return img, fmt.Errorf("file and dockerfile are one thing: give one")
	}
	set(&img.Dockerfile, e.Dockerfile+e.File)
	set(&img.Context, e.Context)
	set(&img.Key, e.Key)
	if e.Target != nil {
		img.Target = *e.Target
	}
	if e.Tags != nil {
		img.Tags = e.Tags
	}
	args := map[string]string{}
	for _, a := range base.BuildArgs {
		name, value, _ := strings.Cut(a, "=")
		args[name] = value
	}
	for name, value := range e.BuildArgs {
		args[name] = value
	}
	img.BuildArgs = resolved(args)
	if e.Platforms != nil {
		var err error
		if img.Platforms, err = platform.ParseList(e.Platforms); err != nil {
			return img, err
		}
	}
	return img, nil
}
