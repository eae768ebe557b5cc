package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/fileop"
	"github.com/org/kaniko-multiarch/internal/frontend"
	"github.com/org/kaniko-multiarch/internal/job"
	"github.com/org/kaniko-multiarch/internal/registry"
	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/merge"
)

func TestReport(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	step := func(err error) error { return &engine.StepError{Name: "[1/1] RUN x", Err: err} }
	inFile := func(err error) error { return &frontend.Error{File: "Dockerfile", Line: 2, Err: err} }
	for _, tc := range []struct {
		name string
		err  error
		code int
		hint string
	}{
		{"step_fails", step(&sandbox.ExitError{Code: 3}), 1, "see its output above"},
		{"step_is_killed", step(&sandbox.ExitError{Code: 137}), 1, "see its output above"},
		{"other_error_of_a_step", step(cause), 1, ""},
		{"unknown_error", cause, 1, ""},
		{"elsewhere", fmt.Errorf("building: %w", &job.FailedError{Platform: "linux/arm64", Result: job.Result{ExitCode: 4, Error: "cause"}}), 4, ""},
		{"timeout", &local.TimeoutError{Limit: time.Minute}, 1, ""},
		{"deadline", context.DeadlineExceeded, 1, ""},

		{"usage", usagef("bad"), 2, ""},
		{"usage_with_cause", usagef("bad: %w", registry.ErrDenied), 2, ""},
		{"driver_input", &local.InputError{Err: cause}, 2, ""},
		{"unsupported_context", &local.ContextError{Name: "context", Err: fmt.Errorf("a git context is %w", buildcontext.ErrUnsupported)}, 2, ""},
		{"merge_usage", &merge.UsageError{Err: cause}, 2, ""},
		{"secret_of_a_step", step(&engine.SecretError{ID: "x"}), 2, ""},

		{"dockerfile", inFile(cause), 3, ""},
		{"front_end", inFile(&frontend.UnsupportedFrontendError{Source: "x"}), 3, ""},
		{"missing_file", step(&fileop.NotFoundError{Path: "/x"}), 3, "check the path, and that .dockerignore does not exclude it"},
		{"unknown_owner", step(&fileop.UnknownOwnerError{Kind: "user", Name: "x"}), 3, ""},
		{"base_without_platform", inFile(&registry.PlatformError{}), 3, ""},
		{"base_not_found", inFile(registry.ErrNotFound), 3, "check the image's name and tag"},
		{"download", step(&engine.SourceError{Err: cause}), 3, ""},
		{"context", &local.ContextError{Name: "context", Err: cause}, 3, ""},

		{"context_out_of_reach", &local.ContextError{Name: "context", Err: fmt.Errorf("x: %w", &net.OpError{Op: "dial", Err: cause})}, 5, "check the address, and HTTPS_PROXY where a proxy leads out"},
		{"context_not_there", &local.ContextError{Name: "context", Err: syscall.ENOENT}, 3, ""},
		{"denied", registry.ErrDenied, 4, ""},
		{"denied_base", inFile(registry.ErrDenied), 4, ""},
		{"denied_tag", &merge.TagError{Tag: "x", Err: registry.ErrDenied}, 4, ""},
		{"unavailable", registry.ErrUnavailable, 5, ""},
		{"unavailable_base", inFile(registry.ErrUnavailable), 5, ""},
		{"unavailable_tag", &merge.TagError{Tag: "x", Err: registry.ErrUnavailable}, 5, ""},

		{"environment", &sandbox.UnsupportedError{What: "x", Fix: "y"}, 6, ""},
		{"no_emulation", step(&sandbox.UnsupportedError{What: "x", Fix: "y"}), 6, ""},

		{"verification", &merge.VerifyError{Problems: []string{"x"}}, 7, ""},
		{"interrupted", errInterrupted, 130, ""},
		{"interrupted_step", step(errInterrupted), 130, ""},
		{"interrupted_wins", errors.Join(step(&sandbox.ExitError{Code: 143}), errInterrupted), 130, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, err := range []error{
				tc.err,
				fmt.Errorf("outer: %w", tc.err),
				&redactedError{err: tc.err, text: tc.err.Error()},
			} {
				var stderr bytes.Buffer
				assert.Check(t, is.Equal(report(World{Stderr: &stderr}, err), tc.code))
				want := "error: " + err.Error()
				if tc.hint != "" {
					want += ": " + tc.hint
				}
				assert.Check(t, is.Equal(stderr.String(), want+"\n"))
			}
		})
	}
}

func TestReport_prints(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		err  error
		code int
		want string
	}{
		{"nothing_without_error", nil, 0, ""},
		{"nothing_for_the_child", exitError(3), 3, ""},
		{"nothing_for_a_child_that_succeeded", fmt.Errorf("entering: %w", exitError(0)), 0, ""},
		{"excerpt_before_the_error", fmt.Errorf("loading: %w", &frontend.Error{File: "D", Line: 1, Excerpt: "   1 | X\n     | ^\n", Err: errors.New("bad")}), 3, "   1 | X\n     | ^\nerror: loading: D:1: bad\n"},
		{"redacted_text", &redactedError{err: step("secret"), text: "***"}, 1, "error: ***: see its output above\n"},
		{"no_newline_of_the_error", errors.New("bad\n"), 1, "error: bad\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var stderr bytes.Buffer
			assert.Check(t, is.Equal(report(World{Stderr: &stderr}, tc.err), tc.code))
			assert.Check(t, is.Equal(stderr.String(), tc.want))
		})
	}
}

func step(name string) error {
	return &engine.StepError{Name: name, Err: &sandbox.ExitError{Code: 1}}
}

// The codes are a contract.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	got := []int{exitOK, exitStep, exitUsage, exitDockerfile, exitDenied, exitUnavailable, exitEnvironment, exitVerify, exitCancelled}
	assert.Check(t, is.DeepEqual(got, []int{0, 1, 2, 3, 4, 5, 6, 7, 130}))
}

// The code of a failed step is executor's, wherever it ran.
func TestStepCode(t *testing.T) {
	t.Parallel()
	three := 3
	for _, tc := range []struct {
		name string
		err  error
		code int
		ok   bool
	}{
		{"here", &engine.StepError{Name: "x", Err: &sandbox.ExitError{Code: 3}}, 3, true},
		{"elsewhere", fmt.Errorf("x: %w", &job.FailedError{Result: job.Result{ExitCode: 1, StepCode: &three}}), 3, true},
		{"no_step", &job.FailedError{Result: job.Result{ExitCode: 1}}, 0, false},
		{"other", errors.New("x"), 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, ok := stepCode(tc.err)
			assert.Check(t, is.Equal(code, tc.code))
			assert.Check(t, is.Equal(ok, tc.ok))
		})
	}
}

// The pod has the Secret where job looks for it.
func TestJob_defaults(t *testing.T) {
	t.Parallel()
	g, err := parse(t, nil, "job", "--request=x")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(g.Job.SecretDir, job.SecretDir))
}
