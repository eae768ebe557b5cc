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

	"github.com/org/kaniko-multiarch/internal/ci"
)

// Version is set by the linker; "dev" is a build from a checkout.
var Version = "dev"

// World is what a command may touch outside of itself.
type World struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	LookupEnv      func(string) (string, bool)

	// console is set in a step of GitHub Actions.
	console *ci.Console
}

// Getenv is a variable's value, empty when it is not set.
func (w World) Getenv(name string) string {
	v, _ := w.LookupEnv(name)
	return v
}

// grammar is the whole command line.
type grammar struct {
	Build   buildCommand   `cmd:"" help:"Build an image for one or many platforms and publish it."`
	Matrix  matrixCommand  `cmd:"" help:"Print the job matrix of the platforms."`
	Merge   mergeCommand   `cmd:"" help:"Verify digest records and publish the index of their images."`
	Doctor  doctorCommand  `cmd:"" help:"Print what this place allows a build, with the fix for what it lacks."`
	Prune   pruneCommand   `cmd:"" help:"Remove base layers and cache mounts of earlier builds from this machine."`
	Job     jobCommand     `cmd:"" hidden:"" help:"Build what a driver elsewhere asks for."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// Main runs the command line, args[0] being the program's name, and returns the
// exit code. Called as executor it takes kaniko's flags.
func Main(args []string, w World) int {
	ctx, stop := notify()
	defer stop()
	if filepath.Base(args[0]) == executorName {
		return runExecutor(ctx, args[1:], w)
	}
	if len(args) > 1 && args[1] == actionName {
		return runAction(ctx, args[2:], w)
	}
	return run(ctx, args[1:], w)
}

// errInterrupted is the cause of a cancelled build.
var errInterrupted = errors.New("cancelled by a signal")

// notify cancels the context on the first signal. A second one ends the process
// at once.
func notify() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
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
	args, err = expand(args)
	if err != nil {
		return report(w, err)
	}
	kctx, err := parser.Parse(args)
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
func expand(args []string) ([]string, error) {
	out := make([]string, len(args))
	spelled := map[string]string{}
	for i, a := range args {
		out[i] = a
		name, value, hasValue := strings.Cut(a, "=")
		if !strings.HasPrefix(name, "--") {
			continue
		}
		flag, alias := aliases[name]
		if !alias {
			flag = name
		}
		if other, ok := spelled[flag]; ok && other != name {
			return nil, usagef("%s and %s are the same flag: use one of them", other, name)
		}
		spelled[flag] = name
		if alias && hasValue {
			out[i] = flag + "=" + value
		} else if alias {
			out[i] = flag
		}
	}
	return out, nil
}

var aliases = map[string]string{
	"--tags": "--destination", "--tag": "--destination", "--file": "--dockerfile",
	"--platforms": "--platform", "--labels": "--label", "--annotations": "--annotation",
	"--build-args": "--build-arg", "--build-contexts": "--build-context", "--secrets": "--secret",
	"--add-hosts": "--add-host", "--outputs": "--output", "--no-cache-filters": "--no-cache-filter",
	"--attests": "--attest", "--secret-envs": "--secret-env", "--secret-files": "--secret-file",
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
