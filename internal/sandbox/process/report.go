package process

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/org/kaniko-multiarch/internal/ids"
	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// Explainer says why the kernel refuses to run a file, from its first bytes.
type Explainer interface {
	Explain(head []byte) string
}

// Report is what a helper says when it could not become the process. No report
// means that it did.
type Report struct {
	Message string
	// Fix makes it a *sandbox.UnsupportedError.
	Fix string
	// MissingID makes it an *ids.MissingError.
	MissingID bool
	// NotRun means that all was ready but the command could not be run; Code is
	// then its exit code and Head the start of a file that the kernel refused.
	NotRun bool
	Code   int
	Head   []byte
}

// Told is the report of an error of Become, or of what came before it.
func Told(err error) Report {
	var failed *notRun
	var unsupported *sandbox.UnsupportedError
	var id *ids.MissingError
	switch {
	case errors.As(err, &failed):
		return Report{NotRun: true, Message: failed.message, Code: failed.code, Head: failed.head}
	case errors.As(err, &unsupported):
		return Report{Message: unsupported.What, Fix: unsupported.Fix}
	case errors.As(err, &id):
		return Report{Message: strings.TrimSuffix(err.Error(), id.Error()) + id.What, MissingID: true}
	}
	return Report{Message: err.Error()}
}

// Receive reads what a helper wrote with encoding/gob, to the end of the stream.
func (r *Report) Receive(from io.Reader) {
	// The end of the stream without a report is the usual case.
	if err := gob.NewDecoder(from).Decode(r); err != nil && err != io.EOF {
		r.Message = "the process could not be set up: " + err.Error()
	}
}

// Err is nil when the process was started. A command that could not be run is
// an *sandbox.ExitError, and a line on stderr.
func (r *Report) Err(explain Explainer, stderr io.Writer) error {
	switch {
	case !r.NotRun && r.Message == "":
		return nil
	case !r.NotRun && r.Fix != "":
		return &sandbox.UnsupportedError{What: r.Message, Fix: r.Fix}
	case !r.NotRun && r.MissingID:
		return &ids.MissingError{What: r.Message}
	case !r.NotRun:
		return errors.New(r.Message)
	}
	message := r.Message
	if len(r.Head) > 0 {
		message += ": " + explain.Explain(r.Head)
	}
	if stderr != nil {
		fmt.Fprintln(stderr, message)
	}
	return &sandbox.ExitError{Code: r.Code}
}

// ExitCode is the exit code of a process that ended: 128 plus the signal's
// number when it was killed.
func ExitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
