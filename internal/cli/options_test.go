package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/build"
)

// buildFlags gives every flag of build that ends in build.Options a value that
// is not its default.
func buildFlags() map[string]string {
	return map[string]string{
		"context": "dir", "context-sub-path": "sub", "git": "branch=b,single-branch=true,depth=3,recurse-submodules=true,insecure-skip-tls=true", "dockerfile": "Dockerfile.x", "platform": "linux/arm64", "destination": "r/a:1", "image": "r/a",
		"push-by-digest": "true", "push": "false", "no-push": "true", "publish-index": "true", "target": "stage",
		"build-arg": "SOURCE_DATE_EPOCH=7", "label": "l=1", "annotation": "a=1", "secret": "id=x,src=f", "secret-env": "e=V", "secret-file": "f=p",
		"build-context": "n=dir", "add-host": "h:1.2.3.4", "no-cache": "true", "no-cache-filter": "s", "reproducible": "true",
		"oci-mode": "oci", "digests-to": "d", "key": "k", "digest-file": "df", "metadata-file": "mf",
		"insecure-registry": "h:1", "push-retry": "9", "push-retry-initial-delay": "11", "push-retry-max-delay": "13",
		"state-dir": "/state", "state-size": "1g", "parallel": "3", "timeout": "5m",
		"cache": "true", "cache-repo": "registry.example.com/c", "cache-from": "type=registry,ref=r/c:tag\ntype=local,src=/dir", "cache-to": "type=local,dest=/dir,mode=max\nr/d", "cache-ttl": "5m", "no-push-cache": "true",
		"compression": "zstd", "compression-level": "7", "oci-layout-path": "layout", "tar-path": "t.tar",
		"registry-mirror": "m", "registry-map": "a=b", "skip-default-registry-fallback": "true", "registry-certificate": "r=f",
		"registry-client-cert": "r=c,k", "insecure": "true", "insecure-pull": "true", "skip-tls-verify": "true", "skip-push-permission-check": "true",
		"skip-tls-verify-pull": "true", "skip-tls-verify-registry": "h", "credential-helpers": "env",
		"push-ignore-immutable-tag-errors": "true", "require-native-nodes": "true",
		"output": "type=oci,dest=f,tar=false,name=a:1,rewrite-timestamp=true\ntype=tar,dest=g,platform-split=true", "load": "true",
		"ssh": "a=/key", "network": "none", "allow": "security.insecure", "ulimit": "nofile=1", "shm-size": "1m",
		"image-name-with-digest-file": "n", "image-name-tag-with-digest-file": "nt",
	}
}

// besides are the flags of build that say nothing about what is built.
func besides() []string {
	return append(kubernetesNames(),
		"help", "check", "call", "isolation", "force", "progress", "profile", "verbose",
		"handover", "pull", "builder", "provenance", "sbom", "attest", "cgroup-parent",
	)
}

func buildOptions(t *testing.T, env variables, args ...string) (build.Options, error) {
	t.Helper()
	g, err := parse(t, env, append([]string{"build"}, args...)...)
	assert.NilError(t, err)
	return g.Build.options(&World{LookupEnv: env.lookup})
}

func flagsOf(t *testing.T, command string) []*kong.Flag {
	t.Helper()
	_, k := parser(t, nil)
	for _, node := range k.Model.Children {
		if node.Name == command {
			return slices.Concat(k.Model.Flags, node.Flags)
		}
	}
	t.Fatalf("there is no command %s", command)
	return nil
}

// No flag is forgotten on the way to build.Options: each one alone changes
// them, whether it comes as a flag, as an input or from the environment.
func TestOptions_use_every_flag(t *testing.T) {
	t.Parallel()
	base, err := buildOptions(t, nil)
	assert.NilError(t, err)
	values := buildFlags()
	for _, flag := range flagsOf(t, "build") {
		if slices.Contains(besides(), flag.Name) {
			continue
		}
		t.Run(flag.Name, func(t *testing.T) {
			t.Parallel()
			value, ok := values[flag.Name]
			assert.Assert(t, ok, "a new flag: give it a value in buildFlags, or name it in besides")
			byFlag, err := buildOptions(t, nil, "--"+flag.Name+"="+value)
			assert.NilError(t, err)
			assert.Check(t, !reflect.DeepEqual(byFlag, base), "--%s changes nothing", flag.Name)
			for _, variable := range []string{inputVariable(flag.Name), environmentVariable(flag.Name)} {
				byVariable, err := buildOptions(t, variables{variable: value})
				assert.NilError(t, err)
				assert.Check(t, is.DeepEqual(byVariable, byFlag), variable)
			}
		})
	}
}

// No field is without a flag: with all flags given, none has its zero value.
func TestOptions_fill_every_field(t *testing.T) {
	t.Parallel()
	args := []string{"--secret=id=y,env=V"}
	for name, value := range buildFlags() {
		args = append(args, "--"+name+"="+value)
	}
	o, err := buildOptions(t, nil, args...)
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(zeroFields("Options", reflect.ValueOf(o)), []string(nil)))
	// The walk must be able to find something.
	assert.Check(t, is.Contains(zeroFields("Options", reflect.ValueOf(build.Options{})), "Options.Registries.Retry.Count"))
}

// The options travel to other machines.
func TestOptions_survive_JSON(t *testing.T) {
	t.Parallel()
	var args []string
	for name, value := range buildFlags() {
		args = append(args, "--"+name+"="+value)
	}
	full, err := buildOptions(t, nil, args...)
	assert.NilError(t, err)
	none, err := buildOptions(t, nil, "--credential-helpers=")
	assert.NilError(t, err)
	assert.Check(t, none.Registries.CredentialHelpers != nil)
	for _, o := range []build.Options{full, none, {}} {
		data, err := json.Marshal(o)
		assert.NilError(t, err)
		var back build.Options
		assert.NilError(t, json.Unmarshal(data, &back))
		assert.Check(t, is.DeepEqual(back, o))
	}
}

// zeroFields names the fields without a value. A field of a slice's elements
// counts as filled when it is in one of them.
func zeroFields(name string, v reflect.Value) []string {
	var out []string
	switch {
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			out = append(out, zeroFields(name+"."+v.Type().Field(i).Name, v.Field(i))...)
		}
	case v.Kind() == reflect.Slice && v.Len() > 0:
		for i := range v.Len() {
			missing := zeroFields(name, v.Index(i))
			if i > 0 {
				missing = slices.DeleteFunc(missing, func(s string) bool { return !slices.Contains(out, s) })
			}
			out = missing
		}
	case v.Kind() == reflect.Map && v.Len() == 0, v.IsZero():
		out = append(out, name)
	}
	return out
}

func TestOptions(t *testing.T) {
	t.Parallel()
	seconds := func(n int64) *int64 { return &n }
	for _, tc := range []struct {
		name string
		env  variables
		args []string
		get  func(build.Options) any
		want any
	}{
		{"push_is_default", nil, nil, func(o build.Options) any { return o.NoPush }, false},
		{"push_false", nil, []string{"--push=false"}, func(o build.Options) any { return o.NoPush }, true},
		{"no_push_wins_over_push", nil, []string{"--push", "--no-push"}, func(o build.Options) any { return o.NoPush }, true},
		{"input_push_false", variables{"INPUT_PUSH": "false"}, nil, func(o build.Options) any { return o.NoPush }, true},
		{"default_retry", nil, nil, func(o build.Options) any { return o.Registries.Retry }, build.Retry{Count: 5, InitialDelay: time.Second, MaxDelay: 30 * time.Second}},
		{"no_retry", nil, []string{"--push-retry=0"}, func(o build.Options) any { return o.Registries.Retry.Count }, -1},
		{"retry_delay_in_milliseconds", nil, []string{"--push-retry-initial-delay=20"}, func(o build.Options) any { return o.Registries.Retry.InitialDelay }, 20 * time.Millisecond},
		{"platforms", nil, []string{"--platform", "linux/amd64,linux/arm64\nlinux/arm"}, func(o build.Options) any { return o.Platforms }, []string{"linux/amd64", "linux/arm64", "linux/arm"}},
		{"annotation_with_comma", nil, []string{"--annotation", "index,manifest:a=b,c"}, func(o build.Options) any { return o.Annotations }, []string{"index,manifest:a=b,c"}},
		{"insecure_registries", nil, []string{"--insecure-registry", "a:1,b"}, func(o build.Options) any { return o.Registries.Insecure }, []string{"a:1", "b"}},
		{"build_arg_of_environment", variables{"A": "1"}, []string{"--build-arg=A", "--build-arg=B"}, func(o build.Options) any { return o.BuildArgs }, map[string]string{"A": "1"}},
		{"named_context", nil, []string{"--build-context", "base=docker-image://alpine:3"}, func(o build.Options) any { return o.BuildContexts }, map[string]string{"base": "docker-image://alpine:3"}},
		{"secrets", nil, []string{"--secret", "id=a,src=f", "--secret", "id=b,env=V"}, func(o build.Options) any { return o.Secrets }, []build.Secret{{ID: "a", File: "f"}, {ID: "b", Env: "V"}}},
		{"state_dir_of_home", variables{"HOME": "/home/x"}, nil, func(o build.Options) any { return o.StateDir }, "/home/x/.cache/kaniko-multiarch"},
		{"state_dir_flag", variables{"HOME": "/home/x"}, []string{"--state-dir=/s"}, func(o build.Options) any { return o.StateDir }, "/s"},

		{"epoch_unset", nil, nil, func(o build.Options) any { return o.SourceDateEpoch }, (*int64)(nil)},
		{"epoch_of_environment", variables{"SOURCE_DATE_EPOCH": "12"}, nil, func(o build.Options) any { return o.SourceDateEpoch }, seconds(12)},
		{"epoch_of_environment_is_an_argument", variables{"SOURCE_DATE_EPOCH": "12"}, nil, func(o build.Options) any { return o.BuildArgs }, map[string]string{"SOURCE_DATE_EPOCH": "12"}},
		{"epoch_of_argument", nil, []string{"--build-arg=SOURCE_DATE_EPOCH=0"}, func(o build.Options) any { return o.SourceDateEpoch }, seconds(0)},
		{"argument_wins_over_environment", variables{"SOURCE_DATE_EPOCH": "12"}, []string{"--build-arg=SOURCE_DATE_EPOCH=7"}, func(o build.Options) any { return o.SourceDateEpoch }, seconds(7)},
		{"empty_argument_turns_it_off", variables{"SOURCE_DATE_EPOCH": "12"}, []string{"--build-arg=SOURCE_DATE_EPOCH="}, func(o build.Options) any { return o.SourceDateEpoch }, (*int64)(nil)},
		{"other_forms_are_the_front_ends", nil, []string{"--build-arg=SOURCE_DATE_EPOCH=context"}, func(o build.Options) any { return o.SourceDateEpoch }, (*int64)(nil)},
		{"bare_argument", variables{"SOURCE_DATE_EPOCH": "12"}, []string{"--build-arg=SOURCE_DATE_EPOCH"}, func(o build.Options) any { return o.SourceDateEpoch }, seconds(12)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o, err := buildOptions(t, tc.env, tc.args...)
			assert.NilError(t, err)
			assert.Check(t, is.DeepEqual(tc.get(o), tc.want))
		})
	}
}

func TestOptions_make_the_state_directory_absolute(t *testing.T) {
	t.Parallel()
	o, err := buildOptions(t, nil, "--state-dir=x")
	assert.NilError(t, err)
	here, err := os.Getwd()
	assert.NilError(t, err)
	assert.Check(t, is.Equal(o.StateDir, filepath.Join(here, "x")))
}

// Each mistake is found before anything is read, written or asked for.
func TestBuild_refuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		env  variables
		args []string
		want []string
	}{
		{"negative_parallel", nil, []string{"--parallel=-1"}, []string{"--parallel", "negative"}},
		{"negative_timeout", nil, []string{"--timeout=-1s"}, []string{"--timeout", "negative"}},
		{"timeout_without_unit", nil, []string{"--timeout=30"}, []string{"--timeout"}},
		{"build_arg", nil, []string{"--build-arg==x"}, []string{"--build-arg", "NAME=VALUE"}},
		{"label", nil, []string{"--label=x"}, []string{"--label", "NAME=VALUE"}},
		{"git_without_value", nil, []string{"--git=single-branch"}, []string{"--git single-branch", "single-branch="}},
		{"git_depth", nil, []string{"--git=depth=-1"}, []string{"--git depth=-1", "negative"}},
		{"add_host", nil, []string{"--add-host=h"}, []string{"--add-host", "HOST:IP"}},
		{"build_context", nil, []string{"--build-context=x"}, []string{"--build-context", "NAME=VALUE"}},
		{"secret", nil, []string{"--secret=hunter2"}, []string{"--secret", "id=NAME,src=FILE"}},
		{"epoch", variables{"SOURCE_DATE_EPOCH": "soon"}, nil, []string{"SOURCE_DATE_EPOCH", `"soon"`, "seconds since 1970"}},
		{"oci_mode", nil, []string{"--oci-mode=docker"}, []string{"--oci-mode", "auto", "oci"}},
		{"progress", nil, []string{"--progress=loud"}, []string{"--progress"}},
		{"isolation", variables{"INPUT_ISOLATION": "magic"}, nil, []string{"--isolation"}},
		{"boolean", variables{"INPUT_NO-CACHE": "yes"}, nil, []string{"--no-cache", `"yes" is not a boolean`}},
		{"number", variables{"INPUT_PARALLEL": "many"}, nil, []string{"--parallel", "many"}},
		{"singular_and_plural", variables{"INPUT_TAGS": "r/a:1", "INPUT_DESTINATION": "r/a:2"}, nil, []string{"INPUT_DESTINATION and INPUT_TAGS are both set"}},
		{"singular_and_plural_flag", nil, []string{"--label=a=1", "--labels=b=2"}, []string{"--label and --labels are the same flag"}},
		{"unknown_flag", nil, []string{"--plattform=x"}, []string{"unknown flag --plattform", "--platform"}},
		{"argument", nil, []string{"."}, []string{"unexpected argument ."}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := runWith(t, tc.env, append([]string{"build"}, tc.args...)...)
			assert.Check(t, is.Equal(r.code, exitUsage), r.stderr)
			assert.Check(t, is.Equal(r.stdout, ""))
			assert.Check(t, strings.HasPrefix(r.stderr, "error: "), r.stderr)
			assert.Check(t, is.Equal(strings.Count(r.stderr, "\n"), 1), r.stderr)
			for _, want := range tc.want {
				assert.Check(t, is.Contains(r.stderr, want))
			}
			assert.Check(t, !strings.Contains(r.stderr, "hunter2"), r.stderr)
		})
	}
}

func TestParseSecret(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, in string
		want     build.Secret
		err      string
	}{
		{"file", "id=x,src=/f", build.Secret{ID: "x", File: "/f"}, ""},
		{"file_long", "id=x,source=/f", build.Secret{ID: "x", File: "/f"}, ""},
		{"file_typed", "type=file,id=x,src=/f", build.Secret{ID: "x", File: "/f"}, ""},
		{"variable", "id=x,env=V", build.Secret{ID: "x", Env: "V"}, ""},
		{"variable_typed", "env=V,type=env,id=x", build.Secret{ID: "x", Env: "V"}, ""},
		{"id_alone", "id=TOKEN", build.Secret{ID: "TOKEN", Env: "TOKEN"}, ""},
		{"buildx_variable", "type=env,id=x,src=V", build.Secret{ID: "x", Env: "V"}, ""},
		{"file_with_equals", "id=x,src=a=b", build.Secret{ID: "x", File: "a=b"}, ""},
		{"no_id", "src=/f", build.Secret{}, "the id is missing"},
		{"empty_id", "id=,src=/f", build.Secret{}, "the id is missing"},
		{"file_and_variable", "id=x,src=/f,env=V", build.Secret{}, "id=x: give src or env, not both"},
		{"type", "id=x,type=vault", build.Secret{}, `type "vault" is unknown: use file or env`},
		{"value", "x=hunter2", build.Secret{}, "want id=NAME,src=FILE or id=NAME,env=VARIABLE"},
		{"value_alone", "hunter2", build.Secret{}, "want id=NAME,src=FILE or id=NAME,env=VARIABLE"},
		{"empty", "", build.Secret{}, "want id=NAME,src=FILE"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseSecret(tc.in)
			if tc.err != "" {
				assert.Check(t, is.ErrorContains(err, tc.err))
				assert.Check(t, isUsage(err))
				assert.Check(t, !strings.Contains(err.Error(), "hunter2"))
				return
			}
			assert.NilError(t, err)
			assert.Check(t, is.DeepEqual(got, tc.want))
		})
	}
}

func TestStateDir(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		env  variables
		want string
	}{
		{"xdg", variables{"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/kaniko-multiarch"},
		{"relative_xdg_does_not_count", variables{"XDG_CACHE_HOME": "c", "HOME": "/h"}, "/h/.cache/kaniko-multiarch"},
		{"home", variables{"HOME": "/h"}, "/h/.cache/kaniko-multiarch"},
		{"relative_home_does_not_count", variables{"HOME": "h"}, filepath.Join(os.TempDir(), "kaniko-multiarch")},
		{"nothing", nil, filepath.Join(os.TempDir(), "kaniko-multiarch")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			assert.Check(t, is.Equal(stateDir(tc.env.get), tc.want))
		})
	}
}
