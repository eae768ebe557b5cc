// Package cli is the command line: it parses flags, GitHub inputs and
// environment variables into options, calls the package that does the work, and
// turns its error into the last line that a person reads and an exit code.
//
// It only wires. What a flag means is decided where the work is done.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// Version is set by the linker; "dev" is a build from a checkout.
var Version = "dev"

// World is what a command may touch outside of itself.
type World struct {
	Stdout, Stderr io.Writer
	Getenv         func(string) string
}

// grammar is the whole command line.
type grammar struct {
	Build   buildCommand   `cmd:"" help:"Build an image for one or many platforms and publish it."`
	Matrix  matrixCommand  `cmd:"" help:"Print the job matrix of the platforms."`
	Merge   mergeCommand   `cmd:"" help:"Verify digest records and publish the index of their images."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// Main runs the command line and returns the exit code.
func Main(args []string, w World) int {
	ctx, stop := notify()
	defer stop()
	return run(ctx, args, w)
}

// errInterrupted is the cause of a cancelled build.
var errInterrupted = errors.New("cancelled by a signal")

// notify cancels the context on the first signal. A second one ends the process
// at once.
func notify() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		if _, ok := <-signals; ok {
			signal.Stop(signals)
			cancel(errInterrupted)
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel(nil)
	}
}

func run(ctx context.Context, args []string, w World) int {
	g := &grammar{}
	exited := -1
	parser, err := kong.New(g,
		kong.Name("kaniko-multiarch"),
		kong.Description("Multi-architecture container images in CI, without a daemon."),
		kong.Writers(w.Stdout, w.Stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.Resolvers(inputs(w.Getenv)),
		kong.KindMapper(boolKind, strictBool{}),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Bind(&w),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		return report(w, fmt.Errorf("setting up the command line: %w", err))
	}
	kctx, err := parser.Parse(expand(args))
	switch {
	case exited >= 0: // --help
		return exited
	case err != nil:
		return report(w, usageError(err))
	}
	return report(w, kctx.Run())
}

// expand makes the plural aliases of build-push-action the flags they stand
// for.
func expand(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = a
		name, value, hasValue := strings.Cut(a, "=")
		if singular, ok := aliases[name]; ok {
			out[i] = singular
			if hasValue {
				out[i] += "=" + value
			}
		}
	}
	return out
}

var aliases = map[string]string{
	"--tags": "--destination", "--tag": "--destination", "--file": "--dockerfile",
	"--platforms": "--platform", "--labels": "--label", "--annotations": "--annotation",
	"--build-args": "--build-arg", "--build-contexts": "--build-context", "--secrets": "--secret",
	"--add-hosts": "--add-host",
}

type versionCommand struct{}

func (versionCommand) Run(w *World) error {
	_, err := fmt.Fprintln(w.Stdout, "kaniko-multiarch", Version)
	return err
}

// stateDir is where builds keep what outlives them.
func stateDir(getenv func(string) string) string {
	if dir := getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "kaniko-multiarch")
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".cache", "kaniko-multiarch")
	}
	return filepath.Join(os.TempDir(), "kaniko-multiarch")
}

func debugLog(w *World, on bool) *slog.Logger {
	if !on {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(w.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
