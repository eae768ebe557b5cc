package cli

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/ci"
	"github.com/org/kaniko-multiarch/internal/docker"
	"github.com/org/kaniko-multiarch/internal/driver/kubernetes"
	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/fileop"
	"github.com/org/kaniko-multiarch/internal/frontend"
	"github.com/org/kaniko-multiarch/internal/git"
	"github.com/org/kaniko-multiarch/internal/job"
	"github.com/org/kaniko-multiarch/internal/registry"
	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/merge"
)

// The exit codes are a contract: docs and scripts rely on them.
const (
	exitOK          = 0
	exitStep        = 1
	exitUsage       = 2
	exitDockerfile  = 3
	exitDenied      = 4
	exitUnavailable = 5
	exitEnvironment = 6
	exitVerify      = 7
	exitCancelled   = 130
)

// exitError ends the program with a code and nothing to print.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// usage is a mistake on the command line.
type usage struct{ err error }

func (e *usage) Error() string { return e.err.Error() }
func (e *usage) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usage{fmt.Errorf(format, args...)} }

func usageError(err error) error {
	var parse *kong.ParseError
	if errors.As(err, &parse) {
		return &usage{fmt.Errorf("%w (see kaniko-multiarch --help)", err)}
	}
	return &usage{err}
}

// report prints an error and returns the exit code that it means.
func report(w World, err error) int {
	if err == nil {
		return exitOK
	}
	var silent exitError
	if errors.As(err, &silent) {
		return int(silent)
	}
	var at *frontend.Error
	if errors.As(err, &at) && at.Excerpt != "" {
		fmt.Fprintf(w.Stderr, "%s", at.Excerpt)
	}
	code, text := explain(err)
	if hasPlace(err) {
		// GitHub has it at its line already.
		fmt.Fprintf(w.Stderr, "error: %s\n", text)
		return code
	}
	say(&w, "error", text)
	return code
}

// explain is the exit code and the text for people of an error.
func explain(err error) (code int, text string) {
	code, hint := classify(err)
	text = strings.TrimSpace(err.Error())
	if hint != "" {
		text += ": " + hint
	}
	return code, text
}

// classify maps an error to its exit code and, where the text of the error does
// not say it, what to do.
func classify(err error) (code int, hint string) {
	var (
		badFlag   *usage
		found     *foundError
		badInput  *local.InputError
		badMerge  *merge.UsageError
		verify    *merge.VerifyError
		exit      *sandbox.ExitError
		cannot    *sandbox.UnsupportedError
		missing   *fileop.NotFoundError
		owner     *fileop.UnknownOwnerError
		platforms *registry.PlatformError
		secret    *engine.SecretError
		agent     *engine.AgentError
		place     *local.ContextError
		file      *frontend.Error
		source    *engine.SourceError
		late      *local.TimeoutError
		network   *net.OpError
		absent    *docker.UnreachableError
		badJob    *kubernetes.InputError
		cluster   *kubernetes.EnvironmentError
		noCluster *kubernetes.UnavailableError
		elsewhere *job.FailedError
	)
	switch {
	case errors.Is(err, errInterrupted):
		return exitCancelled, ""
	case errors.As(err, &elsewhere):
		return elsewhere.Result.ExitCode, "" // its text has the hint
	case errors.As(err, &late):
		return exitStep, ""
	case errors.As(err, &badJob):
		return exitUsage, ""
	case errors.As(err, &cluster):
		return exitEnvironment, ""
	case errors.As(err, &noCluster):
		return exitUnavailable, ""
	case errors.Is(err, buildcontext.ErrUnsupported):
		return exitUsage, ""
	case errors.As(err, &badFlag), errors.As(err, &badInput), errors.As(err, &badMerge), errors.As(err, &secret), errors.As(err, &agent):
		return exitUsage, ""
	case errors.As(err, &verify):
		return exitVerify, ""
	case errors.As(err, &exit):
		return exitStep, "see its output above"
	case errors.Is(err, registry.ErrDenied), errors.Is(err, git.ErrDenied):
		return exitDenied, ""
	case errors.Is(err, registry.ErrUnavailable), errors.Is(err, registry.ErrRejected), errors.Is(err, registry.ErrCorrupt), errors.Is(err, ci.ErrArtifacts), errors.Is(err, git.ErrUnavailable):
		return exitUnavailable, ""
	case errors.As(err, &cannot), errors.As(err, &absent):
		return exitEnvironment, ""
	case errors.As(err, &place) && errors.As(err, &network):
		return exitUnavailable, "check the address, and HTTPS_PROXY where a proxy leads out"
	case errors.As(err, &missing):
		return exitDockerfile, "check the path, and that .dockerignore does not exclude it"
	case errors.As(err, &platforms), errors.As(err, &owner), errors.As(err, &place), errors.As(err, &source), errors.As(err, &found):
		return exitDockerfile, ""
	case errors.Is(err, git.ErrNotFound), errors.Is(err, git.ErrChecksum):
		return exitDockerfile, ""
	case errors.Is(err, registry.ErrNotFound):
		return exitDockerfile, "check the image's name and tag"
	case errors.As(err, &file):
		return exitDockerfile, ""
	}
	return exitStep, ""
}

// stepCode is the exit code of the step that failed.
func stepCode(err error) (code int, ok bool) {
	if elsewhere, ok := errors.AsType[*job.FailedError](err); ok && elsewhere.Result.StepCode != nil {
		return *elsewhere.Result.StepCode, true
	}
	var exit *sandbox.ExitError
	if errors.As(err, &exit) {
		return exit.Code, true
	}
	return 0, false
}
