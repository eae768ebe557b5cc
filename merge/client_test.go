package merge_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
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

var _ merge.Registry = (*registry.Client)(nil)

// The road of a pipeline: two builds push and write records, the merge reads
// the files and publishes to two repositories of a real registry protocol.
func TestRun_with_the_real_client(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(memory.New(memory.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	client, err := registry.New(registry.Options{
		HomeDir: t.TempDir(), Getenv: func(string) string { return "" }, Retry: registry.Retry{Count: -1},
	})
	assert.NilError(t, err)

	staging, err := registry.ParseRef(host + "/acme/staging")
	assert.NilError(t, err)
	digests := t.TempDir()
	for _, arch := range []string{"arm64", "amd64"} {
		r := push(t, client, staging, arch)
		assert.NilError(t, record.Write(filepath.Join(digests, "kma-"+arch), r))
	}
	found, err := record.Read(digests)
	assert.NilError(t, err)
	opts := merge.Options{
		Records:      found,
		Destinations: []string{host + "/acme/app:1", host + "/acme/other:1", host + "/acme/app:latest"},
		Platforms:    platforms(t, "linux/amd64,linux/arm64"),
		Annotations:  []string{"a=b"},
		DryRun:       true,
	}
	dry, err := merge.Run(t.Context(), client, opts)
	assert.NilError(t, err)
	code, _ := get(t, server.URL+"/v2/acme/app/manifests/1")
	assert.Equal(t, code, http.StatusNotFound)

	opts.DryRun = false
	report, err := merge.Run(t.Context(), client, opts)
	assert.NilError(t, err)
	assert.Equal(t, report.Digest, dry.Digest)
	assert.Equal(t, report.Images[0].CopiedFrom, host+"/acme/staging")
	for _, name := range []string{"app/manifests/1", "app/manifests/latest", "other/manifests/1", "app/manifests/" + report.Digest.String()} {
		code, body := get(t, server.URL+"/v2/acme/"+name)
		assert.Equal(t, code, http.StatusOK, name)
		assert.Equal(t, string(body), string(report.Index), name)
	}
	var index ocispecs.Index
	assert.NilError(t, json.Unmarshal(report.Index, &index))
	for _, desc := range index.Manifests {
		for _, name := range []string{"app", "other"} {
			code, body := get(t, server.URL+"/v2/acme/"+name+"/manifests/"+desc.Digest.String())
			assert.Equal(t, code, http.StatusOK)
			var manifest ocispecs.Manifest
			assert.NilError(t, json.Unmarshal(body, &manifest))
			for _, blob := range append(manifest.Layers, manifest.Config) {
				code, body := get(t, server.URL+"/v2/acme/"+name+"/blobs/"+blob.Digest.String())
				assert.Equal(t, code, http.StatusOK)
				assert.Equal(t, digest.FromBytes(body), blob.Digest)
			}
		}
	}

	// Again, now from bare digests in the destination's own repository.
	for i := range opts.Records {
		opts.Records[i] = bare(opts.Records[i])
	}
	again, err := merge.Run(t.Context(), client, opts)
	assert.NilError(t, err)
	assert.Equal(t, string(again.Index), string(report.Index))

	opts.Records[0].Record.Digest = digest.FromString("nowhere")
	_, err = merge.Run(t.Context(), client, opts)
	assert.Check(t, is.ErrorContains(err, "is not in "+host+"/acme/app, "+host+"/acme/other"))
	assert.Check(t, is.ErrorContains(err, "no tag was moved"))
}

// CI systems re-run only what failed: the records of the first attempt lie beside
// those of the second.
func TestRun_newest_attempt_wins(t *testing.T) {
	t.Parallel()
	client, host := serve(t)
	repo := ref(t, host+"/acme/app")
	dir := t.TempDir()
	write := func(attempt int, r record.Record) {
		r.Key, r.Run, r.Attempt = "app", "7", attempt
		assert.NilError(t, record.Write(filepath.Join(dir, "attempt", strconv.Itoa(attempt)), r))
	}
	amd64, arm64 := push(t, client, repo, "amd64"), push(t, client, repo, "arm64")
	broken := arm64
	broken.Digest = digest.FromString("of the first attempt")
	write(1, amd64)
	write(1, broken)
	write(2, arm64)
	found, err := record.Read(dir)
	assert.NilError(t, err)
	report, err := merge.Run(t.Context(), client, merge.Options{
		Records: found, Destinations: []string{repo.WithTag("1").String()}, Platforms: platforms(t, "amd64,arm64"),
	})
	assert.NilError(t, err)
	assert.Equal(t, report.Images[0].Digest, amd64.Digest)
	assert.Equal(t, report.Images[1].Digest, arm64.Digest)
	assert.Check(t, is.Contains(strings.Join(report.Notices, "\n"), "replaces the earlier"))
}

// push does what a build of one platform does and returns its record.
func push(t *testing.T, client *registry.Client, repo registry.Ref, arch string) record.Record {
	t.Helper()
	blob := func(mediaType string, data []byte) ocispecs.Descriptor {
		desc := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
		assert.NilError(t, client.PushBlob(t.Context(), repo, desc, bytes.NewReader(data), nil))
		return desc
	}
	config, err := json.Marshal(ocispecs.Image{Platform: ocispecs.Platform{OS: "linux", Architecture: arch}})
	assert.NilError(t, err)
	m := ocispecs.Manifest{
		MediaType: ocispecs.MediaTypeImageManifest,
		Config:    blob(ocispecs.MediaTypeImageConfig, config),
		Layers:    []ocispecs.Descriptor{blob(ocispecs.MediaTypeImageLayerGzip, []byte("layer "+arch))},
	}
	m.SchemaVersion = 2
	data, err := json.Marshal(m)
	assert.NilError(t, err)
	desc, err := client.PushManifest(t.Context(), repo.WithDigest(digest.FromBytes(data)), m.MediaType, data)
	assert.NilError(t, err)
	return record.Record{
		Image: repo.Name(), Platform: "linux/" + arch, Digest: desc.Digest, Size: desc.Size, MediaType: desc.MediaType, Pushed: true,
	}
}

func get(t *testing.T, url string) (int, []byte) {
	t.Helper()
	resp, err := http.Get(url)
	assert.NilError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	assert.NilError(t, err)
	return resp.StatusCode, body
}
