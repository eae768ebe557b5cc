package cli

import (
	"strings"

	"github.com/org/kaniko-multiarch/internal/ci"
	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/progress"
)

// summarize writes the page of the job, where there is one.
func summarize(w *World, r *local.Result, err error, spans []progress.Span, secrets []string) error {
	var rows []progress.ImageRow
	title := "Built, not pushed"
	switch {
	case err != nil:
		title = "Failed: " + progress.Redact(err.Error(), secrets)
	case r.Pushed && r.Image != "":
		title, rows = "Pushed to "+r.Image, r.Rows
	default:
		rows = r.Rows
	}
	return ci.WriteSummary(w.Getenv, progress.Markdown(title, rows, spans))
}

// tellGitHub hands a build's result to the jobs and people that wait for it.
// Elsewhere it does nothing.
func tellGitHub(w *World, r *local.Result) error {
	metadata, err := r.Metadata()
	if err != nil {
		return err
	}
	image := ""
	if r.Pushed && r.Image != "" {
		image = r.Image + "@" + r.Descriptor.Digest.String()
	}
	var platforms []string
	for _, row := range r.Rows {
		platforms = append(platforms, row.Platform)
	}
	return ci.WriteOutputs(w.Getenv,
		ci.Output{Name: "digest", Value: r.Descriptor.Digest.String()},
		// What an engine with images of many platforms calls the image's ID.
		ci.Output{Name: "imageid", Value: r.Descriptor.Digest.String()},
		ci.Output{Name: "image", Value: image},
		ci.Output{Name: "metadata", Value: string(metadata)},
		ci.Output{Name: "tags", Value: strings.Join(r.Tags, "\n")},
		ci.Output{Name: "platforms", Value: strings.Join(platforms, ",")},
	)
}
