package frontend

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/solver/errdefs"
)

// Error is a mistake in a Dockerfile, or something that a line of it asks for
// and that cannot be had. Unwrap gives the cause.
type Error struct {
	File string
	// Line is 0 when the place is unknown.
	Line int
	// Excerpt shows the lines with a caret; it may be empty.
	Excerpt string
	Err     error
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// UnsupportedFrontendError is a syntax line that names a front end that is not
// the Dockerfile's.
type UnsupportedFrontendError struct{ Source string }

func (e *UnsupportedFrontendError) Error() string {
	return fmt.Sprintf("front end %q is not supported: the syntax line may name docker/dockerfile only, which is built in", e.Source)
}

// locate finds where in the Dockerfile err comes from.
func locate(err error, o Options) error {
	var located *Error
	if errors.As(err, &located) {
		return located
	}
	e := &Error{File: o.displayName(o.Filename), Err: err}
	if sources := errdefs.Sources(err); len(sources) > 0 {
		s := sources[len(sources)-1]
		var source *errdefs.SourceError
		if errors.As(err, &source) {
			e.Err = source.Unwrap()
		}
		if s.Info != nil && len(s.Ranges) > 0 {
			e.File = o.displayName(s.Info.Filename)
			first, last := s.Ranges[0].Start, s.Ranges[len(s.Ranges)-1].End
			e.Line = int(first.Line)
			e.Excerpt = excerpt(string(s.Info.Data), int(first.Line), int(last.Line))
		}
	}
	var at *parser.LocationError
	if errors.As(e.Err, &at) {
		e.Err = at.Unwrap()
	}
	return e
}

// excerpt shows lines first to last (counted from 1) with their neighbours, and
// carets under the text of the first.
func excerpt(text string, first, last int) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if first < 1 || first > len(lines) {
		return ""
	}
	last = max(first, min(last, len(lines)))
	var b strings.Builder
	for n := max(1, first-2); n <= min(len(lines), last+1); n++ {
		line := strings.TrimRight(lines[n-1], "\r")
		fmt.Fprintf(&b, "%4d | %s\n", n, line)
		if n != first {
			continue
		}
		body := strings.TrimLeft(line, " \t")
		fmt.Fprintf(&b, "     | %s%s\n", line[:len(line)-len(body)], strings.Repeat("^", max(1, len([]rune(body)))))
	}
	return b.String()
}
