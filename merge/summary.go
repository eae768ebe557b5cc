package merge

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
)

// Markdown is the report for people, for the page of a CI job.
func (r *Report) Markdown() string {
	var b strings.Builder
	title := "Published"
	switch {
	case r.Published && len(r.Tags) > 0 && len(r.Unchanged) == len(r.Tags):
		title = "Unchanged"
	case !r.Published && r.Layout != "":
		title = "Written to " + code(r.Layout)
	case !r.Published:
		title = "Dry run, nothing is published"
	}
	fmt.Fprintf(&b, "### %s\n\n", title)
	for _, tag := range r.Tags {
		moved := ""
		if slices.Contains(r.Unchanged, tag) {
			moved = " (was there)"
		}
		fmt.Fprintf(&b, "- %s%s\n", code(tag), moved)
	}
	name := r.Image
	if name == "" {
		name = r.Digest.String()
	}
	fmt.Fprintf(&b, "- %s\n\n", code(name))
	b.WriteString("| Platform | Digest | Manifest | From |\n| --- | --- | --- | --- |\n")
	for _, img := range r.Images {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", plain(img.Platform), code(img.Digest.String()), units.BytesSize(float64(img.Size)), img.origin())
	}
	for _, a := range r.Attached {
		fmt.Fprintf(&b, "| | %s | attached | %s |\n", code(a.Digest.String()), about(a.About))
	}
	if len(r.Annotations) > 0 {
		b.WriteString("\n| Annotation | Value |\n| --- | --- |\n")
		for _, key := range slices.Sorted(maps.Keys(r.Annotations)) {
			fmt.Fprintf(&b, "| %s | %s |\n", code(key), code(r.Annotations[key]))
		}
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "\n> **Warning:** %s\n", plain(w))
	}
	for _, n := range r.Notices {
		fmt.Fprintf(&b, "\n> %s\n", plain(n))
	}
	b.WriteString("\n")
	return b.String()
}

func (i Image) origin() string {
	var parts []string
	if i.Source != i.Digest {
		parts = append(parts, "changed from "+code(i.Source.String()))
	}
	if i.CopiedFrom != "" {
		parts = append(parts, "copied from "+code(i.CopiedFrom))
	}
	return strings.Join(parts, ", ")
}

func about(d digest.Digest) string {
	if d == "" {
		return ""
	}
	return "about " + code(d.String())
}

// code shows a value as it is. What others wrote must not become a link, a tag
// of HTML or another column.
func code(s string) string {
	return "<code>" + plain(s) + "</code>"
}

func plain(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.NewReplacer(
		"&", "&amp;", "<", "&lt;", ">", "&gt;", "|", "&#124;", "`", "&#96;", "*", "&#42;", "_", "&#95;",
		"[", "&#91;", "]", "&#93;", "!", "&#33;", "\\", "&#92;", "~", "&#126;", "@", "&#64;", "#", "&#35;",
	).Replace(s)
}
