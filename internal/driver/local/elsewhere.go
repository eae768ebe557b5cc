package local

import (
	"context"
	"errors"
	"fmt"
	"slices"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/progress"
	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// Ready makes sure, before anything is built elsewhere, that Publish can do its part
// here.
func (d *Driver) Ready(ctx context.Context, o build.Options) error {
	t, err := ParseTarget(o)
	if err != nil {
		return err
	}
	if err := makeDirs(o); err != nil {
		return err
	}
	return d.prepare(ctx, o, t.target)
}

// Publish does with images that were built elsewhere what Build does with its own:
// it makes the index, moves the tags and writes the files. There is a record, and a
// row, for each platform of o, whose image is in the first repository of o; a record
// counts only when the registry confirms it. d needs its registry and progress.
func (d *Driver) Publish(ctx context.Context, o build.Options, records []record.Record, rows []progress.ImageRow) (*Result, error) {
	t, err := ParseTarget(o)
	if err != nil {
		return nil, err
	}
	r := &Result{Pushed: !o.NoPush, Rows: rows, Image: t.Repository.Name()}
	if t.target.none() {
		r.Image = ""
	}
	for _, p := range t.Platforms {
		name := platform.Format(p)
		i := slices.IndexFunc(records, func(r record.Record) bool { return r.Platform == name })
		if i < 0 {
			return nil, fmt.Errorf("%s: the build has left no record", name)
		}
		one := records[i]
		one.Annotations = t.DescriptorAnnotations(p)
		if err := d.confirm(ctx, o, t.Repository, one); err != nil {
			return nil, err
		}
		r.Records = append(r.Records, one)
	}
	first := ocispecs.Descriptor{MediaType: r.Records[0].MediaType, Digest: r.Records[0].Digest, Size: r.Records[0].Size, Platform: &t.Platforms[0]}
	var manifest []byte
	if !o.NoPush && !t.target.index {
		if _, manifest, err = d.Registry.Manifest(ctx, t.Repository.WithDigest(first.Digest)); err != nil {
			return nil, err
		}
	}
	if err := d.publish(ctx, o, t.target, first, manifest, r); err != nil {
		return nil, err
	}
	return r, d.writeFiles(o, r)
}

// confirm asks the registry for what a record names.
func (d *Driver) confirm(ctx context.Context, o build.Options, repo registry.Ref, r record.Record) error {
	if o.NoPush {
		return nil
	}
	if !r.Pushed || r.Image != repo.Name() {
		return fmt.Errorf("%s: the build has left its image in %q, want %s", r.Platform, r.Image, repo.Name())
	}
	desc, err := d.Registry.Head(ctx, repo.WithDigest(r.Digest))
	if errors.Is(err, registry.ErrNotFound) {
		// Not that of a base image: nothing is wrong with the Dockerfile.
		return fmt.Errorf("%s: %w: %s has no image %s, which was built: check that nothing removes images without a tag", r.Platform, registry.ErrRejected, repo.Name(), r.Digest)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", r.Platform, err)
	}
	if desc.Digest != r.Digest || desc.Size != r.Size || desc.MediaType != r.MediaType {
		return fmt.Errorf("%s: %w: %s has another image than was built: %s with %d bytes, want %s with %d", r.Platform, registry.ErrCorrupt, repo.Name(), desc.Digest, desc.Size, r.Digest, r.Size)
	}
	return nil
}
