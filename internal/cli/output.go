package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/org/kaniko-multiarch/internal/build"
)

// outputFlags say where the result goes.
type outputFlags struct {
	Output []string `short:"o" sep:"none" help:"DIRECTORY, or type=registry|oci|docker|tar|local,dest=PATH,...: where the result goes; then nothing is pushed besides."`
	Load   bool     `help:"Load the image into the Docker engine (short for --output type=docker)."`
}

// options reads the outputs into o. As in buildx, an output replaces the push
// that is the default otherwise; pushed says that one was asked for.
func (f outputFlags) options(o *build.Options, pushed bool) error {
	lines := splitLines(f.Output)
	if f.Load {
		lines = append(lines, "type=docker")
	}
	p := outputParser{o: o}
	for _, line := range lines {
		if err := p.parse(line); err != nil {
			return usagef("--output %s: %w", line, err)
		}
	}
	if len(lines) > 0 && !pushed && !p.push {
		o.NoPush = true
	}
	return nil
}

// outputParser reads several outputs. What makes the image, such as its
// compression, holds for all of them: two values are an error.
type outputParser struct {
	o    *build.Options
	push bool
	// set are image options that an earlier output gave.
	set map[string]string
}

func (p *outputParser) parse(line string) error {
	a, err := parseAttributes(line)
	switch {
	case err != nil:
		return err
	case a != nil:
		return p.output(a)
	case line == "-":
		return p.add(build.Output{Type: "tar", Dest: "-"})
	}
	return p.add(build.Output{Type: "local", Dest: line})
}

func (p *outputParser) output(a *attributes) error {
	out := build.Output{Type: a.take("type"), Dest: a.take("dest")}
	switch out.Type {
	case "local", "tar":
		out.Split = a.flag("platform-split")
		if mode := a.take("mode"); mode != "" && mode != "copy" {
			return fmt.Errorf("mode=%s is not supported: empty the directory yourself and use mode=copy", mode)
		}
	case "registry", "image", "oci", "docker":
		if err := p.image(&out, a); err != nil {
			return err
		}
	case "":
		return fmt.Errorf("type is missing: use registry, oci, docker, tar or local")
	default:
		return fmt.Errorf("type=%s is unknown: use registry, oci, docker, tar or local", out.Type)
	}
	if err := a.rest(out.Type); err != nil {
		return err
	}
	if out.Type == "registry" || out.Type == "image" {
		return nil
	}
	return p.add(out)
}

// add completes an output with the defaults of buildx.
func (p *outputParser) add(out build.Output) error {
	switch {
	case out.Type == "local" && out.Dest == "", out.Directory && out.Dest == "":
		return fmt.Errorf("dest is missing: give the directory, dest=DIR")
	case (out.Type == "local" || out.Directory) && out.Dest == "-":
		return fmt.Errorf("dest=-: a directory cannot go to standard output: use type=tar")
	case out.Dest == "" && out.Type != "docker":
		out.Dest = "-"
	}
	if out.Dest == "-" && slices.ContainsFunc(p.o.Outputs, func(o build.Output) bool { return o.Dest == "-" }) {
		return fmt.Errorf("two outputs cannot both go to standard output: give dest=FILE")
	}
	p.o.Outputs = append(p.o.Outputs, out)
	return nil
}

// image reads what only images have.
func (p *outputParser) image(out *build.Output, a *attributes) error {
	registry := out.Type == "registry" || out.Type == "image"
	names := splitList([]string{a.take("name")})
	push := a.flag("push")
	switch {
	case registry && out.Dest != "":
		return fmt.Errorf("dest=%s: an image in a registry has a name: use name=REPO:TAG", out.Dest)
	case registry && (push == nil && out.Type == "image" || push != nil && !*push):
		return fmt.Errorf("type=%s without push=true keeps the image nowhere: use type=registry, oci or docker", out.Type)
	case !registry && push != nil && *push:
		return fmt.Errorf("push=true: add a second --output type=registry")
	}
	if registry {
		p.push = true
		p.o.Destinations = append(p.o.Destinations, names...)
		if byDigest := a.flag("push-by-digest"); byDigest != nil {
			p.o.PushByDigest = p.o.PushByDigest || *byDigest
		}
		_ = a.flag("name-canonical") // names are printed with their digest anyway
		if insecure := a.flag("registry.insecure"); insecure != nil && *insecure {
			return fmt.Errorf("registry.insecure: use --insecure-registry HOST")
		}
	} else {
		out.Names = names
	}
	if tar := a.flag("tar"); tar != nil {
		if out.Type != "oci" && !*tar {
			return fmt.Errorf("tar=false: only type=oci can be a directory")
		}
		out.Directory = !*tar
	}
	return p.imageOptions(a)
}

// imageOptions reads what changes the image itself.
func (p *outputParser) imageOptions(a *attributes) error {
	for key, alternative := range map[string]string{
		"oci-mediatypes": "", "force-compression": "layers of base images are pushed as they are",
		"unpack": "there is no store to unpack into", "store": "there is no store",
		"prefer-nondist-layers": "every layer is pushed", "dangling-name-prefix": "give a name",
	} {
		value, given := a.values[key]
		on := a.flag(key)
		switch {
		case !given:
		case key == "oci-mediatypes" && on != nil && !*on:
			return fmt.Errorf("oci-mediatypes=false: images are OCI images, which every registry and runtime of today reads: leave it out")
		case key != "oci-mediatypes" && (on == nil || *on):
			return fmt.Errorf("%s=%s is not supported: %s", key, value, alternative)
		}
	}
	if v := a.once(p, "compression"); v != "" {
		if v != "gzip" && v != "zstd" {
			return fmt.Errorf("compression=%s is not supported: use gzip or zstd", v)
		}
		p.o.Compression = v
	}
	if v := a.once(p, "compression-level"); v != "" {
		level, err := strconv.Atoi(v)
		if err != nil {
			return fmt.Errorf("compression-level=%s: want a number", v)
		}
		p.o.CompressionLevel = level
	}
	if v := a.once(p, "source-date-epoch"); v != "" {
		seconds, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return fmt.Errorf("source-date-epoch=%s: want seconds since 1970", v)
		}
		p.o.SourceDateEpoch = &seconds
	}
	if on := a.flag("rewrite-timestamp"); on != nil && *on {
		p.o.RewriteTimestamp = true
	}
	for _, key := range a.keys() {
		if line, ok := annotationLine(key, a.values[key]); ok {
			a.take(key)
			p.o.Annotations = append(p.o.Annotations, line)
		}
	}
	return a.err
}

// annotationLine makes annotation.KEY, annotation-index.KEY and
// annotation-manifest[PLATFORM].KEY what --annotation takes.
func annotationLine(key, value string) (string, bool) {
	rest, ok := strings.CutPrefix(key, "annotation")
	if !ok {
		return "", false
	}
	end := strings.IndexByte(rest, '.')
	if open := strings.IndexByte(rest, '['); open >= 0 && open < end {
		if closing := strings.Index(rest, "]."); closing > 0 {
			end = closing + 1
		}
	}
	if end < 0 || end+1 == len(rest) {
		return "", false
	}
	place := strings.TrimPrefix(rest[:end], "-")
	if place == "" || place[0] == '[' {
		place = "manifest" + place
	}
	return place + ":" + rest[end+1:] + "=" + value, true
}

// once takes what all outputs must agree on.
func (a *attributes) once(p *outputParser, key string) string {
	v := a.take(key)
	if v == "" {
		return ""
	}
	if before, ok := p.set[key]; ok && before != v {
		a.err = fmt.Errorf("%s is %s in another output: one build makes one image: build twice", key, before)
	}
	if p.set == nil {
		p.set = map[string]string{}
	}
	p.set[key] = v
	return v
}

// toStdout reports whether standard output gets an archive; it then gets nothing
// else.
func toStdout(o build.Options) bool {
	return slices.ContainsFunc(o.Outputs, func(out build.Output) bool { return out.Dest == "-" })
}

// checkStdout keeps an archive off a person's screen.
func checkStdout(o build.Options, w io.Writer) error {
	f, ok := w.(*os.File)
	if !ok || !toStdout(o) {
		return nil
	}
	if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull {
		return usagef("--output: standard output is a terminal: give dest=FILE, or redirect it")
	}
	return nil
}
