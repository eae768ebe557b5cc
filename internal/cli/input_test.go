package cli

import (
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestInputs(t *testing.T) {
	t.Parallel()
	text := func(pick func(*buildCommand) string) func(*grammar) any {
		return func(g *grammar) any { return pick(&g.Build) }
	}
	target := text(func(c *buildCommand) string { return c.Target })
	dockerfile := text(func(c *buildCommand) string { return c.Dockerfile })
	digestFile := text(func(c *buildCommand) string { return c.DigestFile })
	contextDir := text(func(c *buildCommand) string { return c.Context })
	destination := func(g *grammar) any { return splitList(g.Build.Destination) }
	buildArg := func(g *grammar) any { return g.Build.BuildArg }
	push := func(g *grammar) any { return g.Build.Push == nil || *g.Build.Push }
	retries := func(g *grammar) any { return g.Build.PushRetry }
	for _, tc := range []struct {
		name string
		env  variables
		args []string
		get  func(*grammar) any
		want any
	}{
		{"nothing_set", nil, nil, target, ""},
		{"flag", nil, []string{"--target=a"}, target, "a"},
		{"input", variables{"INPUT_TARGET": "a"}, nil, target, "a"},
		{"environment", variables{"KANIKO_MULTIARCH_TARGET": "a"}, nil, target, "a"},
		{"flag_wins_over_input", variables{"INPUT_TARGET": "b", "KANIKO_MULTIARCH_TARGET": "c"}, []string{"--target=a"}, target, "a"},
		{"input_wins_over_environment", variables{"INPUT_TARGET": "a", "KANIKO_MULTIARCH_TARGET": "b"}, nil, target, "a"},
		{"empty_input_is_unset", variables{"INPUT_TARGET": "", "KANIKO_MULTIARCH_TARGET": "a"}, nil, target, "a"},
		{"empty_input_leaves_the_default", variables{"INPUT_CONTEXT": "", "KANIKO_MULTIARCH_CONTEXT": ""}, nil, contextDir, "."},
		{"empty_flag_wins", variables{"INPUT_TARGET": "b"}, []string{"--target="}, target, ""},
		{"input_wins_over_default", variables{"INPUT_CONTEXT": "dir"}, nil, contextDir, "dir"},
		{"input_keeps_hyphens", variables{"INPUT_DIGEST-FILE": "a", "INPUT_DIGEST_FILE": "b"}, nil, digestFile, "a"},
		{"input_with_underscore_is_no_input", variables{"INPUT_DIGEST_FILE": "b"}, nil, digestFile, ""},
		{"environment_has_underscores", variables{"KANIKO_MULTIARCH_DIGEST_FILE": "a"}, nil, digestFile, "a"},
		{"names_are_upper_case", variables{"INPUT_target": "b", "kaniko_multiarch_target": "c"}, nil, target, ""},

		{"plural_flag", nil, []string{"--tags=r/a:1,r/a:2"}, destination, []string{"r/a:1", "r/a:2"}},
		{"plural_flag_with_space", nil, []string{"--tags", "r/a:1"}, destination, []string{"r/a:1"}},
		{"plural_input", variables{"INPUT_TAGS": "r/a:1\nr/a:2\n"}, nil, destination, []string{"r/a:1", "r/a:2"}},
		{"plural_environment", variables{"KANIKO_MULTIARCH_TAGS": "r/a:1"}, nil, destination, []string{"r/a:1"}},
		{"singular_flag_wins_over_plural_input", variables{"INPUT_TAGS": "r/b:1"}, []string{"--destination=r/a:1"}, destination, []string{"r/a:1"}},
		{"plural_input_wins_over_singular_environment", variables{"INPUT_TAGS": "r/a:1", "KANIKO_MULTIARCH_DESTINATION": "r/b:1"}, nil, destination, []string{"r/a:1"}},
		{"empty_plural_beside_singular", variables{"INPUT_TAGS": "", "INPUT_DESTINATION": "r/a:1"}, nil, destination, []string{"r/a:1"}},
		{"json_list", nil, []string{`--tags=["r/a:1", "r/a:2,r/a:3"]`, "--tags=r/a:4"}, destination, []string{"r/a:1", "r/a:2", "r/a:3", "r/a:4"}},
		{"json_list_in_the_environment", variables{"KANIKO_MULTIARCH_TAGS": `["r/a:1"]`}, nil, destination, []string{"r/a:1"}},
		{"no_json_list", nil, []string{"--tags=[r/a:1]", "--tags=null"}, destination, []string{"[r/a:1]", "null"}},
		{"file", variables{"INPUT_FILE": "a"}, nil, dockerfile, "a"},
		{"plural_with_hyphen", variables{"INPUT_BUILD-ARGS": "A=1,2\nB=3"}, nil, buildArg, []string{"A=1,2", "B=3"}},
		{"repeated_flags_add_up", nil, []string{"--build-arg=A=1,2", "--build-arg", "B=3\nC"}, buildArg, []string{"A=1,2", "B=3\nC"}},

		{"boolean_default", nil, nil, push, true},
		{"boolean_input_false", variables{"INPUT_PUSH": "false"}, nil, push, false},
		{"boolean_empty_input", variables{"INPUT_PUSH": ""}, nil, push, true},
		{"boolean_flag_alone", variables{"INPUT_PUSH": "false"}, []string{"--push"}, push, true},
		{"number", variables{"INPUT_PUSH-RETRY": "7"}, nil, retries, 7},
		{"help_is_no_input", variables{"INPUT_HELP": "true", "KANIKO_MULTIARCH_HELP": "true"}, nil, target, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			g, err := parse(t, tc.env, append([]string{"build"}, tc.args...)...)
			assert.NilError(t, err)
			assert.Check(t, is.DeepEqual(tc.get(g), tc.want))
		})
	}
}

// Every alias is the name of a flag of some command, and works as an input.
func TestAliases(t *testing.T) {
	t.Parallel()
	for alias, name := range aliases {
		t.Run(alias[2:], func(t *testing.T) {
			t.Parallel()
			for _, env := range []variables{
				{inputVariable(alias[2:]): "a", inputVariable(name[2:]): "b"},
				{environmentVariable(alias[2:]): "a", environmentVariable(name[2:]): "b"},
			} {
				_, err := parse(t, env, "build")
				assert.Check(t, is.ErrorContains(err, "are both set: set one"))
			}
			_, err := parse(t, variables{inputVariable(alias[2:]): "a"}, "build")
			assert.Check(t, err)
			_, err = parse(t, nil, "build", alias, "a")
			assert.Check(t, err)
			_, err = parse(t, nil, "build", alias+"=a=b")
			assert.Check(t, err)
		})
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	args := []string{"build", "--labels", "--", "--tag=a=b", "--file=", "--tagsx=1", "tags", "-f"}
	got, err := expand(args)
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(got, []string{"build", "--label", "--", "--destination=a=b", "--dockerfile=", "--tagsx=1", "tags", "-f"}))
	assert.Check(t, is.Equal(args[1], "--labels"), "the arguments of the caller changed")
}

func TestBooleans(t *testing.T) {
	t.Parallel()
	good := map[string]bool{"true": true, "True": true, "TRUE": true, "false": false, "False": false, "FALSE": false}
	for value, want := range good {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			for _, in := range []struct {
				env  variables
				args []string
			}{
				{nil, []string{"--no-push=" + value}},
				{variables{"INPUT_NO-PUSH": value}, nil},
				{variables{"KANIKO_MULTIARCH_NO_PUSH": value}, nil},
			} {
				g, err := parse(t, in.env, append([]string{"build"}, in.args...)...)
				assert.NilError(t, err)
				assert.Check(t, is.Equal(g.Build.NoPush, want))
			}
		})
	}
	for _, value := range []string{"yes", "no", "on", "1", "0", "t", "tRUE", "flase", " true"} {
		t.Run("bad_"+value, func(t *testing.T) {
			t.Parallel()
			for _, in := range []struct {
				env  variables
				args []string
			}{
				{nil, []string{"--no-push=" + value}},
				{variables{"INPUT_NO-PUSH": value}, nil},
				{variables{"KANIKO_MULTIARCH_NO_PUSH": value}, nil},
			} {
				_, err := parse(t, in.env, append([]string{"build"}, in.args...)...)
				assert.Check(t, is.ErrorContains(err, "is not a boolean: use true or false"))
				assert.Check(t, is.ErrorContains(err, "--no-push"))
			}
		})
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		in   []string
		list []string
	}{
		{"nothing", nil, nil},
		{"empty", []string{"", " ", "\n", "\r\n"}, nil},
		{"only_commas", []string{",,\n,"}, nil},
		{"one", []string{"a"}, []string{"a"}},
		{"commas", []string{"a, b,,c"}, []string{"a", "b", "c"}},
		{"newlines", []string{"a\n b \n\nc\n"}, []string{"a", "b", "c"}},
		{"windows_newlines", []string{"a\r\nb\r\n"}, []string{"a", "b"}},
		{"several_values", []string{"a,b", "c\nd"}, []string{"a", "b", "c", "d"}},
		{"order_and_repetition_stay", []string{"b", "a,b"}, []string{"b", "a", "b"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			assert.Check(t, is.DeepEqual(splitList(tc.in), tc.list))
		})
	}
}

func TestPairs(t *testing.T) {
	t.Parallel()
	bare := func(name string) (string, bool) { return "of " + name, name == "SET" }
	for _, tc := range []struct {
		name string
		in   []string
		bare func(string) (string, bool)
		want map[string]string
		err  string
	}{
		{"nothing", nil, nil, map[string]string{}, ""},
		{"pair", []string{"a=b"}, nil, map[string]string{"a": "b"}, ""},
		{"empty_value", []string{"a="}, nil, map[string]string{"a": ""}, ""},
		{"value_with_equals_and_comma", []string{"a=b=c,d=e"}, nil, map[string]string{"a": "b=c,d=e"}, ""},
		{"newline_in_a_value", []string{"a=1\nb=2", "c=3"}, nil, map[string]string{"a": "1\nb=2", "c": "3"}, ""},
		{"last_wins", []string{"a=1", "a=2"}, nil, map[string]string{"a": "2"}, ""},
		{"bare_with_value", []string{"SET"}, bare, map[string]string{"SET": "of SET"}, ""},
		{"bare_without_value", []string{"UNSET", "a=1"}, bare, map[string]string{"a": "1"}, ""},
		{"empty_value_is_not_bare", []string{"SET="}, bare, map[string]string{"SET": ""}, ""},
		{"bare_refused", []string{"a"}, nil, nil, `--some-flag "a": want NAME=VALUE`},
		{"no_name", []string{"=a"}, bare, nil, `--some-flag "=a": want NAME=VALUE`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := pairs("some-flag", tc.in, tc.bare)
			if tc.err != "" {
				assert.Check(t, is.Error(err, tc.err))
				assert.Check(t, isUsage(err))
				return
			}
			assert.NilError(t, err)
			assert.Check(t, is.DeepEqual(got, tc.want))
		})
	}
}
