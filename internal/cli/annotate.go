package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/org/kaniko-multiarch/internal/ci"
	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/frontend"
	"github.com/org/kaniko-multiarch/internal/progress"
)

// annotate shows something at its line in GitHub's view of a change. Elsewhere
// it does nothing.
func annotate(w *World, level, file string, line int, title, text string) {
	if w.Getenv("GITHUB_ACTIONS") != "true" || line <= 0 {
		return
	}
	console := w.console
	if console == nil {
		console = ci.NewConsole(w.Stderr)
	}
	console.Annotate(level, inWorkspace(w, file), line, title, text)
}

// say prints a line for people: a notice, a warning or an error. GitHub shows it
// on the page of the run, too.
func say(w *World, level, text string) {
	if w.console != nil {
		w.console.Say(level, text)
		return
	}
	fmt.Fprintf(w.Stderr, "%s: %s\n", level, text)
}

// inWorkspace is a file's path below the checkout, which is what GitHub knows.
func inWorkspace(w *World, file string) string {
	workspace := w.Getenv("GITHUB_WORKSPACE")
	if workspace == "" {
		return file
	}
	abs, err := filepath.Abs(file)
	if err != nil {
		return file
	}
	rel, err := filepath.Rel(workspace, abs)
	if err != nil || !filepath.IsLocal(rel) {
		return file
	}
	return rel
}

// annotateWarnings shows the warnings of a build, whose text starts with the
// name of a check.
func annotateWarnings(w *World, list []progress.Warning) {
	for _, warning := range list {
		rule, text, ok := strings.Cut(warning.Text, ": ")
		if !ok || strings.ContainsAny(rule, " \t") {
			rule, text = "", warning.Text
		}
		annotate(w, "warning", warning.File, warning.Line, rule, text)
	}
}

// hasPlace reports whether annotateError has a line for an error.
func hasPlace(err error) bool {
	var (
		at   *frontend.Error
		step *engine.StepError
	)
	return errors.As(err, &at) && at.Line > 0 || errors.As(err, &step) && step.Location.Start > 0
}

// annotateError shows an error that has a place in the Dockerfile, without
// secrets.
func annotateError(w *World, err error, secrets []string) {
	var (
		at   *frontend.Error
		step *engine.StepError
	)
	switch {
	case errors.As(err, &at):
		annotate(w, "error", at.File, at.Line, "", progress.Redact(at.Err.Error(), secrets))
	case errors.As(err, &step):
		annotate(w, "error", step.Location.File, step.Location.Start, "", progress.Redact(step.Name+": "+step.Err.Error(), secrets))
	}
}
