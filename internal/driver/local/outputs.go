package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/cache"
	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/output"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// outputs hands everything to each place that wants it.
type outputs struct {
	all    []engine.Publisher
	layout *output.Layout
}

var _ engine.Publisher = (*outputs)(nil)

// publishers opens the places that o names.
func (d *Driver) publishers(o build.Options, t *target, spool string, images *baseImages) (*outputs, error) {
	out := &outputs{}
	if !o.NoPush {
		out.all = append(out.all, newPublisher(d.Registry, t.repository, spool))
	}
	if o.OCILayout == "" && o.Tar == "" {
		return out, nil
	}
	// Not where it is wanted: while a step is in place there is no such path.
	var err error
	if out.layout, err = output.NewLayout(filepath.Join(spool, "layout"), images); err != nil {
		return nil, err
	}
	out.all = append(out.all, out.layout)
	return out, nil
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

func (o *outputs) Image(ctx context.Context, img *engine.Image) error {
	return o.each(func(p engine.Publisher) error { return p.Image(ctx, img) })
}

// finish completes what is on the disk.
func (o *outputs) finish(opts build.Options, t *target) error {
	if o.layout == nil {
		return nil
	}
	var tags []string
	name := ""
	for _, tag := range t.tags {
		tags = append(tags, tag.String())
		name = tag.Tag
	}
	if err := o.layout.Finish(name); err != nil {
		return fmt.Errorf("writing the OCI layout: %w", err)
	}
	if opts.Tar != "" {
		if err := o.tar(opts.Tar, tags); err != nil {
			return err
		}
	}
	if opts.OCILayout == "" {
		return nil
	}
	if err := o.layout.MoveTo(opts.OCILayout); err != nil {
		return fmt.Errorf("writing the OCI layout: %w", err)
	}
	return nil
}

func (o *outputs) tar(name string, tags []string) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("writing the tar: %w", err)
	}
	if err := errors.Join(o.layout.Tar(f, tags), f.Close()); err != nil {
		_ = os.Remove(name)
		return fmt.Errorf("writing the tar %s: %w", name, err)
	}
	return nil
}

// openCache opens the layer cache; nil when none is asked for.
func (d *Driver) openCache(o build.Options, t *target) (*cache.Registry, error) {
	if !o.Cache {
		return nil, nil
	}
	name := o.CacheRepo
	if name == "" {
		if t.none() {
			return nil, badInput("--cache: nowhere to keep layers: give --cache-repo, or a destination")
		}
		name = t.repository.Name() + "/cache"
	}
	repo, err := registry.ParseRef(name)
	if err != nil {
		return nil, badInput("--cache-repo: %w", err)
	}
	if repo.Tag != "" || repo.Digest != "" {
		return nil, badInput("--cache-repo %s: want a repository without tag and digest", name)
	}
	return &cache.Registry{Client: d.Registry, Repo: repo, TTL: o.CacheTTL, ReadOnly: o.NoPushCache, Now: d.Now}, nil
}

func parseCompression(o build.Options) (layer.Compression, error) {
	c := layer.Compression{Level: o.CompressionLevel}
	switch o.Compression {
	case "", "gzip":
		if c.Level < 0 || c.Level > 9 {
			return c, badInput("--compression-level %d: gzip has 1 to 9", c.Level)
		}
	case "zstd":
		c.Algorithm = layer.Zstd
		if c.Level < 0 || c.Level > 22 {
			return c, badInput("--compression-level %d: zstd has 1 to 22", c.Level)
		}
	default:
		return c, badInput("--compression %q: use gzip or zstd", o.Compression)
	}
	return c, nil
}
