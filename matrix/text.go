package matrix

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Text is a runner for people: labels with commas, the group in front.
func (r Runner) Text() string {
	labels := strings.Join(r.Labels, ",")
	switch {
	case r.Group == "":
		return labels
	case labels == "":
		return "group " + r.Group
	}
	return "group " + r.Group + ": " + labels
}

// FormatError says that a format cannot express what was asked for.
type FormatError struct{ text string }

func (e *FormatError) Error() string { return e.text }

func formatError(format string, args ...any) error { return &FormatError{fmt.Sprintf(format, args...)} }

// WritePlain writes one row a line, for shells: platform, mode, runner, image,
// target, key and artifact, with a tab between them.
func (p *Plan) WritePlain(w io.Writer) error {
	for _, r := range p.Matrix.Include {
		fields := []string{r.Platform, string(r.Mode), r.Runner.Text(), r.Image, r.Target, r.Key, r.Artifact}
		if _, err := fmt.Fprintln(w, strings.Join(fields, "\t")); err != nil {
			return err
		}
	}
	return nil
}

// WriteTree writes what becomes one image together, for people.
func (p *Plan) WriteTree(w io.Writer) error {
	if p.Empty {
		_, err := fmt.Fprintln(w, "nothing to build")
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, m := range p.Merges.Include {
		name := m.Tags
		if name == "" {
			name = m.Image
		}
		fmt.Fprintf(tw, "%s  %s\n", m.Key, strings.ReplaceAll(name, ",", ", "))
		var rows []Row
		for _, r := range p.Matrix.Include {
			if r.Key == m.Key {
				rows = append(rows, r)
			}
		}
		for i, r := range rows {
			branch := "├──"
			if i == len(rows)-1 {
				branch = "└──"
			}
			fmt.Fprintf(tw, "%s %s\t%s\t%s\n", branch, strings.ReplaceAll(r.Platform, ",", ", "), r.Mode, r.Runner.Text())
		}
	}
	return tw.Flush()
}
