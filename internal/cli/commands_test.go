package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"go.yaml.in/yaml/v3"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/registry"
	"github.com/org/kaniko-multiarch/matrix"
	"github.com/org/kaniko-multiarch/merge"
)

func TestVersionAndHelp(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		args []string
		want []string
	}{
		{"version", []string{"version"}, []string{"kaniko-multiarch " + Version + "\n"}},
		{"help", []string{"--help"}, []string{"Usage: kaniko-multiarch", "build", "matrix", "merge", "version"}},
		{"short_help", []string{"-h"}, []string{"Usage: kaniko-multiarch"}},
		{"help_of_build", []string{"build", "--help"}, []string{"Usage: kaniko-multiarch build", "--platform", "--oci-mode", "--push-retry-initial-delay"}},
		{"help_of_matrix", []string{"matrix", "--help"}, []string{"Usage: kaniko-multiarch matrix", "--runner"}},
		{"help_of_merge", []string{"merge", "--help"}, []string{"Usage: kaniko-multiarch merge", "--digests-from", "--index-annotations"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := runWith(t, nil, tc.args...)
			assert.Check(t, is.Equal(r.code, exitOK), r.stderr)
			assert.Check(t, is.Equal(r.stderr, ""))
			for _, want := range tc.want {
				assert.Check(t, is.Contains(r.stdout, want))
			}
		})
	}
}

// Every flag that a person sees has a help text.
func TestHelp_is_complete(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"build", "matrix", "merge"} {
		for _, flag := range flagsOf(t, command) {
			assert.Check(t, flag.Help != "", "%s --%s has no help", command, flag.Name)
		}
	}
}

func TestCommandLine_refuses(t *testing.T) {
	t.Parallel()
	record := filepath.Join(t.TempDir(), "linux-amd64.json")
	assert.NilError(t, os.WriteFile(record, []byte(`{"schema":"other/v9"}`), 0o644))
	empty := t.TempDir()
	goodMatrix := []string{"matrix", "--platform=linux/amd64", "--image=r.example/a"}
	goodMerge := []string{"merge", "--digests-from=" + empty, "--destination=r.example/a:1"}
	for _, tc := range []struct {
		name string
		env  variables
		base []string
		args []string
		want []string
	}{
		{"no_command", nil, nil, nil, []string{"build", "matrix", "merge", "--help"}},
		{"unknown_command", nil, []string{"biuld"}, nil, []string{"biuld", "build"}},

		{"matrix_empty_platform_input", variables{"INPUT_PLATFORMS": ""}, []string{"matrix"}, []string{"--fail-on-empty"}, []string{"--platform", "nothing to build"}},
		{"matrix_hyphens", variables{"INPUT_FAIL-ON-EMPTY": "true", "INPUT_CHECK-BASES": "drop"}, []string{"matrix"}, nil, []string{"--fail-on-empty is given"}},
		{"matrix_hyphens_check", variables{"INPUT_CHECK-BASES": "maybe"}, goodMatrix, nil, []string{"--check-bases"}},
		{"matrix_dimension", nil, goodMatrix, []string{"--dimension=platform=x"}, []string{"--dimension", "platform=x"}},
		{"matrix_exclude", nil, goodMatrix, []string{"--exclude=V=1"}, []string{"--exclude", `"V"`}},
		{"matrix_include", nil, goodMatrix, []string{"--include=platform=amr"}, []string{"--include", "amr"}},
		{"matrix_builds_file", nil, goodMatrix, []string{"--builds=" + filepath.Join(empty, "none")}, []string{"--builds", "none"}},
		{"matrix_builds_field", nil, goodMatrix, []string{"--builds=- imgae: x"}, []string{"--builds", "imgae"}},
		{"matrix_builds_platform", nil, goodMatrix, []string{"--builds=- platforms: amr"}, []string{"--builds", "entry 1", "amr"}},
		{"matrix_builds_file_twice", nil, goodMatrix, []string{"--builds=- {file: a, dockerfile: b}"}, []string{"--builds", "one thing"}},
		{"matrix_builds_lines", nil, goodMatrix, []string{`--builds=- build-args: {V: "1\n2"}`}, []string{"build argument V", "several lines"}},
		{"matrix_dimension_lines", nil, goodMatrix, []string{`--dimension=V=["1\n2"]`}, []string{"build argument V", "several lines"}},
		{"matrix_same_tags", nil, goodMatrix, []string{"--destination=r.example/a:1", "--dimension=V=1,2"}, []string{"r.example/a:1", "{NAME}"}},
		{"matrix_distribute", nil, goodMatrix, []string{"--distribute=no"}, []string{"--distribute"}},
		{"matrix_build_context", nil, goodMatrix, []string{"--build-context=a"}, []string{"--build-context", "NAME=VALUE"}},
		{"matrix_limit_github", variables{"GITHUB_ACTIONS": "true"}, goodMatrix, []string{"--dimension=V=" + numbers(257)}, []string{"257 rows, GitHub takes 256"}},
		{"matrix_limit_gitlab", nil, goodMatrix, []string{"--format=gitlab", "--dimension=V=" + numbers(201)}, []string{"201 rows, GitLab takes 200"}},
		{"matrix_gitlab_group", nil, goodMatrix, []string{"--format=gitlab", `--runner={"group":"g"}`}, []string{"no groups"}},
		{"matrix_platform", nil, []string{"matrix"}, []string{"--platform=linux/amd46"}, []string{"--platform", "linux/amd46"}},
		{"matrix_image", nil, goodMatrix, []string{"--image=a b"}, []string{"a b"}},
		{"matrix_key", nil, goodMatrix, []string{"--key=a/b"}, []string{"a/b"}},
		{"matrix_runner", nil, goodMatrix, []string{"--runner=linux/amd46=ubuntu"}, []string{"--runner", "linux/amd46"}},
		{"matrix_format", nil, goodMatrix, []string{"--format=yaml"}, []string{"--format", "json"}},
		{"matrix_build_arg", nil, goodMatrix, []string{"--build-arg==1"}, []string{"--build-arg", "NAME=VALUE"}},
		{"matrix_retry", nil, goodMatrix, []string{"--push-retry=-1"}, []string{"--push-retry", "negative"}},
		{"matrix_boolean", variables{"INPUT_KUBERNETES": "ja"}, goodMatrix, nil, []string{"--kubernetes", `"ja" is not a boolean`}},
		{"matrix_both_names", variables{"INPUT_PLATFORM": "linux/amd64", "INPUT_PLATFORMS": "linux/amd64"}, []string{"matrix"}, nil, []string{"INPUT_PLATFORM and INPUT_PLATFORMS are both set"}},

		{"merge_without_records", nil, []string{"merge"}, []string{"--destination=r.example/a:1"}, []string{"--digests-from"}},
		{"merge_without_destination", nil, []string{"merge"}, []string{"--digests-from=" + empty}, []string{"--destination"}},
		{"merge_remove", nil, goodMerge, []string{"--remove=linux/amd46"}, []string{"--remove", "linux/amd46"}},
		{"merge_from", nil, []string{"merge"}, []string{"--from=a b", "--destination=r.example/a:1"}, []string{"a b"}},
		{"merge_prefer_index", variables{"INPUT_PREFER-INDEX": "no"}, goodMerge, nil, []string{`"no" is not a boolean`}},
		{"merge_missing_directory", nil, []string{"merge"}, []string{"--digests-from=" + filepath.Join(empty, "missing"), "--destination=r.example/a:1"}, []string{"--digests-from", filepath.Join(empty, "missing")}},
		{"merge_bad_record", nil, []string{"merge"}, []string{"--digests-from=" + record, "--destination=r.example/a:1"}, []string{"--digests-from", record, "other/v9"}},
		{"merge_platform", nil, goodMerge, []string{"--platform=linux/amd46"}, []string{"--platform", "linux/amd46"}},
		{"merge_push", nil, goodMerge, []string{"--push=ja"}, []string{"--push", `"ja" is not a boolean: use true or false`}},
		{"merge_push_input", variables{"INPUT_PUSH": "1"}, goodMerge, nil, []string{`"1" is not a boolean: use true or false`}},
		{"merge_oci_mode", nil, goodMerge, []string{"--oci-mode=docker2"}, []string{"--oci-mode", "auto", "oci", "docker"}},
		{"merge_retry", nil, goodMerge, []string{"--push-retry-max-delay=-1"}, []string{"--push-retry-max-delay", "negative"}},
		{"merge_insecure_registry", nil, goodMerge, []string{"--insecure-registry=http://h"}, []string{"http://h", "HOST:PORT"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := runWith(t, tc.env, append(append([]string{}, tc.base...), tc.args...)...)
			assert.Check(t, is.Equal(r.stdout, ""))
			assert.Check(t, strings.HasPrefix(r.stderr, "error: "), r.stderr)
			for _, want := range tc.want {
				assert.Check(t, is.Contains(r.stderr, want))
			}
			assert.Check(t, is.Equal(r.code, exitUsage), r.stderr)
		})
	}
}

func numbers(n int) string {
	var out []string
	for i := range n {
		out = append(out, strconv.Itoa(i))
	}
	return strings.Join(out, ",")
}

// plan is the part of matrix.Plan that the tests look at. A runner has many
// forms in JSON.
type plan struct {
	Matrix struct {
		Include []struct {
			Image  string
			Mode   matrix.Mode
			Runner any
		}
	}
	Merges         matrix.Document[matrix.Merge]
	Platforms, Key string
	Count          int
}

func TestMatrix(t *testing.T) {
	t.Parallel()
	r := runWith(t, variables{"INPUT_PLATFORMS": "linux/amd64\nlinux/arm64", "INPUT_TAGS": "r.example/a:1,r.example/a:2", "INPUT_KEY": "k"}, "matrix")
	assert.Check(t, is.Equal(r.code, exitOK), r.stderr)
	var plan plan
	assert.NilError(t, json.Unmarshal([]byte(r.stdout), &plan))
	assert.Check(t, is.Equal(plan.Count, 2))
	assert.Check(t, is.Equal(plan.Key, "k"))
	assert.Check(t, is.Equal(plan.Platforms, "linux/amd64,linux/arm64"))
	assert.Check(t, is.Equal(plan.Merges.Include[0].Tags, "r.example/a:1,r.example/a:2"))
	for _, row := range plan.Matrix.Include {
		assert.Check(t, is.Equal(row.Mode, matrix.Native))
		assert.Check(t, is.Equal(row.Image, "r.example/a"))
		assert.Check(t, row.Runner != nil)
	}
}

// What runs on a platform decides between an emulator and none.
func TestMatrix_looks_into_the_Dockerfile(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, dockerfile string
		args             []string
		mode             matrix.Mode
		notice           bool
	}{
		{"copies_only", "FROM scratch\nCOPY Dockerfile /\n", nil, matrix.Cross, false},
		{"runs", "FROM scratch\nCOPY Dockerfile /\nRUN [\"/x\"]\n", nil, matrix.QEMU, false},
		{"target", "FROM scratch AS a\nCOPY Dockerfile /\nFROM a\nRUN [\"/x\"]\n", []string{"--target=a"}, matrix.Cross, false},
		{"no_dockerfile", "", nil, matrix.QEMU, true},
		{"remote_context", "", []string{"--context=git://git.example/a/b.git"}, matrix.QEMU, true},
		{"repository", "", []string{"--context=https://git.example/a/b.git#main"}, matrix.QEMU, true},
		{"repository_over_ssh", "", []string{"--context=git@git.example:a/b.git"}, matrix.QEMU, true},
		{"remote_dockerfile", "FROM scratch\n", []string{"--dockerfile=https://git.example/Dockerfile"}, matrix.QEMU, true},
		{"kubernetes", "", []string{"--kubernetes"}, matrix.Kubernetes, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if tc.dockerfile != "" {
				assert.NilError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(tc.dockerfile), 0o644))
			}
			r := runWith(t, nil, append([]string{"matrix", "--platform=linux/s390x", "--image=r.example/a", "--context=" + dir}, tc.args...)...)
			assert.Assert(t, is.Equal(r.code, exitOK), r.stderr)
			var plan plan
			assert.NilError(t, json.Unmarshal([]byte(r.stdout), &plan))
			assert.Check(t, is.Equal(plan.Matrix.Include[0].Mode, tc.mode))
			assert.Check(t, is.Equal(strings.Contains(r.stderr, "notice: assuming that steps run on linux/s390x"), tc.notice), r.stderr)
		})
	}
}

func TestMatrix_github_outputs(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "output")
	env := variables{"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": file, "INPUT_PLATFORMS": "linux/amd64,linux/arm64", "INPUT_IMAGE": "r.example/a"}
	r := runWith(t, env, "matrix")
	assert.Check(t, is.Equal(r.code, exitOK), r.stderr)
	r = runWith(t, variables{"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": file}, "matrix")
	assert.Check(t, is.Equal(r.code, exitOK), r.stderr)
	assert.Check(t, is.Contains(r.stderr, "nothing to build"))
	data, err := os.ReadFile(file)
	assert.NilError(t, err)
	for _, want := range []string{"matrix<<", "\n{\"include\":[{\"name\":\"linux/amd64\"", "merges<<", "key<<", "artifacts<<", "count<<", "\n2\n", "\nfalse\n", "\n{\"include\":[]}\n", "\n0\n", "\ntrue\n"} {
		assert.Check(t, is.Contains(string(data), want))
	}
}

func TestMatrix_builds_and_dimensions(t *testing.T) {
	t.Parallel()
	const builds = `
- image: r.example/api
  context: services/api
  build-args: {A: 1, B: two}
- tags: r.example/web:1,r.example/web:{V}
  file: web.Dockerfile
  build-args: [A=9]
  platforms: [linux/amd64]
  target: ""
`
	file := filepath.Join(t.TempDir(), "builds.yaml")
	assert.NilError(t, os.WriteFile(file, []byte(builds), 0o644))
	for _, given := range []string{builds, file} {
		r := runWith(t, nil, "matrix", "--platform=amd64,arm64", "--image=r.example/default", "--target=t", "--build-arg=Z=0",
			"--builds="+given, "--dimension=V=1", "--exclude=platform=arm64,V=2")
		assert.Assert(t, is.Equal(r.code, exitOK), r.stderr)
		var plan matrix.Plan
		assert.Check(t, json.Unmarshal([]byte(strings.ReplaceAll(r.stdout, `"runner": "`, `"text": "`)), &plan))
		rows := plan.Matrix.Include
		assert.Assert(t, is.Len(rows, 3))
		assert.Check(t, is.Equal(rows[0].Image+" "+rows[0].Context+" "+rows[0].Target, "r.example/api services/api t"))
		assert.Check(t, is.Equal(rows[0].BuildArgs, "A=1\nB=two\nZ=0\nV=1"))
		assert.Check(t, is.Equal(rows[2].Image+" "+rows[2].Dockerfile+" "+rows[2].Target, "r.example/web web.Dockerfile "))
		assert.Check(t, is.Equal(plan.Merges.Include[1].Tags, "r.example/web:1"))
	}
	r := runWith(t, nil, "matrix", "--platform=amd64", "--builds=[]")
	assert.Check(t, is.Equal(r.code, exitOK), r.stderr)
	assert.Check(t, is.Contains(r.stdout, `"empty": true`))
}

// Every line of the child pipeline is a command line that we take.
func TestMatrix_gitlab_commands(t *testing.T) {
	t.Parallel()
	r := runWith(t, variables{"CI_JOB_IMAGE": "r.example/kma:1"}, "matrix", "--format=gitlab", "--platform=amd64,arm64", "--destination=r.example/a:1",
		"--target=t", "--dockerfile=d", "--context=c", "--build-arg=A=1")
	assert.Assert(t, is.Equal(r.code, exitOK), r.stderr)
	var pipeline map[string]struct {
		Script []string
		Image  struct{ Name string }
	}
	text := strings.Replace(r.stdout, "stages: [build, merge]\n", "", 1)
	assert.NilError(t, yaml.Unmarshal([]byte(text), &pipeline))
	assert.Assert(t, is.Len(pipeline, 3))
	for name, job := range pipeline {
		assert.Check(t, is.Equal(job.Image.Name, "r.example/kma:1"))
		words := strings.Fields(job.Script[0])
		_, err := parse(t, nil, words[1:]...)
		assert.Check(t, err, "%s: %s", name, job.Script[0])
	}
	for _, format := range []string{"jenkins", "tree", "plain"} {
		r := runWith(t, nil, "matrix", "--format="+format, "--platform=amd64", "--image=r.example/a")
		assert.Check(t, is.Equal(r.code, exitOK), r.stderr)
		assert.Check(t, is.Contains(r.stdout, "linux/amd64"))
	}
}

// A registry that is down costs the patience of its retries once, not for every
// image.
func TestMatrix_registry_down(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+strings.TrimPrefix(server.URL, "http://")+"/base:1\n"), 0o644))
	r := runWith(t, nil, "matrix", "--platform=amd64,arm64,s390x", "--destination=r.example/a:{V}", "--dimension=V=1,2,3", "--context="+dir, "--push-retry=0", "--format=plain")
	assert.Check(t, is.Equal(r.code, exitOK), r.stderr)
	assert.Check(t, is.Equal(strings.Count(r.stdout, "\tqemu\t"), 3))
	first := asked.Load()
	r = runWith(t, nil, "matrix", "--platform=amd64,arm64", "--destination=r.example/a:1", "--context="+dir, "--push-retry=0")
	assert.Check(t, is.Equal(r.code, exitOK), r.stderr)
	assert.Check(t, is.Equal(asked.Load(), 2*first), "more images, more questions")
}

// pushed is an image in a registry of its own, and the directory of its record.
// To the front end it is as empty as scratch.
func pushed(t *testing.T) (repo registry.Ref, records string) {
	t.Helper()
	return pushedWith(t, "[]")
}

func pushedWith(t *testing.T, diffIDs string) (repo registry.Ref, records string) {
	t.Helper()
	server := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	repo = registry.Ref{Registry: strings.TrimPrefix(server.URL, "http://"), Repository: "acme/app"}
	client, err := registry.New(registry.Options{Getenv: variables{}.get, HomeDir: t.TempDir()})
	assert.NilError(t, err)

	config := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":` + diffIDs + `}}`)
	desc := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}
	assert.NilError(t, client.PushBlob(t.Context(), repo, desc, bytes.NewReader(config), nil))
	manifest, err := json.Marshal(ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest,
		Config: desc, Layers: []ocispecs.Descriptor{},
	})
	assert.NilError(t, err)
	image, err := client.PushManifest(t.Context(), repo.WithDigest(digest.FromBytes(manifest)), ocispecs.MediaTypeImageManifest, manifest)
	assert.NilError(t, err)

	records = t.TempDir()
	assert.NilError(t, record.Write(records, record.Record{
		Key: "k", Image: repo.Name(), Platform: "linux/amd64", Digest: image.Digest, Size: image.Size,
		MediaType: image.MediaType, Pushed: true,
	}))
	return repo, records
}

// What the base images have decides as well.
func TestMatrix_bases(t *testing.T) {
	t.Parallel()
	repo, records := pushedWith(t, `["`+digest.FromString("layer").String()+`"]`)
	found, err := record.Read(records)
	assert.NilError(t, err)
	base := repo.WithDigest(found[0].Record.Digest).String()
	for _, tc := range []struct {
		name, from string
		args       []string
		// want are the lines of --format=plain, as far as the mode.
		want   []string
		code   int
		stderr string
	}{
		{"cross", "FROM --platform=$BUILDPLATFORM " + base + " AS b\nRUN x\nFROM scratch\nCOPY --from=b / /", nil, []string{"linux/amd64,linux/arm64\tcross"}, exitOK, ""},
		{"named", "FROM --platform=$BUILDPLATFORM nowhere.example/b AS b\nRUN x\nFROM scratch\nCOPY --from=b / /", []string{"--build-context=nowhere.example/b=docker-image://" + base}, []string{"linux/amd64,linux/arm64\tcross"}, exitOK, ""},
		{"cross_always", "FROM --platform=$BUILDPLATFORM " + base + " AS b\nRUN x\nFROM scratch\nCOPY --from=b / /", []string{"--distribute=always"}, []string{"linux/amd64\tnative", "linux/arm64\tnative"}, exitOK, ""},
		{"no_such_base", "FROM " + base, nil, nil, exitDockerfile, "linux/arm64"},
		{"dropped", "FROM " + base, []string{"--check-bases=drop"}, []string{"linux/amd64\tnative"}, exitOK, "left out linux/arm64"},
		{"found", "FROM " + base, []string{"--check-bases=error", "--distribute=never"}, nil, exitDockerfile, "it has linux/amd64"},
		{"none_for_the_build", "FROM --platform=linux/s390x " + base, []string{"--check-bases=drop"}, nil, exitDockerfile, "linux/s390x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			assert.NilError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(tc.from+"\n"), 0o644))
			r := runWith(t, nil, append([]string{"matrix", "--platform=amd64,arm64", "--image=r.example/a", "--format=plain", "--context=" + dir}, tc.args...)...)
			assert.Check(t, is.Equal(r.code, tc.code), r.stderr)
			assert.Check(t, is.Contains(r.stderr, tc.stderr))
			var got []string
			for line := range strings.Lines(r.stdout) {
				got = append(got, strings.Join(strings.SplitN(line, "\t", 3)[:2], "\t"))
			}
			assert.Check(t, is.DeepEqual(got, tc.want))
		})
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		env  variables
		args []string
		code int
		// published tells whether the tag exists afterwards.
		published bool
		stderr    string
		stdout    []string
	}{
		{"publishes", nil, nil, exitOK, true, "", nil},
		{"dry_run", nil, []string{"--dry-run"}, exitOK, false, "", nil},
		{"push_false_is_a_dry_run", variables{"INPUT_PUSH": "False"}, nil, exitOK, false, "", nil},
		{"push_true", nil, []string{"--push=true"}, exitOK, true, "", nil},
		{"annotations", nil, []string{"--annotation=a=1,2", "--index-annotations=b=3", "--index-annotations=index:c=4"}, exitOK, true, "", []string{`"a": "1,2"`, `"b": "3"`, `"c": "4"`}},
		{"missing_platform", nil, []string{"--platform=linux/amd64,linux/s390x"}, exitVerify, false, "linux/s390x", nil},
		{"unexpected_platform", nil, []string{"--platform=linux/s390x"}, exitVerify, false, "linux/amd64", nil},
		{"bad_annotation", nil, []string{"--annotation=layer:a=1"}, exitUsage, false, `"layer" is no place`, nil},
		{"bad_attestations", nil, []string{"--attestations=all"}, exitUsage, false, "--attestations", nil},
		{"immutable_and_free", nil, []string{"--immutable-tags=true"}, exitOK, true, "", nil},
		{"ci_annotations", variables{"GITHUB_RUN_ID": "7", "GITHUB_SERVER_URL": "https://git.example", "GITHUB_REPOSITORY": "a/b"}, nil, exitOK, true, "", []string{`"org.opencontainers.image.source": "https://git.example/a/b"`}},
		{"ci_annotations_off", variables{"GITHUB_RUN_ID": "7", "GITHUB_SERVER_URL": "https://git.example", "GITHUB_REPOSITORY": "a/b", "INPUT_CI-ANNOTATIONS": "false"}, nil, exitOK, true, "", []string{`"annotations": {}`}},
		{"single_manifest", nil, []string{"--prefer-index=false"}, exitOK, true, "", []string{`"mediaType": "application/vnd.oci.image.manifest.v1+json",
  "size"`}},
		{"bad_destination", nil, []string{"--destination=a b"}, exitUsage, false, "a b", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			repo, records := pushed(t)
			file := filepath.Join(t.TempDir(), "report.json")
			args := []string{"merge", "--digests-from=" + records, "--destination=" + repo.WithTag("1").String(), "--report=" + file}
			r := runWith(t, tc.env, append(args, tc.args...)...)
			assert.Check(t, is.Equal(r.code, tc.code), r.stderr)
			assert.Check(t, is.Contains(r.stderr, tc.stderr))
			for _, want := range tc.stdout {
				assert.Check(t, is.Contains(r.stdout, want))
			}

			client, err := registry.New(registry.Options{Getenv: variables{}.get, HomeDir: t.TempDir()})
			assert.NilError(t, err)
			head, err := client.Head(t.Context(), repo.WithTag("1"))
			if tc.published {
				assert.NilError(t, err)
			} else {
				assert.Check(t, is.ErrorIs(err, registry.ErrNotFound))
			}

			data, err := os.ReadFile(file)
			if tc.code != exitOK {
				assert.Check(t, os.IsNotExist(err))
				assert.Check(t, is.Equal(r.stdout, ""))
				return
			}
			assert.NilError(t, err)
			assert.Check(t, is.Equal(string(data), r.stdout))
			var report merge.Report
			assert.NilError(t, json.Unmarshal(data, &report))
			assert.Check(t, is.Equal(report.Published, tc.published))
			if tc.published {
				assert.Check(t, is.Equal(report.Digest, head.Digest))
			}
		})
	}
}

// Every CI system gets the result in its own way.
func TestMerge_tells_the_CI_system(t *testing.T) {
	t.Parallel()
	repo, records := pushed(t)
	dir := t.TempDir()
	env := variables{"GITHUB_OUTPUT": filepath.Join(dir, "output"), "GITHUB_STEP_SUMMARY": filepath.Join(dir, "summary")}
	tag := repo.WithTag("1").String()
	r := runWith(t, env, "merge", "--digests-from="+records, "--destination="+tag+","+repo.WithTag("2").String(),
		"--annotation=title=100% <b>|`x`_kma_", "--dotenv="+filepath.Join(dir, "dot", "env"))
	assert.Assert(t, is.Equal(r.code, exitOK), r.stderr)
	var report merge.Report
	assert.NilError(t, json.Unmarshal([]byte(r.stdout), &report))
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		assert.NilError(t, err)
		return string(data)
	}
	assert.Check(t, is.Equal(read("dot/env"), "IMAGE_DIGEST="+report.Digest.String()+"\nIMAGE_REF="+report.Image+
		"\nIMAGE_TAGS="+strings.Join(report.Tags, ",")+"\nIMAGE_PLATFORMS=linux/amd64\n"))
	outputs := read("output")
	for _, want := range []string{"digest<<", "image<<", "tags<<", "platforms<<", "index<<", "published<<", "\ntrue\n", "\n" + report.Digest.String() + "\n", tag + "\n"} {
		assert.Check(t, is.Contains(outputs, want))
	}
	summary := read("summary")
	assert.Check(t, is.Contains(summary, "### Published"))
	assert.Check(t, is.Contains(summary, "<code>"+tag+"</code>"))
	assert.Check(t, is.Contains(summary, "100% &lt;b&gt;&#124;&#96;x&#96;&#95;kma&#95;"))

	// Again: nothing has to move, and the page says so. Then a migration.
	runWith(t, env, "merge", "--digests-from="+records, "--destination="+tag, "--annotation=title=100% <b>|`x`_kma_")
	assert.Check(t, is.Contains(read("summary"), "### Unchanged"))
	r = runWith(t, env, "merge", "--from="+tag, "--destination="+repo.WithTag("3").String(), "--oci-mode=oci", "--push=false")
	assert.Check(t, is.Equal(r.code, exitOK), r.stderr)
	assert.Check(t, is.Contains(read("summary"), "### Dry run"))
	r = runWith(t, nil, "merge", "--from="+tag, "--oci-layout="+filepath.Join(dir, "layout"))
	assert.Check(t, is.Equal(r.code, exitOK), r.stderr)
	assert.NilError(t, json.Unmarshal([]byte(r.stdout), &report))
	assert.Check(t, is.Equal(report.Published, false))
	_, err := os.Stat(filepath.Join(dir, "layout", "index.json"))
	assert.NilError(t, err)
}

// A signal ends a command with its own code, whatever it was doing.
func TestMerge_interrupted(t *testing.T) {
	t.Parallel()
	repo, records := pushed(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	var stdout, stderr bytes.Buffer
	code := run(ctx, []string{"merge", "--digests-from=" + records, "--destination=" + repo.WithTag("1").String()}, World{Stdout: &stdout, Stderr: &stderr, LookupEnv: variables{}.lookup})
	assert.Check(t, is.Equal(code, exitCancelled), stderr.String())
	assert.Check(t, is.Equal(stdout.String(), ""))
}

func TestClient_logs_when_verbose(t *testing.T) {
	t.Parallel()
	for verbose, want := range map[bool]string{false: "", true: "level=DEBUG msg=hello"} {
		var stderr bytes.Buffer
		debugLog(&World{Stderr: &stderr}, verbose).Debug("hello")
		assert.Check(t, is.Contains(stderr.String(), want))
		assert.Check(t, is.Equal(stderr.Len() > 0, verbose))
	}
}
