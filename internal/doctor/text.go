package doctor

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteText writes one line a check, in columns: status, kind, subject, and what
// was found with the fix.
func (r *Report) WriteText(w io.Writer) error {
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range r.Checks {
		found := c.Detail
		if c.Fix != "" {
			found += ". Fix: " + c.Fix
		}
		fmt.Fprintf(columns, "%s\t%s\t%s\t%s\n", c.Status, c.Kind, c.Subject, oneLine(found))
	}
	return columns.Flush()
}

// oneLine makes a text of one line: errors of the system or a registry may have
// more.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Lacks names what lacks: "isolation namespaces, push ghcr.io/acme/app".
func (r *Report) Lacks() string {
	var names []string
	for _, c := range r.Checks {
		if c.Status == Lack {
			names = append(names, strings.TrimSpace(c.Kind+" "+c.Subject))
		}
	}
	return strings.Join(names, ", ")
}
