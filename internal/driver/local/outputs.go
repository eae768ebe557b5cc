package local

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/docker"
	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/newfile"
	"github.com/org/kaniko-multiarch/internal/output"
	"github.com/org/kaniko-multiarch/internal/registry"
	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// Types of outputs.
const (
	outputOCI    = "oci"
	outputDocker = "docker"
	outputTar    = "tar"
	outputLocal  = "local"
)

// outputs hands everything to each place that wants it.
type outputs struct {
	all   []engine.Publisher
	files []treeOutput
	// layout collects what is written at the end; nil without that. It is not
	// where the user wants it: while a step is in place there is no such path.
	layout *output.Layout
	// list has what to write at the end.
	list   []build.Output
	docker *docker.Engine
	stdout io.Writer
}

// treeOutput is a directory with the files of the image, or a tar.
type treeOutput struct {
	output.Tree
	// tar is the name of the tar's file; empty for a directory.
	tar string
}

var (
	_ engine.Publisher = (*outputs)(nil)
	_ engine.Files     = (*outputs)(nil)
)

// wanted are the outputs of o, kaniko's flags for them included.
func wanted(o build.Options) []build.Output {
	list := o.Outputs
	if o.OCILayout != "" {
		list = append(list, build.Output{Type: outputOCI, Dest: o.OCILayout, Directory: true})
	}
	if o.Tar != "" {
		list = append(list, build.Output{Type: outputDocker, Dest: o.Tar})
	}
	return list
}

// checkOutputs finds, before anything is built, what cannot be written.
func (d *Driver) checkOutputs(ctx context.Context, o build.Options, platforms int) (*docker.Engine, error) {
	var engine *docker.Engine
	for _, out := range wanted(o) {
		if out.Type != outputDocker {
			continue
		}
		if out.Dest != "" {
			if platforms > 1 {
				return nil, badInput("a docker archive in a file holds one image, not %d: build one platform, or use --output type=oci", platforms)
			}
			continue
		}
		var err error
		if engine, err = docker.New(d.getenv); err != nil {
			return nil, &InputError{Err: err}
		}
		several, err := engine.Platforms(ctx)
		if err != nil {
			return nil, err
		}
		if platforms > 1 && !several {
			return nil, &sandbox.UnsupportedError{
				What: "this Docker engine keeps one platform of an image",
				Fix:  "build one platform, switch the engine to containerd's image store, or use --output type=oci",
			}
		}
	}
	return engine, nil
}

// publishers opens the places that o names.
func (d *Driver) publishers(o build.Options, t *target, spool string, images *baseImages, epoch *int64) (*outputs, error) {
	out := &outputs{list: wanted(o), stdout: d.Stdout}
	if !o.NoPush {
		out.all = append(out.all, newPublisher(d.Registry, t.repository, spool, images))
	}
	for _, w := range out.list {
		var err error
		switch {
		case w.Type == outputLocal:
			out.files = append(out.files, treeOutput{Tree: output.Tree{Dir: w.Dest, Split: split(w, t), Time: epoch}})
		case w.Type == outputTar:
			out.files = append(out.files, treeOutput{Tree: output.Tree{Split: split(w, t), Time: epoch}, tar: w.Dest})
		case out.layout == nil:
			if out.layout, err = output.NewLayout(filepath.Join(spool, "layout"), images); err != nil {
				return nil, err
			}
			out.all = append(out.all, out.layout)
		}
	}
	return out, nil
}

// split says whether each platform gets a directory.
func split(w build.Output, t *target) bool {
	if w.Split != nil {
		return *w.Split
	}
	return t.platforms > 1
}

func (o *outputs) each(do func(engine.Publisher) error) error {
	for _, p := range o.all {
		if err := do(p); err != nil {
			return err
		}
	}
	return nil
}

func (o *outputs) BaseLayer(ctx context.Context, ref string, l ocispecs.Descriptor) error {
	return o.each(func(p engine.Publisher) error { return p.BaseLayer(ctx, ref, l) })
}

func (o *outputs) Layer(ctx context.Context, l ocispecs.Descriptor, content io.ReaderAt, report func(int64)) error {
	return o.each(func(p engine.Publisher) error { return p.Layer(ctx, l, content, report) })
}

// Stream implements engine.Streamer, for those places that can take it.
func (o *outputs) Stream(ctx context.Context, l *layer.Pending, report func(int64)) error {
	return o.each(func(p engine.Publisher) error {
		if s, ok := p.(engine.Streamer); ok {
			return s.Stream(ctx, l, report)
		}
		return nil
	})
}

func (o *outputs) Image(ctx context.Context, img *engine.Image) error {
	return o.each(func(p engine.Publisher) error { return p.Image(ctx, img) })
}

// Export implements engine.Files.
func (o *outputs) Export(ctx context.Context, images []engine.ImageFiles) error {
	for _, f := range o.files {
		if f.tar == "" {
			if err := f.Export(ctx, images); err != nil {
				return err
			}
			continue
		}
		err := o.toFile(f.tar, func(w io.Writer) error {
			tree := f.Tree
			tree.Tar = w
			return tree.Export(ctx, images)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// finish completes what is made of whole images.
func (o *outputs) finish(ctx context.Context, t *target, r *Result) error {
	for _, w := range o.list {
		if w.Type != outputOCI && w.Type != outputDocker {
			continue
		}
		f, err := final(w, t, r)
		if err != nil {
			return err
		}
		if err := o.finishOne(ctx, w, f); err != nil {
			return fmt.Errorf("writing --output type=%s: %w", w.Type, err)
		}
	}
	return nil
}

func (o *outputs) finishOne(ctx context.Context, w build.Output, f output.Final) error {
	archive := o.layout.TarOCI
	if w.Type == outputDocker {
		archive = o.layout.TarDocker
	}
	switch {
	case w.Directory:
		return o.layout.WriteTo(w.Dest, f)
	case w.Dest == "":
		return o.docker.Load(ctx, func(to io.Writer) error { return archive(to, f) })
	}
	return o.toFile(w.Dest, func(to io.Writer) error { return archive(to, f) })
}

// final is what the images are called in an output: as it says, or as the
// destinations do.
func final(w build.Output, t *target, r *Result) (output.Final, error) {
	f := output.Final{Index: r.index, IndexType: r.Descriptor.MediaType}
	for _, name := range w.Names {
		ref, err := registry.ParseRef(name)
		if err != nil {
			return f, badInput("--output type=%s,name=%s: %w", w.Type, name, err)
		}
		f.Names = append(f.Names, ref.DefaultTag().String())
	}
	if len(w.Names) == 0 {
		for _, tag := range t.tags {
			f.Names = append(f.Names, tag.String())
		}
	}
	return f, nil
}

// toFile writes a file, or standard output for "-".
func (o *outputs) toFile(name string, write func(io.Writer) error) error {
	if name == "-" {
		return write(o.stdout)
	}
	return newfile.Write(name, write)
}
