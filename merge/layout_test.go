package merge_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	memory "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/registry"
	"github.com/org/kaniko-multiarch/merge"
)

// serve is a registry in memory and a client of it.
func serve(t *testing.T, opts ...memory.Option) (*registry.Client, string) {
	t.Helper()
	server := httptest.NewServer(memory.New(append(opts, memory.Logger(log.New(io.Discard, "", 0)))...))
	t.Cleanup(server.Close)
	client, err := registry.New(registry.Options{HomeDir: t.TempDir(), Getenv: func(string) string { return "" }, Retry: registry.Retry{Count: -1}})
	assert.NilError(t, err)
	return client, strings.TrimPrefix(server.URL, "http://")
}

func ref(t *testing.T, s string) registry.Ref {
	t.Helper()
	r, err := registry.ParseRef(s)
	assert.NilError(t, err)
	return r
}

func layoutIndex(t *testing.T, dir string) ocispecs.Index {
	t.Helper()
	var index ocispecs.Index
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	assert.NilError(t, err)
	assert.NilError(t, json.Unmarshal(data, &index))
	return index
}

func TestRun_layout(t *testing.T) {
	t.Parallel()
	client, host := serve(t)
	repo := ref(t, host+"/acme/app")
	var found []record.Found
	for _, arch := range []string{"amd64", "arm64"} {
		found = append(found, record.Found{Record: push(t, client, repo, arch)})
	}
	dir := filepath.Join(t.TempDir(), "layout")
	opts := merge.Options{Records: found, Layout: dir, Annotations: []string{"index-descriptor:a=b"}}
	report, err := merge.Run(t.Context(), client, opts)
	assert.NilError(t, err)
	assert.Equal(t, report.Published, false)
	assert.Equal(t, report.Layout, dir)
	assert.Equal(t, report.Image, "")
	index := layoutIndex(t, dir)
	assert.Assert(t, is.Len(index.Manifests, 1))
	assert.Equal(t, index.Manifests[0].Digest, report.Digest)
	assert.DeepEqual(t, index.Manifests[0].Annotations, map[string]string{"a": "b"})

	// Tags have an entry each, and take the place of older ones.
	opts.Destinations, opts.Annotations = []string{host + "/acme/app:1", host + "/acme/app:2"}, []string{"a=b"}
	for range 2 {
		report, err = merge.Run(t.Context(), client, opts)
		assert.NilError(t, err)
		index = layoutIndex(t, dir)
		assert.Assert(t, is.Len(index.Manifests, 3))
		assert.Equal(t, index.Manifests[2].Digest, report.Digest)
		assert.Equal(t, index.Manifests[2].Annotations["org.opencontainers.image.ref.name"], "2")
		assert.Equal(t, index.Manifests[2].Annotations["io.containerd.image.name"], host+"/acme/app:2")
	}
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	assert.NilError(t, err)
	for _, name := range blobs {
		data, err := os.ReadFile(name)
		assert.NilError(t, err)
		assert.Equal(t, digest.FromBytes(data).Encoded(), filepath.Base(name))
	}
	if _, err := exec.LookPath("skopeo"); err == nil {
		out, err := exec.CommandContext(t.Context(), "skopeo", "inspect", "--raw", "oci:"+dir+":2").CombinedOutput()
		assert.NilError(t, err, string(out))
		assert.Equal(t, string(out), string(report.Index))
	}

	opts.DryRun, opts.Layout = true, filepath.Join(t.TempDir(), "none")
	report, err = merge.Run(t.Context(), client, opts)
	assert.NilError(t, err)
	assert.Equal(t, report.Layout, "")
	_, err = os.Stat(opts.Layout)
	assert.Check(t, os.IsNotExist(err))

	opts.DryRun, opts.Destinations = false, nil
	opts.Records = []record.Found{{Path: "x.digest", Record: record.Record{Digest: found[0].Record.Digest}}}
	_, err = merge.Run(t.Context(), client, opts)
	assert.ErrorContains(t, err, "a digest alone does not say where the image is")
}

// Signatures go where their images go, whether the registries list referrers
// or not.
func TestRun_copies_referrers(t *testing.T) {
	t.Parallel()
	for name, api := range map[string][2]bool{"both": {true, true}, "neither": {false, false}, "only_the_source": {true, false}, "only_the_destination": {false, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, fromHost := serve(t, memory.WithReferrersSupport(api[0]))
			_, toHost := serve(t, memory.WithReferrersSupport(api[1]))
			from, to := ref(t, fromHost+"/acme/app"), ref(t, toHost+"/acme/app")
			rec := push(t, client, from, "amd64")
			config := []byte("{}")
			blob := ocispecs.Descriptor{MediaType: "application/vnd.oci.empty.v1+json", Digest: digest.FromBytes(config), Size: 2}
			assert.NilError(t, client.PushBlob(t.Context(), from, blob, bytes.NewReader(config), nil))
			signature := ocispecs.Manifest{
				MediaType: ocispecs.MediaTypeImageManifest, ArtifactType: "application/vnd.example.signature", Config: blob, Layers: []ocispecs.Descriptor{blob},
				Subject: &ocispecs.Descriptor{MediaType: rec.MediaType, Digest: rec.Digest, Size: rec.Size},
			}
			signature.SchemaVersion = 2
			data, err := json.Marshal(signature)
			assert.NilError(t, err)
			pushed, err := client.PushManifest(t.Context(), from.WithDigest(digest.FromBytes(data)), signature.MediaType, data)
			assert.NilError(t, err)
			tag := "sha256-" + rec.Digest.Encoded()
			if !api[0] {
				list, err := json.Marshal(ocispecs.Index{MediaType: ocispecs.MediaTypeImageIndex, Manifests: []ocispecs.Descriptor{pushed}})
				assert.NilError(t, err)
				_, err = client.PushManifest(t.Context(), from.WithTag(tag), ocispecs.MediaTypeImageIndex, list)
				assert.NilError(t, err)
			}
			// cosign's own way, before there were referrers.
			_, err = client.PushManifest(t.Context(), from.WithTag(tag+".sig"), signature.MediaType, data)
			assert.NilError(t, err)

			opts := merge.Options{Records: []record.Found{{Record: rec}}, Destinations: []string{to.WithTag("1").String()}}
			for range 2 {
				_, err = merge.Run(t.Context(), client, opts)
				assert.NilError(t, err)
				list, err := client.Referrers(t.Context(), to.WithDigest(rec.Digest))
				assert.NilError(t, err)
				assert.Assert(t, is.Len(list, 1))
				assert.Equal(t, list[0].Digest, pushed.Digest)
				_, err = client.Head(t.Context(), to.WithTag(tag+".sig"))
				assert.NilError(t, err)
			}

			opts.Destinations, opts.SkipReferrers = []string{toHost + "/acme/other:1"}, true
			_, err = merge.Run(t.Context(), client, opts)
			assert.NilError(t, err)
			list, err := client.Referrers(t.Context(), ref(t, toHost+"/acme/other").WithDigest(rec.Digest))
			assert.NilError(t, err)
			assert.Check(t, is.Len(list, 0))
		})
	}
}
