package cli

import (
	"errors"
	"fmt"

	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/progress"
)

// show is what people see of a build, whoever builds: its progress, and at the end
// the page of the job and the errors at their lines.
type show struct {
	*progress.Display
	w *World
	// secrets are in none of that.
	secrets []string
}

func newShow(w *World, mode string, secrets []string) (*show, error) {
	look := progress.Options{Out: w.Stderr, Mode: progress.Mode(mode), Redact: secrets, Sections: w.Getenv("GITLAB_CI") == "true"}
	if w.console != nil {
		look.Groups = w.console
	}
	display, err := progress.New(look)
	if err != nil {
		return nil, usagef("--progress: %w", err)
	}
	return &show{Display: display, w: w, secrets: secrets}, nil
}

// end tells what came of the build. profile, which may be nil, ends with it.
func (s *show) end(result *local.Result, err error, profile *profile) (*local.Result, error) {
	if err == nil {
		s.Table("images", result.Rows)
	}
	if closeErr := s.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("showing the progress: %w", closeErr)
	}
	if profile != nil {
		err = errors.Join(err, profile.end(s.Timeline(), s.secrets))
	}
	if failed := summarize(s.w, result, err, s.Timeline(), s.secrets); err == nil && failed != nil {
		err = failed
	}
	if err != nil {
		annotateError(s.w, err, s.secrets)
		return nil, &redactedError{err: err, text: progress.Redact(err.Error(), s.secrets)}
	}
	annotateWarnings(s.w, result.Warnings)
	return result, nil
}

// redactedError is an error without secrets in its text: that of a failed step
// holds its command.
type redactedError struct {
	err  error
	text string
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.err }
