// Package frontend turns a Dockerfile into a graph. It is the only package that
// imports BuildKit's Dockerfile front end, which gives it the reference
// semantics of the language.
//
// It must not know how a graph runs or where an image is stored: it asks for
// image configs and reads files through interfaces that its caller gives it.
package frontend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	commonexptypes "github.com/moby/buildkit/exporter/exptypes"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/platform"
)

// Images finds the configs of base images.
type Images interface {
	// ImageConfig returns the digest that ref names now, of an index or of a
	// manifest, and the config of its image for p.
	ImageConfig(ctx context.Context, ref string, p ocispecs.Platform) (digest.Digest, []byte, error)
}

// Options say what to build.
type Options struct {
	// Dockerfile is the directory of the Dockerfile, Filename its name there.
	Dockerfile fs.FS
	Filename   string
	// DisplayName replaces Filename in messages; empty means Filename.
	DisplayName string
	// Contexts are the directories of the main context ("context") and the
	// named contexts that are directories.
	Contexts map[string]fs.FS
	// NamedImages are the named contexts that are something else, by name:
	// "docker-image://alpine:3".
	NamedImages map[string]string
	// Platforms are what to build for, at least one.
	Platforms []ocispecs.Platform
	// BuildPlatform is where steps run natively; nil means this machine's.
	BuildPlatform *ocispecs.Platform
	BuildArgs     map[string]string
	Labels        map[string]string
	Target        string
	// NoCache forbids earlier results, for all stages or those of
	// NoCacheFilter.
	NoCache       bool
	NoCacheFilter []string
	// AddHosts are HOST=IP.
	AddHosts []string
	// Network is that of steps that name none: default, host, none; empty is
	// default.
	Network string
	// Ulimits are NAME=SOFT[:HARD].
	Ulimits []string
	// ShmSize is that of /dev/shm in bytes; 0 is the default.
	ShmSize int64
	// AllowInsecure lets steps ask for --security=insecure.
	AllowInsecure bool
	Images        Images
}

// Warning is a finding of the Dockerfile's checks.
type Warning struct {
	File   string
	Line   int
	Text   string
	URL    string
	Detail string
}

// Result is a graph and what was noticed while it was made.
type Result struct {
	Graph    *graph.Graph
	Warnings []Warning
	// Epoch is SOURCE_DATE_EPOCH as the Dockerfile resolves it, if it does.
	Epoch *time.Time
}

// Load reads the Dockerfile and everything that its graph depends on, which is
// ignore files and the configs of base images. The error is an *Error when the
// Dockerfile is wrong; the result then has the warnings.
func Load(ctx context.Context, o Options) (*Result, error) {
	c := newClient(o)
	res, err := c.run(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return &Result{}, cause
	}
	if err != nil {
		return &Result{Warnings: c.warnings()}, locate(err, o)
	}
	b := &graphBuilder{file: o.displayName, vertices: map[digest.Digest]*graph.Vertex{}}
	out := &Result{}
	for _, p := range o.Platforms {
		id := platforms.FormatAll(platforms.Normalize(p))
		ref, ok := res.Refs[id]
		if !ok {
			return nil, fmt.Errorf("the front end gave no result for platform %s", platform.Format(p))
		}
		root, err := b.add(ref.(*lazyRef).def)
		if err != nil {
			return nil, locate(err, o)
		}
		b.graph.Images = append(b.graph.Images, &graph.Image{
			Platform: p,
			Root:     root,
			Config:   res.Metadata[exptypes.ExporterImageConfigKey+"/"+id],
		})
		if v, ok := res.Metadata[commonexptypes.ExporterEpochKey+"/"+id]; ok {
			seconds, err := strconv.ParseInt(string(v), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("reading SOURCE_DATE_EPOCH: %w", err)
			}
			t := time.Unix(seconds, 0).UTC()
			out.Epoch = &t
		}
	}
	out.Graph, out.Warnings = b.finish(), c.warnings()
	return out, o.entitled(out.Graph)
}

// entitled refuses steps that ask for more than the user allowed.
func (o *Options) entitled(g *graph.Graph) error {
	for _, v := range g.Vertices {
		if x, ok := v.Op.(*graph.Exec); ok && x.Insecure && !o.AllowInsecure {
			return &Error{File: v.Location.File, Line: v.Location.Start, Err: errors.New("RUN --security=insecure is not allowed: add --allow security.insecure if you trust this Dockerfile with the rights of the builder")}
		}
	}
	return nil
}

// displayName maps the name of a file as the front end knows it to the one that
// the user gave.
func (o *Options) displayName(name string) string {
	if o.DisplayName == "" {
		return name
	}
	if name == o.Filename || strings.EqualFold(name, path.Base(o.Filename)) {
		return o.DisplayName
	}
	return name
}

// attributes are the options under the names that the front end reads.
func (o *Options) attributes() map[string]string {
	list := make([]string, len(o.Platforms))
	for i, p := range o.Platforms {
		list[i] = platforms.FormatAll(p)
	}
	attrs := map[string]string{
		"platform":       strings.Join(list, ","),
		"multi-platform": "true",
		"filename":       o.Filename,
		"target":         o.Target,
	}
	for k, v := range o.BuildArgs {
		attrs["build-arg:"+k] = v
	}
	for k, v := range o.Labels {
		attrs["label:"+k] = v
	}
	for name, v := range o.NamedImages {
		attrs["context:"+contextName(name)] = v
	}
	for name := range o.Contexts {
		if name != mainContext {
			attrs["context:"+contextName(name)] = "local:" + name
		}
	}
	if o.NoCache {
		attrs["no-cache"] = "" // of all stages
	} else if len(o.NoCacheFilter) > 0 {
		attrs["no-cache"] = strings.Join(o.NoCacheFilter, ",")
	}
	if len(o.AddHosts) > 0 {
		attrs["add-hosts"] = strings.Join(o.AddHosts, ",")
	}
	if o.Network != "" && o.Network != "default" {
		attrs["force-network-mode"] = o.Network
	}
	if len(o.Ulimits) > 0 {
		attrs["ulimit"] = strings.Join(o.Ulimits, ",")
	}
	if o.ShmSize > 0 {
		attrs["shm-size"] = strconv.FormatInt(o.ShmSize, 10)
	}
	maps.DeleteFunc(attrs, func(k, v string) bool { return v == "" && k != "no-cache" && !strings.Contains(k, ":") })
	return attrs
}

// contextName is how the front end looks a named context up: in its short form,
// without the default tag. Docker's client shortens names, too.
func contextName(name string) string {
	if named, err := reference.ParseNormalizedNamed(name); err == nil {
		name = reference.FamiliarString(named)
	}
	return strings.TrimSuffix(name, ":latest")
}

// mainContext is the name of the main context and of its option.
const mainContext = "context"

func (o *Options) buildPlatform() ocispecs.Platform {
	if o.BuildPlatform != nil {
		return *o.BuildPlatform
	}
	return platform.Host()
}

// RunsOn says whether an image's graph runs a step on the given platform.
func RunsOn(img *graph.Image, p ocispecs.Platform) bool {
	return slices.ContainsFunc(StepPlatforms(img), func(q ocispecs.Platform) bool { return platform.Equal(p, q) })
}

// StepPlatforms are the platforms that an image's graph runs steps on, each
// once.
func StepPlatforms(img *graph.Image) []ocispecs.Platform {
	var out []ocispecs.Platform
	seen := map[*graph.Vertex]bool{}
	var visit func(e *graph.Edge)
	visit = func(e *graph.Edge) {
		if e == nil || seen[e.Vertex] {
			return
		}
		seen[e.Vertex] = true
		if _, ok := e.Vertex.Op.(*graph.Exec); ok {
			p := *e.Vertex.Platform
			if !slices.ContainsFunc(out, func(q ocispecs.Platform) bool { return platform.Equal(p, q) }) {
				out = append(out, p)
			}
		}
		for _, input := range e.Vertex.Inputs {
			visit(input)
		}
	}
	visit(img.Root)
	return out
}
