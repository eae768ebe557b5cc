package progress

import (
	"bufio"
	"fmt"
	"time"
)

// Groups are what a CI system's log can fold, where lines in the text do not do
// it. They do not nest.
type Groups interface {
	Group(title string)
	EndGroup()
}

// section makes a block one that can be folded: with the marks of GitLab's
// collapsible sections (GitLab, "Custom collapsible sections"), or with groups.
type section struct {
	on      bool
	groups  Groups
	count   int
	open    bool
	started int64
}

// start writes the title of a block that begins.
func (s *section) start(w *bufio.Writer, at time.Time, title string) {
	switch {
	case s.groups != nil:
		w.Flush()
		s.open = true
		s.groups.Group(title)
		return
	case s.on:
		s.count++
		s.open, s.started = true, at.Unix()
		fmt.Fprintf(w, "\x1b[0Ksection_start:%d:kma_%d\r\x1b[0K", s.started, s.count)
	}
	fmt.Fprintln(w, title)
}

// end goes after the last line.
func (s *section) end(w *bufio.Writer, at time.Time) {
	if !s.open {
		return
	}
	s.open = false
	if s.groups != nil {
		w.Flush()
		s.groups.EndGroup()
		return
	}
	fmt.Fprintf(w, "\x1b[0Ksection_end:%d:kma_%d\r\x1b[0K\n", max(at.Unix(), s.started), s.count)
}
