package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/newfile"
	"github.com/org/kaniko-multiarch/internal/progress"
	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/registry"
	"github.com/org/kaniko-multiarch/merge"
)

// publish makes the index, if there is one, copies to further repositories and
// moves the tags, all in this order: a name never shows what is not there. first
// and manifest are those of the first image.
func (d *Driver) publish(ctx context.Context, o build.Options, t *target, first ocispecs.Descriptor, manifest []byte, r *Result) error {
	r.Descriptor = first
	if t.index {
		return d.publishIndex(ctx, o, t, r)
	}
	if o.NoPush {
		return nil
	}
	image := t.repository.WithDigest(r.Descriptor.Digest)
	for _, to := range t.copies {
		if err := d.Registry.CopyImage(ctx, to, image); err != nil {
			return fmt.Errorf("copying the image to %s: %w", to.Name(), err)
		}
	}
	for _, tag := range t.tags {
		desc, err := d.Registry.PushManifest(ctx, tag, first.MediaType, manifest)
		if o.IgnoreImmutableTags && errors.Is(err, registry.ErrImmutable) {
			d.Progress.Warn(progress.Warning{Text: fmt.Sprintf("%s was left as it is: the registry does not let the tag move", tag)})
			continue
		}
		if err != nil {
			return tagError(tag.String(), r.Tags, err)
		}
		if desc.Digest != r.Descriptor.Digest {
			return fmt.Errorf("%s was published with digest %s, want %s", tag, desc.Digest, r.Descriptor.Digest)
		}
		r.Tags = append(r.Tags, tag.String())
	}
	return nil
}

// tagError says which tags moved before one failed.
func tagError(failed string, moved []string, err error) error {
	if len(moved) == 0 {
		return fmt.Errorf("publishing %s (no tag has moved): %w", failed, err)
	}
	return fmt.Errorf("publishing %s (moved already: %s): %w", failed, strings.Join(moved, ", "), err)
}

// unnamed is where an index would be that is not pushed: its digest does not
// depend on its name.
const unnamed = "localhost/unnamed"

func (d *Driver) publishIndex(ctx context.Context, o build.Options, t *target, r *Result) error {
	opts := merge.Options{
		OCIMode: merge.Mode(o.OCIMode), Annotations: t.indexAnnotations(), DryRun: o.NoPush, ExplicitPush: !o.NoPush,
		IgnoreImmutableTags: o.IgnoreImmutableTags,
	}
	for _, rec := range r.Records {
		opts.Records = append(opts.Records, record.Found{Record: rec})
	}
	// The first repository is where the images are, and every one that is named
	// gets the index, with or without a tag.
	opts.Destinations = append(opts.Destinations, unnamed)
	if !t.none() {
		opts.Destinations[0] = t.repository.Name()
	}
	for _, c := range t.copies {
		opts.Destinations = append(opts.Destinations, c.Name())
	}
	for _, tag := range t.tags {
		opts.Destinations = append(opts.Destinations, tag.String())
	}
	report, err := merge.Run(ctx, d.Registry, opts)
	if err != nil {
		return fmt.Errorf("publishing the index: %w", err)
	}
	r.Descriptor.MediaType, r.Descriptor.Digest, r.Descriptor.Size = report.MediaType, report.Digest, report.Size
	for _, w := range report.Warnings {
		d.Progress.Warn(progress.Warning{Text: w})
	}
	r.Descriptor.Platform, r.index = nil, report.Index
	if report.Published {
		r.Tags = append(r.Tags, report.Tags...)
	}
	return nil
}

// Names are what was published, for scripts: name:tag@digest for each tag, or
// name@digest, or the digest alone.
func (r *Result) Names() []string {
	digest := r.Descriptor.Digest.String()
	if r.Image == "" || !r.Pushed {
		return []string{digest}
	}
	if len(r.Tags) == 0 {
		return []string{r.Image + "@" + digest}
	}
	var out []string
	for _, tag := range r.Tags {
		out = append(out, tag+"@"+digest)
	}
	return out
}

// named are lines with the digest for each published name.
func (r *Result) named(withTag bool) []string {
	var out []string
	for _, tag := range r.Tags {
		name := tag
		if i := strings.LastIndexByte(tag, ':'); !withTag && i > strings.LastIndexByte(tag, '/') {
			name = tag[:i]
		}
		out = append(out, name+"@"+r.Descriptor.Digest.String()+"\n")
	}
	if len(out) == 0 && r.Image != "" {
		out = append(out, r.Image+"@"+r.Descriptor.Digest.String()+"\n")
	}
	return out
}

// writeFiles writes the files that the options ask for. They exist only for
// what the registry confirmed, or for a build that was not to push.
func (d *Driver) writeFiles(o build.Options, r *Result) error {
	if o.DigestsTo != "" {
		for _, rec := range r.Records {
			if err := record.Write(o.DigestsTo, rec); err != nil {
				return fmt.Errorf("writing the record of %s: %w", rec.Platform, err)
			}
		}
	}
	if o.DigestFile != "" {
		if err := newfile.Put(o.DigestFile, []byte(r.Descriptor.Digest.String())); err != nil {
			return fmt.Errorf("--digest-file: %w", err)
		}
	}
	for name, lines := range map[string][]string{o.NameDigestFile: r.named(false), o.NameTagDigestFile: r.named(true)} {
		if name == "" {
			continue
		}
		if err := newfile.Put(name, []byte(strings.Join(lines, ""))); err != nil {
			return fmt.Errorf("writing the image's name: %w", err)
		}
	}
	if o.MetadataFile == "" {
		return nil
	}
	data, err := r.Metadata()
	if err != nil {
		return err
	}
	if err := newfile.Put(o.MetadataFile, data); err != nil {
		return fmt.Errorf("--metadata-file: %w", err)
	}
	return nil
}

// Metadata is what --metadata-file holds, under buildx's names.
func (r *Result) Metadata() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	err := enc.Encode(map[string]any{
		"containerimage.digest":     r.Descriptor.Digest,
		"containerimage.descriptor": r.Descriptor,
		"image.name":                strings.Join(r.Tags, ","),
	})
	return b.Bytes(), err
}

// makeDirs makes the directories of the files that are written at the end: an
// image that is published must not be lost for want of one.
func makeDirs(o build.Options) error {
	if o.OCILayout != "" {
		if err := os.MkdirAll(o.OCILayout, 0o755); err != nil {
			return badInput("--oci-layout-path: %w", err)
		}
	}
	for _, out := range o.Outputs {
		if out.Dest == "" || out.Dest == "-" {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(out.Dest), 0o755); err != nil {
			return badInput("--output type=%s: %w", out.Type, err)
		}
	}
	for flag, name := range map[string]string{
		"digest-file": o.DigestFile, "metadata-file": o.MetadataFile, "tar-path": o.Tar,
		"image-name-with-digest-file": o.NameDigestFile, "image-name-tag-with-digest-file": o.NameTagDigestFile,
	} {
		if name == "" {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return badInput("--%s: %w", flag, err)
		}
	}
	return nil
}
