package job

import (
	"crypto/rand"
	"encoding/base64"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/build"
)

func TestRequest(t *testing.T) {
	t.Parallel()
	r := Request{
		Options: build.Options{Target: "x", BuildArgs: map[string]string{"a": "1", "b": "2"}, Registries: build.Registries{CredentialHelpers: []string{}}},
		Files:   map[string][]byte{"Dockerfile": []byte("FROM scratch\n")}, Hidden: map[string]string{ContextLocation: "location-0"},
		Variables: map[string]string{"GIT_TOKEN": "variable-0"}, DockerfileName: "docker/Dockerfile",
	}
	s, err := r.Encode()
	assert.NilError(t, err)
	again, err := r.Encode()
	assert.NilError(t, err)
	assert.Check(t, is.Equal(s, again))
	got, err := Decode(s)
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(got, r))
}

func TestRequest_too_large(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 100<<10)
	_, _ = rand.Read(noise)
	_, err := Request{Files: map[string][]byte{"Dockerfile": noise}}.Encode()
	assert.ErrorContains(t, err, "keep the Dockerfile in the context")
	// What compresses well may be much larger.
	_, err = Request{Files: map[string][]byte{"Dockerfile": []byte(strings.Repeat("RUN true\n", 100<<10))}}.Encode()
	assert.NilError(t, err)
}

func TestDecode_refuses(t *testing.T) {
	t.Parallel()
	whole, err := Request{}.Encode()
	assert.NilError(t, err)
	newer, err := encode([]byte(`{"Options":{"NewOption":true}}`))
	assert.NilError(t, err)
	for _, tc := range []struct{ name, s, want string }{
		{"nothing", "", "the argument whole"},
		{"cut", whole[:len(whole)-9], "the argument whole"},
		{"other", "x." + whole, "the argument whole"},
		{"base64", "1.!", "the argument whole"},
		{"no_zstd", "1." + base64.RawURLEncoding.EncodeToString([]byte("text")), "the argument whole"},
		{"version", "2" + whole[1:], "of version 2"},
		{"option", newer, "the same release"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := Decode(tc.s)
			assert.ErrorContains(t, err, tc.want)
		})
	}
}
