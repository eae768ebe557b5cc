package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/org/kaniko-multiarch/internal/ci"
	"github.com/org/kaniko-multiarch/internal/newfile"
	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/merge"
)

// mergeCommand's booleans that are true by default are pointers: whoever makes
// one without the command line gets the default, too.
type mergeCommand struct {
	Handover         string   `enum:"files,artifact,registry," default:"files" help:"Where the records are: files (--digests-from), artifact (of the run in GitHub Actions) or registry (beside the images)."`
	DigestsFrom      []string `sep:"none" help:"Directories with digest records."`
	From             []string `sep:"none" help:"REF of an image or index to merge, or PLATFORM=REF for the image of one platform."`
	Append           bool     `help:"Add to the index that the first destination names now; same platforms are replaced."`
	Remove           []string `sep:"none" help:"Platforms to leave out of what indexes bring."`
	Destination      []string `short:"d" sep:"none" help:"Names to publish: REPO:TAG."`
	Platform         []string `sep:"none" help:"Platforms that the index must have, no more and no less; an index of --from is narrowed to them."`
	Key              string   `help:"Take the records of this key only."`
	Annotation       []string `sep:"none" help:"[PLACE:]NAME=VALUE; PLACE is index (the default), manifest-descriptor[PLATFORM], manifest[PLATFORM] or index-descriptor."`
	IndexAnnotations []string `sep:"none" help:"NAME=VALUE of annotations of the index."`
	CIAnnotations    *bool    `name:"ci-annotations" help:"Annotate the index with revision, created, source, url and version of the CI run (default: true)."`
	Attestations     string   `enum:"keep,drop,error," default:"keep" help:"Provenance and SBOM beside images: keep, drop or error."`
	OCIMode          string   `name:"oci-mode" enum:"auto,oci,docker" default:"auto" help:"Media types: auto follows the images, oci converts, docker makes a manifest list."`
	PreferIndex      *bool    `help:"false: publish a single image as it is, without an index (default: true)."`
	Referrers        *bool    `help:"Copy signatures and other referrers along with images of other repositories (default: true)."`
	Subject          string   `help:"Tag or digest in the destination's repository that the index refers to."`
	ArtifactType     string   `help:"Artifact type of the index."`
	OCILayout        string   `name:"oci-layout" help:"Directory for an OCI image layout of the result; needs no --destination."`
	ImmutableTags    []string `sep:"none" help:"Patterns of tags that must not move: v*, '*.*.*', or true for all; '!latest' takes back."`
	IgnoreImmutable  bool     `name:"push-ignore-immutable-tag-errors" help:"Take a tag that the registry does not let move for published."`
	Push             *bool    `help:"true: fail when images were not pushed; false is --dry-run."`
	DryRun           bool     `help:"Verify and print the index, touch nothing."`
	Report           string   `help:"File for a JSON report."`
	Dotenv           string   `help:"File for IMAGE_DIGEST, IMAGE_REF, IMAGE_TAGS and IMAGE_PLATFORMS, as GitLab's dotenv reports take them."`
	registryFlags
}

// Run merges. It prints the report as JSON: the index of a dry run is in it.
func (c *mergeCommand) Run(ctx context.Context, w *World) (err error) {
	registries, err := c.registries(w)
	if err != nil {
		return err
	}
	client, err := newClient(w, registries, c.Verbose)
	if err != nil {
		return err
	}
	fetched, err := c.takeOver(ctx, w, client)
	if err != nil {
		return err
	}
	if fetched != "" {
		defer func() { err = errors.Join(err, os.RemoveAll(fetched)) }()
		c.DigestsFrom = append(c.DigestsFrom, fetched)
	}
	opts, err := c.options(ctx, w)
	if err != nil {
		return err
	}
	result, err := merge.Run(ctx, client, opts)
	if err != nil {
		return err
	}
	for _, n := range result.Notices {
		say(w, "notice", n)
	}
	for _, n := range result.Warnings {
		say(w, "warning", n)
	}
	return c.write(w, result)
}

func (c *mergeCommand) options(ctx context.Context, w *World) (merge.Options, error) {
	var none merge.Options
	expected, err := platform.ParseList(splitList(c.Platform))
	if err != nil {
		return none, usagef("--platform: %w", err)
	}
	remove, err := platform.ParseList(splitList(c.Remove))
	if err != nil {
		return none, usagef("--remove: %w", err)
	}
	dirs, from := splitList(c.DigestsFrom), splitList(c.From)
	if len(dirs) == 0 && len(from) == 0 && (!c.Append || len(remove) == 0) {
		return none, usagef("nothing to merge: give --digests-from with the directory of the builds' --digests-to, or --from with references")
	}
	if len(splitList(c.Destination)) == 0 && c.OCILayout == "" {
		return none, usagef("--destination is missing: say where to publish the index, like ghcr.io/acme/app:1.0, or give --oci-layout")
	}
	found, err := record.Read(dirs...)
	if err != nil {
		return none, usagef("--digests-from: %w", err)
	}
	annotations := splitLines(c.Annotation)
	for _, a := range splitLines(c.IndexAnnotations) {
		annotations = append(annotations, "index:"+strings.TrimPrefix(a, "index:"))
	}
	opts := merge.Options{
		Records: found, From: from, Append: c.Append, Remove: remove,
		Destinations: splitList(c.Destination), Platforms: expected, Key: c.Key,
		Annotations: annotations, OCIMode: merge.Mode(c.OCIMode), Attestations: merge.Attestations(c.Attestations),
		SkipReferrers: !on(c.Referrers), SingleManifest: !on(c.PreferIndex), Subject: c.Subject, ArtifactType: c.ArtifactType,
		Layout: c.OCILayout, Immutable: tagPatterns(c.ImmutableTags), IgnoreImmutableTags: c.IgnoreImmutable,
		DryRun: c.DryRun || c.Push != nil && !*c.Push, ExplicitPush: c.Push != nil && *c.Push,
		Wait: c.patience(),
	}
	if on(c.CIAnnotations) {
		opts.Standard = ci.Detect(ctx, w.Getenv, ".").Annotations()
	}
	return opts, nil
}

// on is a boolean that is true by default.
func on(b *bool) bool { return b == nil || *b }

// tagPatterns also takes the whole for a boolean.
func tagPatterns(values []string) []string {
	out := splitList(values)
	for i, p := range out {
		switch p {
		case "true", "True", "TRUE":
			out[i] = "*"
		case "false", "False", "FALSE":
			out[i] = "!*"
		}
	}
	return out
}

// waits is how often an image that is not there is looked for again: with the
// default delay, for 15 seconds. What takes longer was not pushed.
const waits = 4

func (c *mergeCommand) patience() []time.Duration {
	var out []time.Duration
	delay, most := time.Duration(c.PushRetryInitialDelay)*time.Millisecond, time.Duration(c.PushRetryMaxDelay)*time.Millisecond
	for range min(c.PushRetry, waits) {
		out = append(out, min(delay, most))
		delay *= 2
	}
	return out
}

// write hands the result to everybody who wants it.
func (c *mergeCommand) write(w *World, r *merge.Report) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if _, err := w.Stdout.Write(data); err != nil {
		return err
	}
	if c.Report != "" {
		if err := newfile.Put(c.Report, data); err != nil {
			return fmt.Errorf("--report: %w", err)
		}
	}
	tags, platforms := strings.Join(r.Tags, "\n"), strings.Join(r.Platforms, ",")
	if c.Dotenv != "" {
		text, err := ci.Dotenv(
			ci.Output{Name: "IMAGE_DIGEST", Value: r.Digest.String()}, ci.Output{Name: "IMAGE_REF", Value: r.Image},
			ci.Output{Name: "IMAGE_TAGS", Value: strings.Join(r.Tags, ",")}, ci.Output{Name: "IMAGE_PLATFORMS", Value: platforms},
		)
		if err != nil {
			return err
		}
		if err := newfile.Put(c.Dotenv, []byte(text)); err != nil {
			return fmt.Errorf("--dotenv: %w", err)
		}
	}
	err = ci.WriteOutputs(w.Getenv,
		ci.Output{Name: "digest", Value: r.Digest.String()}, ci.Output{Name: "image", Value: r.Image},
		ci.Output{Name: "tags", Value: tags}, ci.Output{Name: "platforms", Value: platforms},
		ci.Output{Name: "index", Value: indexOutput(w, r.Index)}, ci.Output{Name: "published", Value: fmt.Sprint(r.Published)},
	)
	if err != nil {
		return err
	}
	return ci.WriteSummary(w.Getenv, r.Markdown())
}

// maxIndexOutput leaves room for other outputs: GitHub takes 1 MiB of a job.
const maxIndexOutput = 512 << 10

func indexOutput(w *World, index []byte) string {
	if len(index) <= maxIndexOutput {
		return string(index)
	}
	if w.Getenv("GITHUB_OUTPUT") != "" {
		say(w, "notice", fmt.Sprintf("the output index stays empty: %d bytes are too many for GitHub; --report has it", len(index)))
	}
	return ""
}
