package progress

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// closing is what text modes show after the build.
type closing struct {
	warnings []Warning
	failed   []*block
	tables   []tabled
	// onlyFailed leaves out all but failed steps.
	onlyFailed bool
	// separate puts an empty line in front.
	separate bool
}

func (c *closing) write(w io.Writer) {
	var sections []string
	if len(c.warnings) > 0 && !c.onlyFailed {
		sections = append(sections, warningText(c.warnings))
	}
	for _, b := range c.failed {
		sections = append(sections, failureText(b))
	}
	if !c.onlyFailed {
		for _, t := range c.tables {
			sections = append(sections, tableText(t))
		}
	}
	if len(sections) == 0 {
		return
	}
	if c.separate {
		fmt.Fprintln(w)
	}
	io.WriteString(w, strings.Join(sections, "\n"))
}

// warningText sorts by place: platforms report in any order.
func warningText(all []Warning) string {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b Warning) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	var s strings.Builder
	if len(all) == 1 {
		s.WriteString("1 warning:\n")
	} else {
		fmt.Fprintf(&s, "%d warnings:\n", len(all))
	}
	for _, w := range all {
		fmt.Fprintf(&s, "  %s\n", w)
	}
	return s.String()
}

// String is the warning on one line, as compilers write theirs.
func (w Warning) String() string {
	s := w.Text
	switch {
	case w.File != "" && w.Line > 0:
		s = fmt.Sprintf("%s:%d: %s", w.File, w.Line, s)
	case w.File != "":
		s = w.File + ": " + s
	}
	if w.URL != "" {
		s += " (" + w.URL + ")"
	}
	return s
}

// failureText repeats the end of a failed step, which may be far above.
func failureText(b *block) string {
	var s strings.Builder
	fmt.Fprintf(&s, "------\n > %s:\n", b.v.Name)
	for _, line := range b.tail {
		fmt.Fprintln(&s, line)
	}
	fmt.Fprintf(&s, "ERROR: %s\n------\n", strings.Join(textLines(b.v.result.err), "\n"))
	return s.String()
}

func tableText(t tabled) string {
	var s strings.Builder
	if t.title != "" {
		fmt.Fprintln(&s, t.title)
	}
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PLATFORM\tDIGEST\tSIZE\tLAYERS\tTIME")
	for _, r := range t.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d reused, %d built\t%s\n",
			r.Platform, r.Digest, size(r.Size), r.LayersReused, r.LayersBuilt, rowTime(r))
	}
	w.Flush()
	return s.String()
}

func rowTime(r ImageRow) string {
	precision := 100 * time.Millisecond
	if r.Time >= time.Minute {
		precision = time.Second
	}
	s := r.Time.Round(precision).String()
	if r.Emulated {
		s += " (emulated)"
	}
	return s
}
