package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/golden"

	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/platform"
)

// anyImage has one layer for every reference and platform.
type anyImage struct{}

func (anyImage) ImageConfig(_ context.Context, ref string, p ocispecs.Platform) (digest.Digest, []byte, error) {
	if strings.Contains(ref, "missing") {
		return "", nil, errors.New("no such image")
	}
	diff := digest.FromString(ref + platform.Format(p))
	config := fmt.Sprintf(`{"os":%q,"architecture":%q,"variant":%q,"config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":[%q]},"history":[{"created":"2020-01-01T00:00:00Z","created_by":"base"}]}`,
		p.OS, p.Architecture, p.Variant, diff)
	return digest.FromString(ref), []byte(config), nil
}

func options(dockerfile string, platforms ...string) Options {
	list, err := platform.ParseList(platforms)
	if err != nil {
		panic(err)
	}
	build := ocispecs.Platform{OS: "linux", Architecture: "amd64"}
	return Options{
		Dockerfile: fstest.MapFS{"Dockerfile": {Data: []byte(dockerfile)}}, Filename: "Dockerfile",
		Contexts:  map[string]fs.FS{"context": fstest.MapFS{".dockerignore": {Data: []byte("*.md\n!README.md\n")}}},
		Platforms: list, BuildPlatform: &build, Images: anyImage{},
	}
}

func TestLoad_golden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/graphs/*.Dockerfile")
	assert.NilError(t, err)
	assert.Assert(t, len(files) > 0)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".Dockerfile")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			assert.NilError(t, err)
			o := options(string(text), "linux/amd64,linux/arm64")
			o.Contexts["extra"] = fstest.MapFS{".dockerignore": {Data: []byte("skip\n")}}
			o.NamedImages = map[string]string{"alias": "docker-image://debian:12", "golang:1": "docker-image://registry.test/go:1"}
			res, err := Load(t.Context(), o)
			assert.NilError(t, err)
			golden.Assert(t, dump(t, res), "graphs/"+name+".golden")
		})
	}
}

// dump is a graph as text, one vertex a line with its operation below it.
func dump(t *testing.T, res *Result) string {
	t.Helper()
	var b strings.Builder
	number := map[*graph.Vertex]int{}
	edge := func(e *graph.Edge) string {
		if e == nil {
			return "scratch"
		}
		return fmt.Sprintf("%d.%d", number[e.Vertex], e.Output)
	}
	for i, v := range res.Graph.Vertices {
		number[v] = i
		var inputs []string
		for _, in := range v.Inputs {
			inputs = append(inputs, edge(in))
		}
		on := "any"
		if v.Platform != nil {
			on = platform.Format(*v.Platform)
		}
		op, err := json.Marshal(v.Op)
		assert.NilError(t, err)
		fmt.Fprintf(&b, "%d %s (%s) line %d <- %s\n  %T %s\n", i, v.Name, on, v.Location.Start, strings.Join(inputs, " "), v.Op, op)
	}
	for _, img := range res.Graph.Images {
		fmt.Fprintf(&b, "image %s = %s\n  %s\n", platform.Format(img.Platform), edge(img.Root), img.Config)
	}
	for _, w := range res.Warnings {
		fmt.Fprintf(&b, "warning %s:%d %s\n", w.File, w.Line, w.Text)
	}
	return b.String()
}

func TestLoad_same_digests_every_time(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/graphs/shared_context.Dockerfile")
	assert.NilError(t, err)
	digests := func() (list []digest.Digest) {
		res, err := Load(t.Context(), options(string(text), "linux/arm64,linux/amd64,linux/s390x"))
		assert.NilError(t, err)
		for _, v := range res.Graph.Vertices {
			list = append(list, v.Digest)
		}
		return list
	}
	assert.Check(t, is.DeepEqual(digests(), digests()))
}

func TestLoad_shares_the_build_stage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/graphs/shared_context.Dockerfile")
	assert.NilError(t, err)
	res, err := Load(t.Context(), options(string(text), "linux/arm64,linux/amd64,linux/s390x"))
	assert.NilError(t, err)
	runs, contexts := 0, 0
	for _, v := range res.Graph.Vertices {
		switch op := v.Op.(type) {
		case *graph.Exec:
			runs++
		case *graph.LocalSource:
			contexts++
			assert.Check(t, is.DeepEqual(op.FollowPaths, []string{"a.txt", "b-amd64.txt", "b-arm64.txt", "b-s390x.txt"}))
			assert.Check(t, is.DeepEqual(op.Exclude, []string{"*.md", "!README.md"}))
		}
	}
	assert.Check(t, is.Equal(runs, 1))
	assert.Check(t, is.Equal(contexts, 1))
}

func TestLoad_refuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, dockerfile, want, excerpt string }{
		{"unknown_instruction", "FROM scratch\nRUNN true\n", "Dockerfile:2: unknown instruction: RUNN (did you mean RUN?)", "   1 | FROM scratch\n   2 | RUNN true\n     | ^^^^^^^^^\n"},
		{"no_stage", "ARG X\n", "Dockerfile: dockerfile contains no stages to build", ""},
		{"bad_flag", "FROM scratch\nCOPY --chwon=1 a b\n", "Dockerfile:2: unknown flag: --chwon", "   1 | FROM scratch\n   2 | COPY --chwon=1 a b\n     | ^^^^^^^^^^^^^^^^^^\n"},
		{"other_front_end", "# syntax=example.com/mine:1\nFROM scratch\n", `front end "example.com/mine:1" is not supported`, "# syntax="},
		{"missing_image", "FROM missing:1\n", "Dockerfile:1: ", "FROM missing:1\n     | ^^^^"},
		{"insecure", "FROM scratch\nRUN --security=insecure true\n", "Dockerfile:2: RUN --security=insecure is not allowed", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(t.Context(), options(tc.dockerfile, "linux/amd64"))
			assert.ErrorContains(t, err, tc.want)
			var at *Error
			assert.Assert(t, errors.As(err, &at), "%T", err)
			assert.Check(t, is.Contains(at.Excerpt, tc.excerpt))
		})
	}
}

func TestLoad_syntax_line_and_ignore_file(t *testing.T) {
	t.Parallel()
	o := options("# syntax=docker/dockerfile:1.7-labs\nFROM scratch\nCOPY . /\n", "linux/amd64")
	o.Dockerfile = fstest.MapFS{
		"Dockerfile":              {Data: []byte("# syntax=docker/dockerfile:1.7-labs\nFROM scratch\nCOPY . /\n")},
		"Dockerfile.dockerignore": {Data: []byte("own\n")},
	}
	res, err := Load(t.Context(), o)
	assert.NilError(t, err)
	for _, v := range res.Graph.Vertices {
		if op, ok := v.Op.(*graph.LocalSource); ok {
			assert.Check(t, is.DeepEqual(op.Exclude, []string{"own"}))
			return
		}
	}
	t.Error("no local source")
}

// What a git URL says, and what ADD says of it, is in the source.
func TestLoad_git(t *testing.T) {
	t.Parallel()
	hash := strings.Repeat("0123456789", 4)
	for _, tc := range []struct {
		add  string
		want graph.GitSource
	}{
		{"https://h.test/a/b.git /x", graph.GitSource{Remote: "https://h.test/a/b.git"}},
		{"https://u:p@h.test/a/b.git#v1:sub/dir /x", graph.GitSource{Remote: "https://u:p@h.test/a/b.git", Ref: "v1", Subdir: "sub/dir"}},
		{"--keep-git-dir=true --checksum=" + hash + " https://h.test/b.git#main /x", graph.GitSource{Remote: "https://h.test/b.git", Ref: "main", KeepDir: true, Checksum: hash}},
		{"https://h.test/b.git?tag=v2&submodules=false&subdir=d /x", graph.GitSource{Remote: "https://h.test/b.git", Ref: "refs/tags/v2", Subdir: "d", SkipSubmodules: true}},
	} {
		res, err := Load(t.Context(), options("FROM scratch\nADD "+tc.add+"\n", "linux/amd64"))
		assert.NilError(t, err, tc.add)
		tc.want.TokenSecret, tc.want.HeaderSecret = "GIT_AUTH_TOKEN", "GIT_AUTH_HEADER"
		assert.Check(t, is.DeepEqual(*res.Graph.Vertices[0].Op.(*graph.GitSource), tc.want), tc.add)
	}
}

func TestGitContext(t *testing.T) {
	t.Parallel()
	for location, want := range map[string]*graph.GitSource{
		"https://h.test/b.git#main:d": {Remote: "https://h.test/b.git", Ref: "main", Subdir: "d"},
		"git://h.test/b":              {Remote: "git://h.test/b"},
		"https://h.test/b.tar.gz":     nil,
		"dir":                         nil,
		"/dir.git":                    nil,
		"./x.git":                     nil,
	} {
		got, ok, err := GitContext(t.Context(), location)
		assert.NilError(t, err, location)
		assert.Check(t, is.Equal(IsGitContext(location), ok), location)
		assert.Check(t, is.Equal(ok, want != nil), location)
		if want != nil {
			want.TokenSecret, want.HeaderSecret = "GIT_AUTH_TOKEN", "GIT_AUTH_HEADER"
			assert.Check(t, is.DeepEqual(got, want), location)
		}
	}
}

// silentHost takes connections and says nothing. It returns a repository there,
// and a context that ends with the first connection.
func silentHost(t *testing.T) (context.Context, string) {
	t.Helper()
	host, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	t.Cleanup(func() { assert.NilError(t, host.Close()) })
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go func() {
		conn, err := host.Accept()
		cancel()
		if err == nil {
			<-t.Context().Done()
			_ = conn.Close()
		}
	}()
	return ctx, "ssh://git@" + host.Addr().String() + "/b.git"
}

// Nobody waits for a silent host who has given up.
func TestGit_silent_host(t *testing.T) {
	t.Parallel()
	ctx, location := silentHost(t)
	assert.Check(t, IsGitContext(location))
	assert.Check(t, ctx.Err(), "the host was asked")
	got, ok, err := GitContext(ctx, location)
	assert.NilError(t, err)
	assert.Check(t, ok)
	assert.Check(t, is.Equal(got.Agent, "default"))
	assert.Check(t, is.Equal(got.KnownHosts, ""))

	// The front end asks, too.
	ctx, location = silentHost(t)
	_, err = Load(ctx, options("FROM scratch\nADD "+location+" /x\n", "linux/amd64"))
	assert.ErrorIs(t, err, context.Canceled)
}

func TestRunsOn(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/graphs/multistage.Dockerfile")
	assert.NilError(t, err)
	res, err := Load(t.Context(), options(string(text), "linux/arm64"))
	assert.NilError(t, err)
	img := res.Graph.Images[0]
	assert.Check(t, RunsOn(img, ocispecs.Platform{OS: "linux", Architecture: "arm64"}))
	assert.Check(t, RunsOn(img, ocispecs.Platform{OS: "linux", Architecture: "amd64"}))
	assert.Check(t, !RunsOn(img, ocispecs.Platform{OS: "linux", Architecture: "s390x"}))
}

func TestContextName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"base": "base", "base:latest": "base", "docker.io/library/alpine:3": "alpine:3", "docker.io/library/alpine": "alpine",
		"registry.test/a/b:latest": "registry.test/a/b", "UPPER": "UPPER",
	} {
		assert.Check(t, is.Equal(contextName(name), want))
	}
}
