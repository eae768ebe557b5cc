package merge

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// UsageError is an option that cannot be right whatever the records say.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// ExitCode is that of bad usage.
func (e *UsageError) ExitCode() int { return 2 }

func usage(format string, args ...any) error {
	return &UsageError{Err: fmt.Errorf(format, args...)}
}

// VerifyError lists everything that keeps the images from becoming an index.
// No tag has moved.
type VerifyError struct {
	Problems []string
}

func (e *VerifyError) Error() string {
	if len(e.Problems) == 1 {
		return "no tag was moved: " + e.Problems[0]
	}
	return fmt.Sprintf("no tag was moved: %d problems:\n- %s", len(e.Problems), strings.Join(e.Problems, "\n- "))
}

// ExitCode is that of a failed verification.
func (e *VerifyError) ExitCode() int { return 7 }

// TagError is a tag that could not be moved after the index was published by
// digest. It wraps the registry's error.
type TagError struct {
	Digest digest.Digest
	// Tag failed; Moved were moved before it, NotMoved were not tried.
	Tag             string
	Moved, NotMoved []string
	Err             error
}

func (e *TagError) Error() string {
	s := fmt.Sprintf("moving tag %s to %s: %v; moved: %s", e.Tag, e.Digest, e.Err, list(e.Moved))
	s += fmt.Sprintf("; not moved: %s", list(append([]string{e.Tag}, e.NotMoved...)))
	return s + "; run merge again to move the rest, moving a tag twice does no harm"
}

func (e *TagError) Unwrap() error { return e.Err }

func list(values []string) string {
	if len(values) == 0 {
		return "none"
	}
	return strings.Join(values, ", ")
}
