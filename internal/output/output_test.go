package output

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/engine"
)

// blob is a layer of a base image.
type blob []byte

func (b blob) OpenLayer(context.Context, string, ocispecs.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b)), nil
}

func image(t *testing.T, arch string, layers ...[]byte) *engine.Image {
	t.Helper()
	config := []byte(`{"architecture":"` + arch + `"}`)
	m := ocispecs.Manifest{Config: ocispecs.Descriptor{Digest: digest.FromBytes(config), Size: int64(len(config))}}
	for _, l := range layers {
		m.Layers = append(m.Layers, ocispecs.Descriptor{Digest: digest.FromBytes(l), Size: int64(len(l))})
	}
	data, err := json.Marshal(m)
	assert.NilError(t, err)
	return &engine.Image{
		Platform: ocispecs.Platform{OS: "linux", Architecture: arch}, Config: config, ConfigDescriptor: m.Config, Manifest: data,
		Descriptor: ocispecs.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))},
	}
}

func TestLayout(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "layout")
	base, own := []byte("base"), []byte("own")
	l, err := NewLayout(dir, blob(base))
	assert.NilError(t, err)
	img := image(t, "arm64", base, own)
	desc := ocispecs.Descriptor{Digest: digest.FromBytes(own), Size: int64(len(own))}
	assert.NilError(t, l.BaseLayer(t.Context(), "x", ocispecs.Descriptor{Digest: digest.FromBytes(base), Size: int64(len(base))}))
	assert.NilError(t, l.Layer(t.Context(), desc, bytes.NewReader(own), nil))
	assert.NilError(t, l.Layer(t.Context(), desc, bytes.NewReader(own), nil), "the same layer again")
	assert.NilError(t, l.Image(t.Context(), img))
	dest := filepath.Join(t.TempDir(), "made", "dest")
	assert.NilError(t, l.WriteTo(dest, Final{Names: []string{"a:1"}}))
	assert.NilError(t, l.WriteTo(dest, Final{Names: []string{"a:1"}}), "the same again")
	for _, d := range []digest.Digest{desc.Digest, img.Descriptor.Digest, img.ConfigDescriptor.Digest} {
		_, err := os.Stat((&Layout{dir: dest}).blob(d))
		assert.Check(t, err)
	}

	var index ocispecs.Index
	data, err := os.ReadFile(filepath.Join(dest, "index.json"))
	assert.NilError(t, err)
	assert.NilError(t, json.Unmarshal(data, &index))
	assert.Assert(t, is.Len(index.Manifests, 1))
	assert.Check(t, is.Equal(index.Manifests[0].Digest, img.Descriptor.Digest))
	assert.Check(t, is.Equal(index.Manifests[0].Annotations[ocispecs.AnnotationRefName], "1"))

	var one, two bytes.Buffer
	assert.NilError(t, l.TarDocker(&one, Final{Names: []string{"a:1"}}))
	assert.NilError(t, l.TarDocker(&two, Final{Names: []string{"a:1"}}))
	assert.Check(t, bytes.Equal(one.Bytes(), two.Bytes()))
	names := map[string]string{}
	tr := tar.NewReader(&one)
	for h, err := tr.Next(); err == nil; h, err = tr.Next() {
		text, err := io.ReadAll(tr)
		assert.NilError(t, err)
		names[h.Name] = string(text)
	}
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	assert.NilError(t, json.Unmarshal([]byte(names["manifest.json"]), &manifest))
	assert.Check(t, is.DeepEqual(manifest[0].RepoTags, []string{"a:1"}))
	assert.Check(t, is.Equal(names[manifest[0].Layers[1]], "own"))
	assert.Check(t, is.Equal(names[manifest[0].Config], string(img.Config)))

	assert.Check(t, is.Equal(names["index.json"], string(data)))

	// What is for OCI has no file of Docker's.
	one.Reset()
	assert.NilError(t, l.TarOCI(&one, Final{}))
	assert.Check(t, !bytes.Contains(one.Bytes(), []byte("manifest.json")))
}

// Several images are found through their index, under each of their names.
func TestLayout_index(t *testing.T) {
	t.Parallel()
	l, err := NewLayout(t.TempDir(), blob(nil))
	assert.NilError(t, err)
	assert.NilError(t, l.Image(t.Context(), image(t, "arm64")))
	assert.NilError(t, l.Image(t.Context(), image(t, "amd64")))
	raw := []byte(`{"manifests":[]}`)
	f := Final{Names: []string{"docker.io/library/a:1", "localhost:5000/a:2"}, Index: raw, IndexType: ocispecs.MediaTypeImageIndex}
	dest := t.TempDir()
	assert.NilError(t, l.WriteTo(dest, f))
	var index ocispecs.Index
	data, err := os.ReadFile(filepath.Join(dest, "index.json"))
	assert.NilError(t, err)
	assert.NilError(t, json.Unmarshal(data, &index))
	assert.Assert(t, is.Len(index.Manifests, 2))
	for i, d := range index.Manifests {
		assert.Check(t, is.Equal(d.Digest, digest.FromBytes(raw)))
		assert.Check(t, is.Equal(d.Annotations["io.containerd.image.name"], f.Names[i]))
	}
	assert.Check(t, is.Equal(index.Manifests[1].Annotations[ocispecs.AnnotationRefName], "2"))
	stored, err := os.ReadFile((&Layout{dir: dest}).blob(digest.FromBytes(raw)))
	assert.NilError(t, err)
	assert.Check(t, is.Equal(string(stored), string(raw)))
	var archive bytes.Buffer
	assert.NilError(t, l.TarDocker(&archive, f))
	assert.Check(t, !bytes.Contains(archive.Bytes(), []byte("manifest.json")))
	assert.Check(t, bytes.Contains(archive.Bytes(), raw))
}

func TestLayout_refuses_wrong_bytes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := NewLayout(dir, blob("other"))
	assert.NilError(t, err)
	d := ocispecs.Descriptor{Digest: digest.FromString("wanted"), Size: 5}
	assert.ErrorContains(t, l.BaseLayer(t.Context(), "x", d), "another digest")
	_, err = os.Stat(l.blob(d.Digest))
	assert.Check(t, errors.Is(err, fs.ErrNotExist))
}
