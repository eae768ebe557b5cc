package merge_test

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/registry"
	"github.com/org/kaniko-multiarch/merge"
)

func TestRun_second_tag_fails(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.fault = func(op string, ref registry.Ref) error {
		if op == "push" && ref.Tag == "2" {
			return registry.ErrDenied
		}
		return nil
	}
	_, err := merge.Run(t.Context(), f, merge.Options{
		Records:      []record.Found{f.oci(t, "linux/amd64")},
		Destinations: []string{repo + ":1", repo + ":2", repo + ":3", "quay.io/acme/app:4"},
	})
	assert.ErrorIs(t, err, registry.ErrDenied)
	failed, ok := errors.AsType[*merge.TagError](err)
	assert.Assert(t, ok)
	assert.DeepEqual(t, failed.Moved, []string{repo + ":1"})
	assert.Equal(t, failed.Tag, repo+":2")
	assert.DeepEqual(t, failed.NotMoved, []string{repo + ":3", "quay.io/acme/app:4"})
	assert.ErrorContains(t, err, "moved: "+repo+":1; not moved: "+repo+":2, "+repo+":3, quay.io/acme/app:4")
	assert.DeepEqual(t, f.tags(), map[string]digest.Digest{repo + ":1": failed.Digest})
}

// A tag that the registry does not let move is no failure to whoever says so.
func TestRun_immutable_tag(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.fault = func(op string, ref registry.Ref) error {
		if op == "push" && ref.Tag == "1" {
			return registry.ErrImmutable
		}
		return nil
	}
	opts := merge.Options{Records: []record.Found{f.oci(t, "linux/amd64")}, Destinations: []string{repo + ":1", repo + ":2"}}
	_, err := merge.Run(t.Context(), f, opts)
	assert.ErrorIs(t, err, registry.ErrImmutable)
	opts.IgnoreImmutableTags = true
	report, err := merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	assert.DeepEqual(t, report.Tags, []string{repo + ":2"})
	assert.Assert(t, is.Len(report.Warnings, 1))
	assert.Assert(t, is.Contains(report.Warnings[0], repo+":1"))
	assert.DeepEqual(t, f.tags(), map[string]digest.Digest{repo + ":2": report.Digest})
}

func TestRun_first_tag_fails(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.fault = func(op string, ref registry.Ref) error {
		if op == "push" && ref.Tag != "" {
			return registry.ErrUnavailable
		}
		return nil
	}
	_, err := merge.Run(t.Context(), f, merge.Options{Records: []record.Found{f.oci(t, "linux/amd64")}, Destinations: []string{repo + ":1"}})
	assert.ErrorIs(t, err, registry.ErrUnavailable)
	assert.ErrorContains(t, err, "moved: none; not moved: "+repo+":1")
}

func TestRun_read_back(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		readBack func(content) content
		fault    error
		want     string
	}{
		"other_bytes":      {func(c content) content { return content{c.mediaType, append(slices.Clone(c.data), '\n')} }, nil, "other content"},
		"other_media_type": {func(c content) content { return content{"application/json", c.data} }, nil, "serves the index"},
		"not_there":        {nil, registry.ErrNotFound, "does not have it"},
		"corrupt":          {nil, registry.ErrCorrupt, "reading the index back"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			f.readBack = test.readBack
			pushed := false
			f.fault = func(op string, _ registry.Ref) error {
				pushed = pushed || op == "push"
				if pushed && op == "manifest" {
					return test.fault
				}
				return nil
			}
			_, err := merge.Run(t.Context(), f, merge.Options{Records: []record.Found{f.oci(t, "linux/amd64")}, Destinations: []string{repo + ":1"}})
			_, ok := errors.AsType[*merge.VerifyError](err)
			assert.Assert(t, ok, "%v", err)
			assert.ErrorContains(t, err, test.want)
			assert.Check(t, is.Len(f.tags(), 0))
		})
	}
}

// A registry that does not answer is not a verification that failed.
func TestRun_registry_faults(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"manifest", "blob", "copy", "push"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			f.fault = refuse(op)
			image := f.oci(t, "linux/amd64")
			_, err := merge.Run(t.Context(), f, merge.Options{Records: []record.Found{image}, Destinations: []string{repo + ":1", "quay.io/acme/app:1"}})
			assert.ErrorIs(t, err, registry.ErrDenied)
			assert.ErrorContains(t, err, "@sha256:")
			_, ok := errors.AsType[*merge.VerifyError](err)
			assert.Check(t, !ok)
			assert.Check(t, is.Len(f.tags(), 0))
		})
	}
}

// Registries such as Docker Hub deny reading what does not exist yet.
func TestRun_destination_not_made_yet(t *testing.T) {
	t.Parallel()
	f := newFake()
	deny := refuse("manifest")
	f.fault = func(op string, ref registry.Ref) error {
		if _, ok := f.manifests[ref.String()]; !ok && ref.Name() == repo {
			return deny(op, ref)
		}
		return nil
	}
	opts := merge.Options{
		Records:      []record.Found{f.image(t, "ghcr.io/acme/staging", "linux/amd64", "linux/amd64", ocispecs.MediaTypeImageManifest)},
		Destinations: []string{repo + ":1"},
	}
	report, err := merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	assert.Equal(t, f.tags()[repo+":1"], report.Digest)

	clear(f.manifests)
	_, err = merge.Run(t.Context(), f, opts)
	assert.ErrorIs(t, err, registry.ErrDenied)
}

func TestRun_oci_mode(t *testing.T) {
	t.Parallel()
	annotated := func(o *merge.Options) { o.Annotations = []string{"index:a=b"} }
	onRecord := func(o *merge.Options) { o.Records[0].Record.Annotations = map[string]string{"a": "b"} }
	const (
		oci   = ocispecs.MediaTypeImageManifest
		index = ocispecs.MediaTypeImageIndex
	)
	for name, test := range map[string]struct {
		mode     merge.Mode
		types    [2]string
		change   func(*merge.Options)
		want     string
		children [2]string
		fails    string
	}{
		"empty_is_auto":           {"", [2]string{oci, oci}, nil, index, [2]string{oci, oci}, ""},
		"auto_follows_docker":     {merge.ModeAuto, [2]string{dockerImage, dockerImage}, nil, dockerList, [2]string{dockerImage, dockerImage}, ""},
		"auto_mixed":              {merge.ModeAuto, [2]string{oci, dockerImage}, annotated, index, [2]string{oci, dockerImage}, ""},
		"auto_keeps_annotations":  {merge.ModeAuto, [2]string{dockerImage, dockerImage}, annotated, "", [2]string{}, "would be lost: a; use oci-mode=oci"},
		"auto_keeps_those_of_rec": {merge.ModeAuto, [2]string{dockerImage, dockerImage}, onRecord, "", [2]string{}, "would be lost: a; use oci-mode=oci"},
		"docker":                  {merge.ModeDocker, [2]string{dockerImage, dockerImage}, nil, dockerList, [2]string{dockerImage, dockerImage}, ""},
		"docker_annotations":      {merge.ModeDocker, [2]string{dockerImage, dockerImage}, annotated, "", [2]string{}, "cannot hold annotations"},
		"docker_of_oci":           {merge.ModeDocker, [2]string{dockerImage, oci}, nil, "", [2]string{}, "linux-arm64.json"},
		"oci_converts":            {merge.ModeOCI, [2]string{dockerImage, dockerImage}, annotated, index, [2]string{oci, oci}, ""},
		"oci_converts_some":       {merge.ModeOCI, [2]string{oci, dockerImage}, onRecord, index, [2]string{oci, oci}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			opts := merge.Options{
				Records: []record.Found{
					f.image(t, repo, "linux/amd64", "linux/amd64", test.types[0]),
					f.image(t, repo, "linux/arm64", "linux/arm64", test.types[1]),
				},
				Destinations: []string{repo + ":1", "quay.io/acme/app:1"},
				OCIMode:      test.mode,
			}
			if test.change != nil {
				test.change(&opts)
			}
			report, err := merge.Run(t.Context(), f, opts)
			if test.fails != "" {
				assert.ErrorContains(t, err, test.fails)
				assert.Check(t, is.Len(f.writes(), 0))
				return
			}
			assert.NilError(t, err)
			assert.Equal(t, report.MediaType, test.want)
			var parsed ocispecs.Index
			assert.NilError(t, json.Unmarshal(report.Index, &parsed))
			assert.Equal(t, parsed.MediaType, test.want)
			for i, desc := range parsed.Manifests {
				assert.Equal(t, desc.MediaType, test.children[i])
				assert.Equal(t, report.Images[i].Source, opts.Records[i].Record.Digest)
				assert.Equal(t, report.Images[i].Digest == report.Images[i].Source, test.types[i] == test.children[i])
				for _, name := range []string{repo, "quay.io/acme/app"} {
					c, ok := f.manifests[name+"@"+desc.Digest.String()]
					assert.Assert(t, ok)
					assert.Equal(t, c.mediaType, desc.MediaType)
					assert.Equal(t, int64(len(c.data)), desc.Size)
				}
			}
		})
	}
}

func TestRun_converted_manifest(t *testing.T) {
	t.Parallel()
	f := newFake()
	config := []byte(`{"os":"linux","architecture":"amd64"}`)
	layer := func(kind, name string) string {
		return `{"mediaType":"` + kind + `","digest":"` + digest.FromString(name).String() + `","size":5}`
	}
	manifest := func(mediaType, configType string, kinds [4]string) string {
		return `{"schemaVersion":2,"mediaType":"` + mediaType + `","config":{"mediaType":"` + configType + `","digest":"` +
			digest.FromBytes(config).String() + `","size":37},"layers":[` + layer(kinds[0], "0") + `,` + layer(kinds[1], "1") + `,` + layer(kinds[2], "2") + `,` + layer(kinds[3], "3") + `]}`
	}
	const docker, oci = "application/vnd.docker.image.rootfs.", "application/vnd.oci.image.layer."
	before := manifest(dockerImage, "application/vnd.docker.container.image.v1+json",
		[4]string{docker + "diff.tar", docker + "diff.tar.gzip", docker + "diff.tar.zstd", docker + "foreign.diff.tar.gzip"})
	after := manifest(ocispecs.MediaTypeImageManifest, ocispecs.MediaTypeImageConfig,
		[4]string{oci + "v1.tar", oci + "v1.tar+gzip", oci + "v1.tar+zstd", oci + "nondistributable.v1.tar+gzip"})
	found := f.put(t, repo, "linux/amd64", dockerImage, []byte(before), config)
	opts := merge.Options{Records: []record.Found{found}, Destinations: []string{repo + ":1"}, OCIMode: merge.ModeOCI}
	report, err := merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	assert.Equal(t, string(f.manifests[repo+"@"+report.Images[0].Digest.String()].data), after)

	strange := manifest(dockerImage, "application/vnd.docker.container.image.v1+json",
		[4]string{docker + "diff.tar.xz", docker + "diff.tar", docker + "diff.tar", docker + "diff.tar"})
	opts.Records[0] = f.put(t, repo, "linux/amd64", dockerImage, []byte(strange), config)
	_, err = merge.Run(t.Context(), f, opts)
	assert.ErrorContains(t, err, "diff.tar.xz")

	opts.Records[0].Record.Pushed = false
	_, err = merge.Run(t.Context(), f, opts)
	assert.ErrorContains(t, err, "was not pushed")
}

// The index says more than the record where the config does.
func TestRun_keeps_the_os_version(t *testing.T) {
	t.Parallel()
	f := newFake()
	found := f.image(t, repo, "windows/amd64", "windows(10.0.17763.1)/amd64", ocispecs.MediaTypeImageManifest)
	report, err := merge.Run(t.Context(), f, merge.Options{
		Records: []record.Found{found}, Destinations: []string{repo + ":1"}, Platforms: platforms(t, "windows/amd64"),
	})
	assert.NilError(t, err)
	var parsed ocispecs.Index
	assert.NilError(t, json.Unmarshal(report.Index, &parsed))
	assert.Equal(t, parsed.Manifests[0].Platform.OSVersion, "10.0.17763.1")
}
