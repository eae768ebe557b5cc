package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// asked runs build on a Dockerfile with the given flags.
func asked(t *testing.T, env variables, dockerfile string, flags ...string) (code int, stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644))
	var out, errs bytes.Buffer
	w := World{Stdout: &out, Stderr: &errs, LookupEnv: env.lookup}
	code = run(t.Context(), append([]string{"build", "--context", dir, "--platform", "linux/amd64,linux/arm64"}, flags...), w)
	return code, strings.ReplaceAll(out.String(), dir+"/", ""), errs.String()
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, dockerfile string
		env              variables
		flags            []string
		code             int
		stdout, stderr   []string
	}{
		{"clean", "FROM scratch\nCOPY a /\n", nil, []string{"--check"}, 0, []string{"Check complete, no warnings found."}, nil},
		{"two", "FROM scratch as A\nMAINTAINER me\n", nil, []string{"--check"}, 3, []string{
			"WARNING: FromAsCasing - https://docs.docker.com/", "Dockerfile:1\n   1 | FROM scratch as A\n     | ^^^^^^^^^^^^^^^^^\n",
			"WARNING: MaintainerDeprecated", "Check complete, 3 warnings have been found!",
		}, []string{"error: 3 checks have failed"}},
		{"one", "FROM scratch\nMAINTAINER me\n", nil, []string{"--call=check"}, 3, []string{"1 warning has been found!"}, []string{"error: 1 check has failed"}},
		{"skipped_by_line", "# check=skip=all\nFROM scratch\nMAINTAINER me\n", nil, []string{"--check"}, 0, []string{"no warnings"}, nil},
		{"skipped_by_argument", "FROM scratch\nMAINTAINER me\n", nil, []string{"--check", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"}, 0, []string{"no warnings"}, nil},
		{"error_of_build", "FROM scratch\nMAINTAINER me\nRUNN x\n", nil, []string{"--check"}, 3, nil, []string{"   3 | RUNN x\n     | ^^^^^^\n", "unknown instruction: RUNN"}},
		{"json", "FROM scratch\nMAINTAINER me\n", nil, []string{"--call=check,format=json"}, 3, []string{`"ruleName": "MaintainerDeprecated"`}, nil},
		{"outline", "ARG TOP=1\nFROM scratch\nARG INNER=2\nRUN --mount=type=secret,id=token x\n", nil, []string{"--call=outline"}, 0, []string{"INNER", "token"}, nil},
		{"targets", "FROM scratch AS first\nFROM scratch AS second\n", nil, []string{"--call", "targets"}, 0, []string{"first", "second (default)"}, nil},
		{"plan", "FROM scratch AS a\nCOPY x /\nFROM scratch\nCOPY --from=a x /y\n", nil, []string{"--call=plan"}, 0, []string{"Dockerfile:2: [linux/amd64 a 1/1] COPY x /\n", "Dockerfile:4: [linux/amd64 stage-1 1/1] COPY --from=a x /y\n"}, nil},
		{"plan_json", "FROM scratch\nCOPY x /\n", nil, []string{"--call=plan,format=json"}, 0, []string{`"line": 2`}, nil},
		{"plan_of_nothing", "FROM scratch\nRUNN x\n", nil, []string{"--call=plan"}, 3, nil, []string{"unknown instruction"}},
		{"unknown_method", "FROM scratch\n", nil, []string{"--call=lines"}, 2, nil, []string{"use build, check, outline, targets or plan"}},
		{"unknown_format", "FROM scratch\n", nil, []string{"--call=check,format=xml"}, 2, nil, []string{"format=json"}},
		{"two_methods", "FROM scratch\n", nil, []string{"--check", "--call=targets"}, 2, nil, []string{"use one of them"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := asked(t, tc.env, tc.dockerfile, tc.flags...)
			assert.Check(t, is.Equal(code, tc.code), stderr)
			for _, want := range tc.stdout {
				assert.Check(t, is.Contains(stdout, want))
			}
			for _, want := range tc.stderr {
				assert.Check(t, is.Contains(stderr, want))
			}
			assert.Check(t, !strings.Contains(stderr, "::"), stderr)
		})
	}
}

func TestCheck_annotations(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nMAINTAINER me\nRUNN x\n"), 0o644))
	var out, errs bytes.Buffer
	env := variables{"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": filepath.Dir(dir)}
	code := run(t.Context(), []string{"build", "--check", "--context", dir, "--dockerfile", filepath.Join(dir, "Dockerfile")}, World{Stdout: &out, Stderr: &errs, LookupEnv: env.lookup})
	assert.Check(t, is.Equal(code, exitDockerfile))
	assert.Check(t, is.Contains(errs.String(), "::error file="+filepath.Base(dir)+"/Dockerfile,line=3::unknown instruction: RUNN"))
}

// What a Dockerfile says cannot end an annotation and begin another command.
func TestAnnotate_escapes(t *testing.T) {
	t.Parallel()
	var errs bytes.Buffer
	w := &World{Stderr: &errs, LookupEnv: variables{"GITHUB_ACTIONS": "true"}.lookup}
	annotate(w, "warning", "a,b:c%", 7, "Rule", "100%\r\n::set-env name=x::y")
	assert.Check(t, is.Equal(errs.String(), "::warning file=a%2Cb%3Ac%25,line=7,title=Rule::100%25%0D%0A::set-env name=x::y\n"))
	errs.Reset()
	annotate(w, "warning", "a", 0, "Rule", "text")
	annotate(&World{Stderr: &errs, LookupEnv: variables{}.lookup}, "warning", "a", 1, "Rule", "text")
	assert.Check(t, is.Equal(errs.String(), ""))
}
