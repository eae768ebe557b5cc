package merge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/registry"
)

const (
	repo        = "ghcr.io/acme/app"
	dockerImage = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList  = "application/vnd.docker.distribution.manifest.list.v2+json"
)

type content struct {
	mediaType string
	data      []byte
}

// fake is a registry in memory. Keys are full references: name@digest,
// name:tag.
type fake struct {
	mu        sync.Mutex
	manifests map[string]content
	blobs     map[string][]byte
	// referrers counts what refers to a reference.
	referrers map[string]int
	// fault is asked before every operation: "head", "manifest", "blob",
	// "push", "copy", "referrers".
	fault func(op string, ref registry.Ref) error
	// readBack replaces what a push by digest leaves behind.
	readBack func(content) content
	log      []string
}

func newFake() *fake {
	return &fake{manifests: map[string]content{}, blobs: map[string][]byte{}}
}

func (f *fake) begin(op string, ref registry.Ref) error {
	f.log = append(f.log, op+" "+ref.String())
	if f.fault != nil {
		return f.fault(op, ref)
	}
	return nil
}

func (f *fake) Head(_ context.Context, ref registry.Ref) (ocispecs.Descriptor, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("head", ref); err != nil {
		return ocispecs.Descriptor{}, err
	}
	c, ok := f.manifests[ref.String()]
	if !ok {
		return ocispecs.Descriptor{}, fmt.Errorf("%s: %w", ref, registry.ErrNotFound)
	}
	return ocispecs.Descriptor{MediaType: c.mediaType, Digest: digest.FromBytes(c.data), Size: int64(len(c.data))}, nil
}

func (f *fake) CopyReferrers(_ context.Context, to, from registry.Ref) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.referrers[from.String()], f.begin("referrers", to)
}

func (f *fake) Manifest(_ context.Context, ref registry.Ref) (ocispecs.Descriptor, []byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("manifest", ref); err != nil {
		return ocispecs.Descriptor{}, nil, err
	}
	c, ok := f.manifests[ref.String()]
	if !ok {
		return ocispecs.Descriptor{}, nil, fmt.Errorf("%s: %w", ref, registry.ErrNotFound)
	}
	return ocispecs.Descriptor{MediaType: c.mediaType, Digest: digest.FromBytes(c.data), Size: int64(len(c.data))}, c.data, nil
}

func (f *fake) Blob(_ context.Context, repo registry.Ref, desc ocispecs.Descriptor) (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ref := repo.WithDigest(desc.Digest)
	if err := f.begin("blob", ref); err != nil {
		return nil, err
	}
	data, ok := f.blobs[ref.String()]
	if !ok {
		return nil, fmt.Errorf("%s: %w", ref, registry.ErrNotFound)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (f *fake) PushManifest(_ context.Context, ref registry.Ref, mediaType string, data []byte) (ocispecs.Descriptor, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("push", ref); err != nil {
		return ocispecs.Descriptor{}, err
	}
	c := content{mediaType, data}
	if f.readBack != nil && ref.Digest != "" {
		c = f.readBack(c)
	}
	f.manifests[ref.String()] = c
	return ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, nil
}

func (f *fake) CopyImage(_ context.Context, to, from registry.Ref) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("copy", to); err != nil {
		return err
	}
	c, ok := f.manifests[from.String()]
	if !ok {
		return fmt.Errorf("%s: %w", from, registry.ErrNotFound)
	}
	f.manifests[to.String()] = c
	return nil
}

func (f *fake) writes() []string {
	var out []string
	for _, line := range f.log {
		if strings.HasPrefix(line, "push ") || strings.HasPrefix(line, "copy ") {
			out = append(out, line)
		}
	}
	return out
}

func (f *fake) tags() map[string]digest.Digest {
	out := map[string]digest.Digest{}
	for name, c := range f.manifests {
		if !strings.Contains(name, "@") {
			out[name] = digest.FromBytes(c.data)
		}
	}
	return out
}

// image puts an image into a repository and returns its record. The config's
// platform can differ from that of the record.
func (f *fake) image(t *testing.T, name, recorded, built, mediaType string) record.Found {
	t.Helper()
	p, err := platform.Parse(built)
	assert.NilError(t, err)
	config, err := json.Marshal(ocispecs.Image{Platform: p})
	assert.NilError(t, err)
	configType, layerType := ocispecs.MediaTypeImageConfig, ocispecs.MediaTypeImageLayerGzip
	if mediaType == dockerImage {
		configType, layerType = "application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip"
	}
	m := ocispecs.Manifest{
		MediaType: mediaType,
		Config:    ocispecs.Descriptor{MediaType: configType, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers:    []ocispecs.Descriptor{{MediaType: layerType, Digest: digest.FromString("layer of " + built), Size: 42}},
	}
	m.SchemaVersion = 2
	data, err := json.Marshal(m)
	assert.NilError(t, err)
	return f.put(t, name, recorded, mediaType, data, config)
}

func (f *fake) put(t *testing.T, name, recorded, mediaType string, manifest, config []byte) record.Found {
	t.Helper()
	ref, err := registry.ParseRef(name)
	assert.NilError(t, err)
	d := digest.FromBytes(manifest)
	f.manifests[ref.WithDigest(d).String()] = content{mediaType, manifest}
	f.blobs[ref.WithDigest(digest.FromBytes(config)).String()] = config
	return record.Found{
		Path: strings.ReplaceAll(recorded, "/", "-") + ".json",
		Record: record.Record{
			Schema: record.Schema, Key: "app-1f2e3d", Image: name, Platform: recorded, Digest: d,
			Size: int64(len(manifest)), MediaType: mediaType, Pushed: true, Revision: "abc", Run: "77", Attempt: 1,
		},
	}
}

func (f *fake) oci(t *testing.T, p string) record.Found {
	t.Helper()
	return f.image(t, repo, p, p, ocispecs.MediaTypeImageManifest)
}

func (f *fake) docker(t *testing.T, p string) record.Found {
	t.Helper()
	return f.image(t, repo, p, p, dockerImage)
}

// entry is the descriptor of a record's image.
func entry(t *testing.T, found record.Found) ocispecs.Descriptor {
	t.Helper()
	r := found.Record
	p, err := platform.Parse(r.Platform)
	assert.NilError(t, err)
	return ocispecs.Descriptor{MediaType: r.MediaType, Digest: r.Digest, Size: r.Size, Platform: &p}
}

// index puts an index of images into a repository, and returns its record,
// which is of no platform.
func (f *fake) index(t *testing.T, name, mediaType string, images ...record.Found) record.Found {
	t.Helper()
	var entries []ocispecs.Descriptor
	for _, img := range images {
		entries = append(entries, entry(t, img))
	}
	return f.putIndex(t, name, mediaType, nil, entries...)
}

func (f *fake) putIndex(t *testing.T, name, mediaType string, annotations map[string]string, entries ...ocispecs.Descriptor) record.Found {
	t.Helper()
	i := ocispecs.Index{MediaType: mediaType, Manifests: entries, Annotations: annotations}
	i.SchemaVersion = 2
	// Indented, as no program of ours writes it.
	data, err := json.MarshalIndent(i, "", "   ")
	assert.NilError(t, err)
	return f.put(t, name, "", mediaType, data, nil)
}

// attest puts BuildKit's attestation of an image into a repository.
func (f *fake) attest(t *testing.T, name string, about digest.Digest) ocispecs.Descriptor {
	t.Helper()
	data := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[{"mediaType":"application/vnd.in-toto+json","digest":%q,"size":9}]}`,
		ocispecs.MediaTypeImageManifest, ocispecs.MediaTypeImageConfig, digest.FromString("{}"), digest.FromString(about.String()))
	r := f.put(t, name, "", ocispecs.MediaTypeImageManifest, data, []byte("{}")).Record
	return ocispecs.Descriptor{
		MediaType: r.MediaType, Digest: r.Digest, Size: r.Size, Platform: &ocispecs.Platform{OS: "unknown", Architecture: "unknown"},
		Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": about.String()},
	}
}

// tag names what a record is of.
func (f *fake) tag(ref string, found record.Found) {
	f.manifests[ref] = f.manifests[found.Record.Image+"@"+found.Record.Digest.String()]
}

func bare(found record.Found) record.Found {
	return record.Found{
		Path:   strings.TrimSuffix(found.Path, ".json") + ".digest",
		Record: record.Record{Digest: found.Record.Digest},
	}
}

func platforms(t *testing.T, s string) []ocispecs.Platform {
	t.Helper()
	list, err := platform.ParseList([]string{s})
	assert.NilError(t, err)
	return list
}
