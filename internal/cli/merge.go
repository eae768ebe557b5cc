package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/org/kaniko-multiarch/internal/output"
	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/merge"
)

type mergeCommand struct {
	DigestsFrom      []string `sep:"none" required:"" help:"Directories with digest records."`
	Destination      []string `short:"d" sep:"none" required:"" help:"Names to publish: REPO:TAG."`
	Platform         []string `sep:"none" help:"Platforms that the index must have, no more and no less."`
	Key              string   `help:"Take the records of this key only."`
	Annotation       []string `sep:"none" help:"[PLACE:]NAME=VALUE; PLACE is index (the default) or manifest-descriptor[PLATFORM]."`
	IndexAnnotations []string `sep:"none" help:"NAME=VALUE of annotations of the index."`
	OCIMode          string   `name:"oci-mode" enum:"auto,oci,docker" default:"auto" help:"Media types: auto follows the images, oci converts, docker makes a manifest list."`
	IgnoreImmutable  bool     `name:"push-ignore-immutable-tag-errors" help:"Take a tag that the registry does not let move for published."`
	Push             *bool    `help:"true: fail when images were not pushed; false is --dry-run."`
	DryRun           bool     `help:"Verify and print the index, touch nothing."`
	Report           string   `help:"File for a JSON report."`
	registryFlags
}

// Run merges. It prints the report as JSON: the index of a dry run is in it.
func (c *mergeCommand) Run(ctx context.Context, w *World) error {
	platforms, err := platform.ParseList(splitList(c.Platform))
	if err != nil {
		return usagef("--platform: %w", err)
	}
	explicit, dry := c.Push != nil && *c.Push, c.DryRun || c.Push != nil && !*c.Push
	found, err := record.Read(splitList(c.DigestsFrom)...)
	if err != nil {
		return usagef("--digests-from: %w", err)
	}
	registries, err := c.registries(w)
	if err != nil {
		return err
	}
	client, err := newClient(w, registries, c.Verbose)
	if err != nil {
		return err
	}
	annotations := splitLines(c.Annotation)
	for _, a := range splitLines(c.IndexAnnotations) {
		annotations = append(annotations, "index:"+strings.TrimPrefix(a, "index:"))
	}
	result, err := merge.Run(ctx, client, merge.Options{
		Records: found, Destinations: splitList(c.Destination), Platforms: platforms, Key: c.Key,
		Annotations: annotations, OCIMode: merge.Mode(c.OCIMode), DryRun: dry, ExplicitPush: explicit,
		IgnoreImmutableTags: c.IgnoreImmutable,
	})
	if err != nil {
		return err
	}
	for _, n := range result.Notices {
		fmt.Fprintln(w.Stderr, "notice:", n)
	}
	for _, n := range result.Warnings {
		fmt.Fprintln(w.Stderr, "warning:", n)
	}
	data, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if c.Report != "" {
		if err := output.WriteFile(c.Report, data); err != nil {
			return fmt.Errorf("--report: %w", err)
		}
	}
	_, err = w.Stdout.Write(data)
	return err
}
