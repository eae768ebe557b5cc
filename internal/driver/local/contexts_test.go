package local

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/build"
)

// write makes files with their own names as content.
func write(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		name = filepath.Join(dir, name)
		assert.NilError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		assert.NilError(t, os.WriteFile(name, []byte(name), 0o644))
	}
}

func TestOpenContexts_finds_the_Dockerfile(t *testing.T) {
	t.Parallel()
	here, err := os.Getwd()
	assert.NilError(t, err)
	// relative is the way to a file from the working directory.
	relative := func(name string) string {
		rel, err := filepath.Rel(here, name)
		assert.NilError(t, err)
		return rel
	}
	for _, tc := range []struct {
		name  string
		files []string
		// dockerfile, content and display depend on the context's directory.
		dockerfile, content, display func(dir string) string
	}{
		{"default", []string{"Dockerfile"},
			func(string) string { return "" },
			func(dir string) string { return filepath.Join(dir, "Dockerfile") },
			func(string) string { return "Dockerfile" }},
		{"in_the_context", []string{"Dockerfile", "sub/Other"},
			func(string) string { return "sub/Other" },
			func(dir string) string { return filepath.Join(dir, "sub/Other") },
			func(dir string) string { return filepath.Join(dir, "sub/Other") }},
		{"in_the_working_directory_first", []string{"target.go"},
			func(string) string { return "target.go" },
			func(string) string { return filepath.Join(here, "target.go") },
			func(string) string { return "target.go" }},
		{"relative_to_the_working_directory", []string{"x/Dockerfile"},
			func(dir string) string { return relative(filepath.Join(dir, "x/Dockerfile")) },
			func(dir string) string { return filepath.Join(dir, "x/Dockerfile") },
			func(dir string) string { return relative(filepath.Join(dir, "x/Dockerfile")) }},
		{"absolute", []string{"x/Dockerfile"},
			func(dir string) string { return filepath.Join(dir, "x/Dockerfile") },
			func(dir string) string { return filepath.Join(dir, "x/Dockerfile") },
			func(dir string) string { return filepath.Join(dir, "x/Dockerfile") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, scheme := range []string{"", "dir://", "file://"} {
				dir := t.TempDir()
				write(t, dir, tc.files...)
				c, err := openContexts(t.Context(), build.Options{Context: scheme + dir, Dockerfile: tc.dockerfile(dir)}, (&Driver{}).remoteContexts(build.Options{}, ""))
				assert.NilError(t, err)
				defer c.close()
				got, err := fs.ReadFile(c.dockerfile, c.dockerfile.name())
				assert.NilError(t, err)
				want, err := os.ReadFile(tc.content(dir))
				assert.NilError(t, err)
				assert.Check(t, is.Equal(string(got), string(want)))
				assert.Check(t, is.Equal(c.display, tc.display(dir)))
			}
		})
	}
}

func TestOpenContexts_errors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "Dockerfile", "sub/file")
	empty := t.TempDir()
	missing := filepath.Join(dir, "missing")
	for _, tc := range []struct {
		name    string
		o       build.Options
		context string
		want    []string
	}{
		{"no_context", build.Options{}, "context", []string{"context: ", "name a directory"}},
		{"missing_context", build.Options{Context: missing}, "context", []string{"context: ", missing, "does not exist"}},
		{"context_is_no_file_url", build.Options{Context: "file://elsewhere/x"}, "context", []string{"context: a file URL has an absolute path"}},
		{"context_is_a_file", build.Options{Context: filepath.Join(dir, "Dockerfile")}, "context", []string{"context: ", "is not a directory"}},
		{"missing_named_context", build.Options{Context: dir, BuildContexts: map[string]string{"x": missing}}, "x", []string{"named context x: ", missing, "does not exist"}},
		{"no_dockerfile", build.Options{Context: empty}, "context", []string{"there is no Dockerfile in " + empty, "--dockerfile"}},
		{"missing_dockerfile", build.Options{Context: dir, Dockerfile: "Nope"}, "context", []string{"there is no Dockerfile Nope", "working directory", "context", "--dockerfile"}},
		{"missing_absolute_dockerfile", build.Options{Context: dir, Dockerfile: missing}, "context", []string{"there is no Dockerfile " + missing}},
		{"dockerfile_below_a_file", build.Options{Context: dir, Dockerfile: filepath.Join(dir, "Dockerfile/x")}, "context", []string{"the Dockerfile: ", "not a directory"}},
		{"dockerfile_is_a_directory", build.Options{Context: dir, Dockerfile: "sub"}, "context", []string{"sub is a directory"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := openContexts(t.Context(), tc.o, (&Driver{}).remoteContexts(build.Options{}, ""))
			e, ok := errors.AsType[*ContextError](err)
			assert.Assert(t, ok, "%v", err)
			assert.Check(t, is.Equal(e.Name, tc.context))
			assert.Check(t, is.Equal(e.NoDockerfile, tc.name == "no_dockerfile"))
			for _, want := range tc.want {
				assert.Check(t, is.ErrorContains(err, want))
			}
			assert.Check(t, !strings.Contains(err.Error(), "context: context: "), err)
		})
	}
}

// A link may lead out of the context, as in a repository of many images.
func TestOpenContexts_dockerfile_is_a_link(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "common/Dockerfile", "app/Dockerfile.dockerignore", "app/other")
	assert.NilError(t, os.Symlink("../common/Dockerfile", filepath.Join(dir, "app/Dockerfile")))
	c, err := openContexts(t.Context(), build.Options{Context: filepath.Join(dir, "app")}, (&Driver{}).remoteContexts(build.Options{}, ""))
	assert.NilError(t, err)
	defer c.close()
	got, err := fs.ReadFile(c.dockerfile, "Dockerfile")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(string(got), filepath.Join(dir, "common/Dockerfile")))
	_, err = fs.ReadFile(c.dockerfile, "Dockerfile.dockerignore")
	assert.Check(t, err)
	for _, name := range []string{"other", "../common/Dockerfile", "missing"} {
		_, err = fs.ReadFile(c.dockerfile, name)
		assert.Check(t, is.ErrorIs(err, fs.ErrNotExist), name)
	}
}

// The path of a file URL is encoded.
func TestOpenContexts_file_url(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a b")
	write(t, dir, "Dockerfile")
	c, err := openContexts(t.Context(), build.Options{Context: (&url.URL{Scheme: "file", Path: dir}).String()}, (&Driver{}).remoteContexts(build.Options{}, ""))
	assert.NilError(t, err)
	defer c.close()
	_, err = fs.ReadFile(c.dockerfile, "Dockerfile")
	assert.Check(t, err)
}

func TestOpenContexts_reserved_names(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "Dockerfile")
	for _, name := range []string{"context", "dockerfile"} {
		_, err := openContexts(t.Context(), build.Options{Context: dir, BuildContexts: map[string]string{name: dir}}, (&Driver{}).remoteContexts(build.Options{}, ""))
		assert.Check(t, isInput(err), "%v", err)
		assert.Check(t, is.ErrorContains(err, "--build-context "+name+": the name is taken"))
	}
}

func TestOpenContexts_named(t *testing.T) {
	t.Parallel()
	dir, other := t.TempDir(), t.TempDir()
	write(t, dir, "Dockerfile")
	write(t, other, "file")
	c, err := openContexts(t.Context(), build.Options{Context: dir, BuildContexts: map[string]string{"other": other, "base": "docker-image://alpine:3"}}, (&Driver{}).remoteContexts(build.Options{}, ""))
	assert.NilError(t, err)
	defer c.close()
	assert.Check(t, is.DeepEqual(c.images, map[string]string{"base": "docker-image://alpine:3"}))
	assert.Check(t, is.Len(c.engine(), 2))
	o := c.frontend(build.Options{Target: "t"}, nil, newBaseImages(nil))
	assert.Check(t, is.Len(o.Contexts, 2))
	got, err := fs.ReadFile(o.Contexts["other"], "file")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(string(got), filepath.Join(other, "file")))
	_, err = fs.ReadFile(o.Contexts["context"], "Dockerfile")
	assert.Check(t, err)
}
