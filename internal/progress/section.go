package progress

import (
	"fmt"
	"io"
	"time"
)

// section puts the marks of GitLab's collapsible sections around a block.
// GitLab, "Custom collapsible sections".
type section struct {
	on      bool
	count   int
	open    bool
	started int64
}

// start goes directly before the line that is the section's title.
func (s *section) start(w io.Writer, at time.Time) {
	if !s.on {
		return
	}
	s.count++
	s.open, s.started = true, at.Unix()
	fmt.Fprintf(w, "\x1b[0Ksection_start:%d:kma_%d\r\x1b[0K", s.started, s.count)
}

// end goes after the last line.
func (s *section) end(w io.Writer, at time.Time) {
	if !s.open {
		return
	}
	s.open = false
	fmt.Fprintf(w, "\x1b[0Ksection_end:%d:kma_%d\r\x1b[0K\n", max(at.Unix(), s.started), s.count)
}
