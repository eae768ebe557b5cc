package cli

import (
	"bytes"
	"maps"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/build"
)

func TestTranslate(t *testing.T) {
	t.Parallel()
	row := `{"name":"linux/arm64","index":1,"key":"app-1f2e3d","platform":"linux/arm64","runner":{"group":"g"},"qemu":false,
"image":"r.example/app","target":"prod","buildArgs":"A=1\nB=2,3","dockerfile":"x/Dockerfile"}`
	for _, tc := range []struct {
		name, command string
		env           variables
		get           func(build.Options) any
		want          any
	}{
		{"push_is_off", "build", nil, func(o build.Options) any { return o.NoPush }, true},
		{"push", "build", variables{"INPUT_PUSH": "true"}, func(o build.Options) any { return o.NoPush }, false},
		{"push_of_variable", "build", variables{"INPUT_PUSH": "", "KANIKO_MULTIARCH_PUSH": "true"}, func(o build.Options) any { return o.NoPush }, true},
		{"row", "build", variables{"INPUT_ROW": row}, func(o build.Options) any {
			return []any{o.Image, o.Platforms, o.Key, o.Target, o.Dockerfile, o.BuildArgs}
		}, []any{"r.example/app", []string{"linux/arm64"}, "app-1f2e3d", "prod", "x/Dockerfile", map[string]string{"A": "1", "B": "2,3"}}},
		{"input_wins_over_row", "build", variables{"INPUT_ROW": row, "INPUT_PLATFORMS": "linux/amd64", "INPUT_TARGET": "dev"}, func(o build.Options) any {
			return []any{o.Platforms, o.Target}
		}, []any{[]string{"linux/amd64"}, "dev"}},
		{"no_matrix", "build", variables{"INPUT_ROW": "null"}, func(o build.Options) any { return o.Image }, ""},
		{"secret_envs", "build", variables{"INPUT_SECRET-ENVS": "A=B\nC=D"}, func(o build.Options) any { return o.Secrets }, []build.Secret{{ID: "A", Env: "B"}, {ID: "C", Env: "D"}}},
		{"secret_files", "build", variables{"INPUT_SECRET-FILES": "A=./b"}, func(o build.Options) any { return o.Secrets }, []build.Secret{{ID: "A", File: "./b"}}},
		{"secrets", "build", variables{"INPUT_SECRETS": "A=b,c=d\n"}, func(o build.Options) any { return o.Secrets }, []build.Secret{{ID: "A", Env: secretVariable + "A"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, _, err := translate(tc.command, tc.env.lookup)
			assert.NilError(t, err)
			env := maps.Clone(tc.env)
			if env == nil {
				env = variables{}
			}
			maps.Copy(env, s.set)
			g, err := parse(t, env, tc.command)
			assert.NilError(t, err)
			o, err := g.Build.options(&World{Stderr: &bytes.Buffer{}, LookupEnv: s.lookup})
			assert.NilError(t, err)
			assert.Check(t, is.DeepEqual(tc.get(o), tc.want))
		})
	}
}

// The values reach the build, and the log's masks, and nothing else.
func TestTranslate_secrets(t *testing.T) {
	t.Parallel()
	env := variables{
		"INPUT_SECRETS":       "A=one=1,x\n\"B=first\nsecond \"\"quoted\"\"\"\n",
		"INPUT_REGISTRY-AUTH": "- {username: u, password: pass-word}\n- {registry: r.example, username: '', password: ''}",
		"INPUT_GITHUB-TOKEN":  "ghs_x", "GITHUB_TOKEN": "of the job",
	}
	s, masks, err := translate("build", env.lookup)
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(masks, []string{"pass-word", "", "ghs_x", "one=1,x", "first\nsecond \"quoted\""}))
	for name, want := range map[string]string{secretVariable + "A": "one=1,x", secretVariable + "B": "first\nsecond \"quoted\"", "GITHUB_TOKEN": "ghs_x"} {
		got, _ := s.lookup(name)
		assert.Check(t, is.Equal(got, want), name)
	}
}

func TestTranslate_refuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, command string
		env           variables
		want          string
	}{
		{"row_is_no_object", "build", variables{"INPUT_ROW": "[1]"}, "toJSON(matrix)"},
		{"row_of_other_matrix", "build", variables{"INPUT_ROW": `{"platform":["a"]}`}, "platform is no text"},
		{"row_of_matrix_command", "matrix", variables{"INPUT_ROW": "{}"}, "only build and merge"},
		{"secret", "build", variables{"INPUT_SECRETS": "hunter2"}, "NAME=VALUE"},
		{"secret_quote", "build", variables{"INPUT_SECRETS": `"A=hunter2`}, "not closed"},
		{"auth", "merge", variables{"INPUT_REGISTRY-AUTH": "hunter2"}, "YAML list"},
		{"auth_user", "merge", variables{"INPUT_REGISTRY-AUTH": "- {password: hunter2}"}, "entry 1 (docker.io)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := translate(tc.command, tc.env.lookup)
			assert.Check(t, is.ErrorContains(err, tc.want))
			assert.Check(t, isUsage(err))
			assert.Check(t, !strings.Contains(err.Error(), "hunter2"), err)
		})
	}
}

func TestRecords(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"lines", "a=1\n\n  b=2,3  \r\n", []string{"a=1", "b=2,3"}},
		{"quoted", "\"a=1\n2\"\nb", []string{"a=1\n2", "b"}},
		{"quotes_inside", `a="b c"`, []string{`a="b c"`}},
		{"doubled", `"a=""b"""`, []string{`a="b"`}},
		{"empty", " \n", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := records(tc.text)
			assert.NilError(t, err)
			assert.Check(t, is.DeepEqual(got, tc.want))
		})
	}
	_, err := records("\"a\" b")
	assert.Check(t, is.ErrorContains(err, "double"))
}

func TestBuildx_attestations(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, arg, err string }{
		{"sbom", "--sbom=true", "scanner"},
		{"no_sbom", "--sbom=false", ""},
		{"attest", "--attest=type=provenance,mode=max", "attestations"},
		{"attest_off", "--attest=type=provenance,disabled=true", ""},
		{"cgroup", "--cgroup-parent=x", "cgroup"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			g, err := parse(t, nil, "build", tc.arg)
			assert.NilError(t, err)
			_, err = g.Build.options(&World{Stderr: &bytes.Buffer{}, LookupEnv: variables(nil).lookup})
			if tc.err == "" {
				assert.NilError(t, err)
				return
			}
			assert.Check(t, is.ErrorContains(err, tc.err))
			assert.Check(t, isUsage(err))
		})
	}
}
