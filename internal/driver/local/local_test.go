package local

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/platform"
)

func TestParsePlatforms(t *testing.T) {
	t.Parallel()
	host := platform.Format(platform.Host())
	for _, tc := range []struct {
		name string
		in   []string
		want []string
		err  string
	}{
		{"this_machine", nil, []string{host}, ""},
		{"several", []string{"linux/arm64", "linux/amd64"}, []string{"linux/arm64", "linux/amd64"}, ""},
		{"normalised", []string{"arm64", "linux/arm", "x86_64"}, []string{"linux/arm64", "linux/arm/v7", "linux/amd64"}, ""},
		{"repeated", []string{"linux/arm64", "linux/arm64/v8"}, []string{"linux/arm64"}, ""},
		{"unknown", []string{"linux/amd46"}, nil, "linux/amd46"},
		{"windows", []string{"linux/amd64", "windows/amd64"}, nil, "platform windows/amd64: only linux images are built"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			list, err := parsePlatforms(tc.in)
			if tc.err != "" {
				assert.Check(t, is.ErrorContains(err, tc.err))
				assert.Check(t, isInput(err), "%T", err)
				return
			}
			assert.NilError(t, err)
			var got []string
			for _, p := range list {
				got = append(got, platform.Format(p))
			}
			assert.Check(t, is.DeepEqual(got, tc.want))
		})
	}
}

func TestEpoch(t *testing.T) {
	t.Parallel()
	seconds := func(n int64) *int64 { return &n }
	when := time.Unix(5, 999).In(time.FixedZone("x", 3600))
	for _, tc := range []struct {
		name         string
		o            build.Options
		ofDockerfile *time.Time
		want         *int64
	}{
		{"none", build.Options{}, nil, nil},
		{"given", build.Options{SourceDateEpoch: seconds(7)}, nil, seconds(7)},
		{"given_zero", build.Options{SourceDateEpoch: seconds(0)}, &when, seconds(0)},
		{"given_wins", build.Options{SourceDateEpoch: seconds(7), Reproducible: true}, &when, seconds(7)},
		{"of_the_dockerfile", build.Options{}, &when, seconds(5)},
		{"of_the_dockerfile_wins_over_1970", build.Options{Reproducible: true}, &when, seconds(5)},
		{"reproducible", build.Options{Reproducible: true}, nil, seconds(0)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			assert.Check(t, is.DeepEqual(epoch(tc.o, tc.ofDockerfile), tc.want))
		})
	}
}

func TestReadSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	assert.NilError(t, os.WriteFile(file, []byte("a\x00b\n"), 0o600))
	env := map[string]string{"TOKEN": "hunter2", "EMPTY": ""}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	for _, tc := range []struct {
		name string
		in   []build.Secret
		want Secrets
		err  string
	}{
		{"none", nil, Secrets{}, ""},
		{"file_as_it_is", []build.Secret{{ID: "f", File: file}}, Secrets{"f": []byte("a\x00b\n")}, ""},
		{"variable", []build.Secret{{ID: "v", Env: "TOKEN"}}, Secrets{"v": []byte("hunter2")}, ""},
		{"both", []build.Secret{{ID: "v", Env: "TOKEN"}, {ID: "f", File: file}}, Secrets{"f": []byte("a\x00b\n"), "v": []byte("hunter2")}, ""},
		{"empty_variable", []build.Secret{{ID: "v", Env: "EMPTY"}}, Secrets{"v": []byte{}}, ""},
		{"twice", []build.Secret{{ID: "v", Env: "TOKEN"}, {ID: "v", File: file}}, nil, `secret "v" is given twice`},
		{"variable_not_set", []build.Secret{{ID: "v", Env: "NOPE"}}, nil, `secret "v": the variable NOPE is not set: set it, or give id=v,src=FILE`},
		{"missing_file", []build.Secret{{ID: "f", File: filepath.Join(dir, "nope")}}, nil, filepath.Join(dir, "nope")},
		{"directory", []build.Secret{{ID: "f", File: dir}}, nil, `secret "f": `},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := ReadSecrets(tc.in, lookup)
			if tc.err != "" {
				assert.Check(t, is.ErrorContains(err, tc.err))
				assert.Check(t, isInput(err), "%T", err)
				return
			}
			assert.NilError(t, err)
			assert.Check(t, is.DeepEqual(got, tc.want))
		})
	}
}

func TestSecrets_values(t *testing.T) {
	t.Parallel()
	s := Secrets{"c": []byte("1"), "a": []byte("3"), "b": []byte("2")}
	assert.Check(t, is.DeepEqual(s.Values(), []string{"3", "2", "1"}))
	assert.Check(t, is.Len(Secrets{}.Values(), 0))
}

func TestResult_names(t *testing.T) {
	t.Parallel()
	d := digest.FromString("x")
	at := "@" + d.String()
	for _, tc := range []struct {
		name string
		r    Result
		want []string
	}{
		{"tags", Result{Image: "r.io/a", Pushed: true, Tags: []string{"r.io/a:1", "r.io/b:2"}}, []string{"r.io/a:1" + at, "r.io/b:2" + at}},
		{"by_digest", Result{Image: "r.io/a", Pushed: true}, []string{"r.io/a" + at}},
		{"not_pushed", Result{Image: "r.io/a", Tags: []string{"r.io/a:1"}}, []string{d.String()}},
		{"no_name", Result{}, []string{d.String()}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.r.Descriptor = ocispecs.Descriptor{Digest: d}
			assert.Check(t, is.DeepEqual(tc.r.Names(), tc.want))
		})
	}
}

// kaniko's files of names: a line for each destination.
func TestResult_named(t *testing.T) {
	t.Parallel()
	d := digest.FromString("x")
	at := "@" + d.String() + "\n"
	for _, tc := range []struct {
		name            string
		r               Result
		without, withIt []string
	}{
		{"tags", Result{Image: "r.io/a", Tags: []string{"r.io/a:1", "h:5000/b:2"}}, []string{"r.io/a" + at, "h:5000/b" + at}, []string{"r.io/a:1" + at, "h:5000/b:2" + at}},
		{"by_digest", Result{Image: "h:5000/a"}, []string{"h:5000/a" + at}, []string{"h:5000/a" + at}},
		{"no_name", Result{}, nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.r.Descriptor.Digest = d
			assert.Check(t, is.DeepEqual(tc.r.named(false), tc.without))
			assert.Check(t, is.DeepEqual(tc.r.named(true), tc.withIt))
		})
	}
}

// A directory that cannot be made is found before anything is built.
func TestMakeDirs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "file")
	assert.NilError(t, makeDirs(build.Options{}))
	assert.NilError(t, makeDirs(build.Options{
		DigestFile: filepath.Join(dir, "a/x"), MetadataFile: filepath.Join(dir, "b/x"), Tar: filepath.Join(dir, "c/x"),
		NameDigestFile: filepath.Join(dir, "d/x"), NameTagDigestFile: filepath.Join(dir, "e/x"),
	}))
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		info, err := os.Stat(filepath.Join(dir, name))
		assert.NilError(t, err)
		assert.Check(t, info.IsDir())
	}
	err := makeDirs(build.Options{DigestFile: filepath.Join(dir, "file/x")})
	assert.Check(t, isInput(err), "%v", err)
	assert.Check(t, is.ErrorContains(err, "--digest-file"))
}

func TestResult_metadata(t *testing.T) {
	t.Parallel()
	d := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageIndex, Digest: digest.FromString("x"), Size: 12}
	r := Result{Descriptor: d, Tags: []string{"r.io/a:1", "r.io/b:2"}}
	data, err := r.Metadata()
	assert.NilError(t, err)
	var got struct {
		Digest     digest.Digest       `json:"containerimage.digest"`
		Descriptor ocispecs.Descriptor `json:"containerimage.descriptor"`
		Name       string              `json:"image.name"`
	}
	assert.NilError(t, json.Unmarshal(data, &got))
	assert.Check(t, is.Equal(got.Digest, d.Digest))
	assert.Check(t, is.DeepEqual(got.Descriptor, d))
	assert.Check(t, is.Equal(got.Name, "r.io/a:1,r.io/b:2"))
}

// foreign is a platform that this machine does not run natively.
func foreign() ocispecs.Platform {
	if platform.Host().Architecture == "s390x" {
		return ocispecs.Platform{OS: "linux", Architecture: "ppc64le"}
	}
	return ocispecs.Platform{OS: "linux", Architecture: "s390x"}
}

func TestCheckEmulation(t *testing.T) {
	t.Parallel()
	host, other := platform.Host(), foreign()
	base := &graph.Vertex{Name: "base", Op: &graph.ImageSource{}, Platform: &other}
	run := func(p ocispecs.Platform) *graph.Vertex {
		return &graph.Vertex{
			Name: "RUN x", Op: &graph.Exec{}, Platform: &p, Location: graph.Location{File: "Dockerfile", Start: 3, End: 3},
			Inputs: []*graph.Edge{{Vertex: base}},
		}
	}
	graphOf := func(p ocispecs.Platform, v *graph.Vertex) *graph.Graph {
		return &graph.Graph{Vertices: []*graph.Vertex{base, v}, Images: []*graph.Image{{Platform: p, Root: &graph.Edge{Vertex: v}}}}
	}
	no := errors.New("no emulator")
	for _, tc := range []struct {
		name     string
		g        *graph.Graph
		answer   error
		emulated map[string]bool
		fails    bool
	}{
		{"native", graphOf(host, run(host)), no, map[string]bool{}, false},
		{"copied_across", graphOf(other, run(host)), no, map[string]bool{}, false},
		{"emulated", graphOf(other, run(other)), nil, map[string]bool{platform.Format(other): true}, false},
		{"cannot_be_emulated", graphOf(other, run(other)), no, nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d := &Driver{Emulation: func(p ocispecs.Platform) error {
				assert.Check(t, is.Equal(platform.Format(p), platform.Format(other)))
				return tc.answer
			}}
			emulated, err := d.checkEmulation(tc.g)
			if tc.fails {
				step, ok := errors.AsType[*engine.StepError](err)
				assert.Assert(t, ok, "%v", err)
				assert.Check(t, is.ErrorIs(err, no))
				assert.Check(t, is.Equal(step.Location.Start, 3))
				return
			}
			assert.NilError(t, err)
			assert.Check(t, is.DeepEqual(emulated, tc.emulated))
		})
	}
}

func TestTagError(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	none := tagError("r.io/a:1", nil, cause)
	assert.Check(t, is.ErrorIs(none, cause))
	assert.Check(t, is.Error(none, "publishing r.io/a:1 (no tag has moved): cause"))
	assert.Check(t, is.Error(tagError("r.io/a:3", []string{"r.io/a:1", "r.io/a:2"}, cause), "publishing r.io/a:3 (moved already: r.io/a:1, r.io/a:2): cause"))
}

// readers of a file in memory, for PushBlob.
func content(s string) (ocispecs.Descriptor, *bytes.Reader) {
	return ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Digest: digest.FromString(s), Size: int64(len(s))}, bytes.NewReader([]byte(s))
}
