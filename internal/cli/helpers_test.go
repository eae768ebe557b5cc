package cli

import (
	"bytes"
	"errors"
	"testing"

	"github.com/alecthomas/kong"
	"gotest.tools/v3/assert"
)

// variables is an environment without the process's.
type variables map[string]string

func (v variables) get(name string) string { return v[name] }

func (v variables) lookup(name string) (string, bool) {
	value, ok := v[name]
	return value, ok
}

// parser reads a command line as run does, but runs nothing.
func parser(t *testing.T, env variables) (*grammar, *kong.Kong) {
	t.Helper()
	g := &grammar{}
	k, err := kong.New(g,
		kong.Writers(&bytes.Buffer{}, &bytes.Buffer{}),
		kong.Exit(func(int) { t.Error("the parser wanted to exit") }),
		kong.Resolvers(inputs(env.get)),
		kong.KindMapper(boolKind, strictBool{}),
	)
	assert.NilError(t, err)
	return g, k
}

func parse(t *testing.T, env variables, args ...string) (*grammar, error) {
	t.Helper()
	g, k := parser(t, env)
	args, err := expand(args)
	if err != nil {
		return g, err
	}
	_, err = k.Parse(args)
	return g, err
}

type outcome struct {
	code           int
	stdout, stderr string
}

func runWith(t *testing.T, env variables, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, World{Stdout: &stdout, Stderr: &stderr, LookupEnv: env.lookup})
	return outcome{code, stdout.String(), stderr.String()}
}

func isUsage(err error) bool {
	_, ok := errors.AsType[*usage](err)
	return ok
}
