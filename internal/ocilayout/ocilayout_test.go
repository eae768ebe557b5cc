package ocilayout

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// store writes a blob of the layout in dir.
func store(t *testing.T, dir string, v any) ocispecs.Descriptor {
	t.Helper()
	data, ok := v.([]byte)
	if !ok {
		var err error
		data, err = json.Marshal(v)
		assert.NilError(t, err)
	}
	d := digest.FromBytes(data)
	name := filepath.Join(dir, blob(d))
	assert.NilError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	assert.NilError(t, os.WriteFile(name, data, 0o644))
	return ocispecs.Descriptor{Digest: d, Size: int64(len(data))}
}

// image stores an image whose config is text.
func image(t *testing.T, dir, text string) ocispecs.Descriptor {
	t.Helper()
	return store(t, dir, ocispecs.Manifest{Config: store(t, dir, []byte(text))})
}

// layout opens one whose index has the given images, by tag.
func layout(t *testing.T, dir string, tags map[string]ocispecs.Descriptor) *Layout {
	t.Helper()
	var index ocispecs.Index
	for tag, d := range tags {
		d.Annotations = map[string]string{ocispecs.AnnotationRefName: tag}
		index.Manifests = append(index.Manifests, d)
	}
	data, err := json.Marshal(index)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(filepath.Join(dir, ocispecs.ImageIndexFile), data, 0o644))
	l, err := Open(dir)
	assert.NilError(t, err)
	t.Cleanup(func() { assert.Check(t, l.Close()) })
	return l
}

func TestResolve(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, two, untagged := image(t, dir, "one"), image(t, dir, "two"), image(t, dir, "untagged")
	many := layout(t, dir, map[string]ocispecs.Descriptor{"latest": one, "2": two})
	other := t.TempDir()
	single := layout(t, other, map[string]ocispecs.Descriptor{"x": image(t, other, "x")})
	for name, tc := range map[string]struct {
		in   *Layout
		tag  string
		d    digest.Digest
		want digest.Digest
	}{
		"latest":          {many, "", "", one.Digest},
		"tag":             {many, "2", "", two.Digest},
		"digest":          {many, "2", one.Digest, one.Digest},
		"not_in_index":    {many, "", untagged.Digest, untagged.Digest},
		"only_one":        {single, "", "", image(t, t.TempDir(), "x").Digest},
		"no_tag":          {many, "3", "", ""},
		"tag_of_only_one": {single, "latest", "", ""},
		"no_digest":       {many, "", digest.FromString("?"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tc.in.Resolve(tc.tag, tc.d)
			if tc.want == "" {
				assert.ErrorIs(t, err, ErrNotFound)
				return
			}
			assert.NilError(t, err)
			assert.Check(t, is.Equal(got.Digest, tc.want))
		})
	}
	_, err := many.Resolve("", digest.Digest("sha256:../../../../etc/passwd"))
	assert.Check(t, err != nil, "digests lead out of the layout")
}

func TestImage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	of := func(text, arch, variant string) ocispecs.Descriptor {
		d := image(t, dir, text)
		d.Platform = &ocispecs.Platform{OS: "linux", Architecture: arch, Variant: variant}
		return d
	}
	attestation := image(t, dir, "attestation")
	attestation.Platform = &ocispecs.Platform{OS: "unknown", Architecture: "unknown"}
	inner := store(t, dir, ocispecs.Index{Manifests: []ocispecs.Descriptor{attestation, of("v6", "arm", "v6"), of("v7", "arm", "v7"), of("amd64", "amd64", "")}})
	inner.Platform = &ocispecs.Platform{OS: "linux", Architecture: "riscv64"}
	index := store(t, dir, ocispecs.Index{Manifests: []ocispecs.Descriptor{inner, of("v5", "arm", "v5")}})
	l := layout(t, dir, nil)
	for name, tc := range map[string]struct {
		d    ocispecs.Descriptor
		p    ocispecs.Platform
		want string
	}{
		"image":        {of("v6", "arm", "v6"), ocispecs.Platform{OS: "linux", Architecture: "s390x"}, "v6"},
		"of_index":     {inner, ocispecs.Platform{OS: "linux", Architecture: "amd64"}, "amd64"},
		"best_variant": {inner, ocispecs.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, "v7"},
		"older":        {index, ocispecs.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}, "v5"},
		"other":        {inner, ocispecs.Platform{OS: "linux", Architecture: "s390x"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m, config, err := l.Image(tc.d.Digest, tc.p)
			if tc.want == "" {
				assert.ErrorIs(t, err, ErrNotFound)
				return
			}
			assert.NilError(t, err)
			assert.Check(t, is.Equal(string(config), tc.want))
			assert.Check(t, is.Equal(m.Config.Digest, digest.FromString(tc.want)))
		})
	}
}

// Nothing is believed that has another digest than its name says.
func TestCorrupt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	img := image(t, dir, "config")
	layer := store(t, dir, []byte("layer"))
	l := layout(t, dir, nil)
	read := func() error {
		r, err := l.Blob(layer)
		assert.NilError(t, err)
		defer r.Close()
		_, err = io.ReadAll(r)
		return err
	}
	assert.NilError(t, read())
	for _, d := range []digest.Digest{layer.Digest, digest.FromString("config")} {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, blob(d)), []byte("other"), 0o644))
	}
	assert.Check(t, is.ErrorContains(read(), "has another digest"))
	_, _, err := l.Image(img.Digest, ocispecs.Platform{})
	assert.Check(t, is.ErrorContains(err, "has another digest"))
	_, err = l.Blob(ocispecs.Descriptor{Digest: digest.FromString("missing")})
	assert.Check(t, is.ErrorIs(err, ErrNotFound))
}

func TestOpen_refuses(t *testing.T) {
	t.Parallel()
	_, err := Open(t.TempDir())
	assert.ErrorContains(t, err, "is no OCI layout")
	_, err = Open(filepath.Join(t.TempDir(), "nope"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}
