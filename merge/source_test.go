package merge_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/registry"
	"github.com/org/kaniko-multiarch/merge"
)

const (
	ociIndex = ocispecs.MediaTypeImageIndex
	staging  = "quay.io/acme/staging"
)

func parsed(t *testing.T, report *merge.Report) ocispecs.Index {
	t.Helper()
	var index ocispecs.Index
	assert.NilError(t, json.Unmarshal(report.Index, &index))
	return index
}

func notices(report *merge.Report) string { return strings.Join(report.Notices, "\n") }

// An index that nothing is changed of is copied byte by byte: its signatures
// stay valid.
func TestRun_from_one_index(t *testing.T) {
	t.Parallel()
	f := newFake()
	amd64 := f.image(t, staging, "linux/amd64", "linux/amd64", ocispecs.MediaTypeImageManifest)
	arm64 := f.image(t, staging, "linux/arm64", "linux/arm64", ocispecs.MediaTypeImageManifest)
	// Not in our order, and with the variant that we would leave out.
	old := entry(t, arm64)
	old.Platform.Variant = "v8"
	attested := f.attest(t, staging, amd64.Record.Digest)
	source := f.putIndex(t, staging, ociIndex, map[string]string{"a": "b"}, old, attested, entry(t, amd64))
	f.tag(staging+":1", source)
	f.referrers = map[string]int{staging + "@" + source.Record.Digest.String(): 2}

	opts := merge.Options{
		From: []string{staging + ":1"}, Destinations: []string{repo + ":1"},
		Platforms: platforms(t, "linux/amd64,linux/arm64"), Standard: map[string]string{"org.opencontainers.image.revision": "ci"},
	}
	report, err := merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	assert.Equal(t, report.Digest, source.Record.Digest)
	assert.DeepEqual(t, report.Annotations, map[string]string{"a": "b"})
	assert.DeepEqual(t, report.Attached, []merge.Attached{{Digest: attested.Digest, MediaType: attested.MediaType, About: amd64.Record.Digest}})
	assert.Equal(t, report.Images[0].CopiedFrom, staging)
	assert.Equal(t, report.Images[0].Record, staging+":1")
	assert.Check(t, is.Contains(notices(report), "copied 2 referrers"))
	_, ok := f.manifests[repo+"@"+attested.Digest.String()]
	assert.Check(t, ok, "the attestation was not copied")

	opts.Annotations = []string{"a=c"}
	report, err = merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	assert.Check(t, report.Digest != source.Record.Digest)
	index := parsed(t, report)
	assert.DeepEqual(t, index.Annotations, map[string]string{"a": "c"})
	assert.DeepEqual(t, index.Manifests[2], attested)
	assert.Equal(t, index.Manifests[0].Platform.Architecture, "amd64")
}

func TestRun_from_migrates_a_docker_list(t *testing.T) {
	t.Parallel()
	f := newFake()
	source := f.index(t, repo, dockerList, f.docker(t, "linux/amd64"), f.docker(t, "linux/arm64"))
	f.tag(repo+":1", source)
	report, err := merge.Run(t.Context(), f, merge.Options{
		From: []string{repo + ":1"}, Destinations: []string{repo + ":1"}, OCIMode: merge.ModeOCI, Annotations: []string{"a=b"},
	})
	assert.NilError(t, err)
	index := parsed(t, report)
	assert.Equal(t, index.MediaType, ociIndex)
	for i, d := range index.Manifests {
		assert.Equal(t, d.MediaType, ocispecs.MediaTypeImageManifest)
		assert.Check(t, report.Images[i].Source != d.Digest)
		assert.Equal(t, f.manifests[repo+"@"+d.Digest.String()].mediaType, d.MediaType)
	}
	assert.Equal(t, f.tags()[repo+":1"], report.Digest)
}

func TestRun_from(t *testing.T) {
	t.Parallel()
	type setup struct {
		f    *fake
		opts *merge.Options
	}
	for name, test := range map[string]struct {
		change  func(t *testing.T, s setup)
		want    []string
		notices []string
		fails   string
	}{
		"several_images": {func(_ *testing.T, s setup) { s.opts.From = []string{staging + ":amd64", staging + ":arm64"} }, []string{"linux/amd64", "linux/arm64"}, nil, ""},
		"the_same_twice": {func(_ *testing.T, s setup) {
			s.opts.From = []string{staging + ":all", staging + ":amd64", staging + ":all"}
		}, []string{"linux/amd64", "linux/arm64", "linux/s390x"}, nil, ""},
		"one_of_an_index": {func(_ *testing.T, s setup) { s.opts.From = []string{"linux/s390x=" + staging + ":all"} }, []string{"linux/s390x"}, []string{"left out linux/amd64, linux/arm64"}, ""},
		"narrowed": {func(t *testing.T, s setup) {
			s.opts.From = []string{staging + ":all"}
			s.opts.Platforms = platforms(t, "arm64,amd64")
		}, []string{"linux/amd64", "linux/arm64"}, []string{"left out linux/s390x"}, ""},
		"removed": {func(t *testing.T, s setup) {
			s.opts.From = []string{staging + ":all"}
			s.opts.Remove = platforms(t, "arm64,s390x")
		}, []string{"linux/amd64"}, []string{"left out linux/arm64, linux/s390x"}, ""},
		"removed_in_vain": {func(t *testing.T, s setup) {
			s.opts.From = []string{staging + ":amd64"}
			s.opts.Remove = platforms(t, "arm64")
		}, []string{"linux/amd64"}, []string{"linux/arm64 is to be removed, but was not there"}, ""},
		"removed_and_given": {func(t *testing.T, s setup) {
			s.opts.From = []string{staging + ":amd64"}
			s.opts.Remove = platforms(t, "amd64")
		}, nil, nil, "linux/amd64 is to be removed, but"},
		"beside_records": {func(t *testing.T, s setup) {
			s.opts.Records = []record.Found{s.f.oci(t, "linux/riscv64")}
			s.opts.From = []string{staging + ":amd64"}
		}, []string{"linux/amd64", "linux/riscv64"}, nil, ""},
		"override": {func(_ *testing.T, s setup) {
			s.opts.From = []string{"linux/arm/v7=" + staging + ":amd64", staging + ":arm64"}
		}, []string{"linux/arm/v7", "linux/arm64"}, []string{"its config says linux/amd64, it is entered as linux/arm/v7"}, ""},
		"two_of_a_platform": {func(t *testing.T, s setup) {
			s.opts.Records = []record.Found{s.f.oci(t, "linux/amd64")}
			s.opts.From = []string{"linux/amd64=" + staging + ":arm64"}
		}, nil, nil, "platform linux/amd64 is there 2 times: "},
		"not_in_the_index": {func(_ *testing.T, s setup) { s.opts.From = []string{"linux/riscv64=" + staging + ":all"} }, nil, nil,
			"has no image that is wanted; it has linux/amd64, linux/arm64, linux/s390x"},
		"nested": {func(t *testing.T, s setup) {
			inner := s.f.manifests[staging+":all"]
			outer := s.f.putIndex(t, staging, ociIndex, nil, ocispecs.Descriptor{MediaType: ociIndex, Digest: digest.FromBytes(inner.data), Size: int64(len(inner.data))})
			s.f.tag(staging+":outer", outer)
			s.opts.From = []string{staging + ":outer"}
		}, []string{"linux/amd64", "linux/arm64", "linux/s390x"}, nil, ""},
		"entry_is_gone": {func(t *testing.T, s setup) {
			d := entry(t, s.f.oci(t, "linux/riscv64"))
			d.Digest = digest.FromString("gone")
			s.f.tag(staging+":1", s.f.putIndex(t, staging, ociIndex, nil, d))
			s.opts.From = []string{staging + ":1"}
		}, nil, nil, "its entry " + digest.FromString("gone").String()},
		"entry_lies_about_the_platform": {func(t *testing.T, s setup) {
			d := entry(t, s.f.image(t, staging, "linux/riscv64", "linux/amd64", ocispecs.MediaTypeImageManifest))
			s.f.tag(staging+":1", s.f.putIndex(t, staging, ociIndex, nil, d))
			s.opts.From = []string{staging + ":1"}
		}, nil, nil, "it is the entry of linux/riscv64, but"},
		"entry_lies_about_the_size": {func(t *testing.T, s setup) {
			d := entry(t, s.f.image(t, staging, "linux/riscv64", "linux/riscv64", ocispecs.MediaTypeImageManifest))
			d.Size++
			s.f.tag(staging+":1", s.f.putIndex(t, staging, ociIndex, nil, d))
			s.opts.From = []string{staging + ":1"}
		}, nil, nil, "its entry "},
		"entry_knows_the_variant": {func(t *testing.T, s setup) {
			config := []byte(`{"os":"linux","architecture":"arm"}`)
			data, err := json.Marshal(ocispecs.Manifest{MediaType: ocispecs.MediaTypeImageManifest, Config: ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}})
			assert.NilError(t, err)
			s.f.tag(staging+":1", s.f.index(t, staging, ociIndex, s.f.put(t, staging, "linux/arm/v5", ocispecs.MediaTypeImageManifest, data, config)))
			s.opts.From = []string{staging + ":1"}
		}, []string{"linux/arm/v5"}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			var all []record.Found
			for _, arch := range []string{"amd64", "arm64", "s390x"} {
				img := f.image(t, staging, "linux/"+arch, "linux/"+arch, ocispecs.MediaTypeImageManifest)
				f.tag(staging+":"+arch, img)
				all = append(all, img)
			}
			f.tag(staging+":all", f.index(t, staging, ociIndex, all...))
			opts := &merge.Options{Destinations: []string{repo + ":1"}}
			test.change(t, setup{f, opts})
			report, err := merge.Run(t.Context(), f, *opts)
			if test.fails != "" {
				assert.ErrorContains(t, err, test.fails)
				assert.Check(t, is.Len(f.writes(), 0))
				return
			}
			assert.NilError(t, err)
			assert.DeepEqual(t, report.Platforms, test.want)
			for _, n := range test.notices {
				assert.Check(t, is.Contains(notices(report), n))
			}
			for i, d := range parsed(t, report).Manifests {
				assert.Equal(t, d.Digest, report.Images[i].Digest)
				_, ok := f.manifests[repo+"@"+d.Digest.String()]
				assert.Check(t, ok, "%s was not copied", d.Digest)
			}
		})
	}
}

func TestRun_append(t *testing.T) {
	t.Parallel()
	f := newFake()
	amd64, arm64 := f.oci(t, "linux/amd64"), f.oci(t, "linux/arm64")
	opts := merge.Options{
		Records: []record.Found{amd64}, Append: true, Destinations: []string{repo + ":1", repo + ":2"}, Annotations: []string{"a=b"},
		Wait: []time.Duration{time.Hour}, // for images, not for an index that need not exist
	}
	report, err := merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	assert.Check(t, is.Contains(notices(report), "nothing to append to"))

	opts.Records, opts.Annotations = []record.Found{arm64}, nil
	report, err = merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	assert.DeepEqual(t, report.Platforms, []string{"linux/amd64", "linux/arm64"})
	assert.DeepEqual(t, report.Annotations, map[string]string{"a": "b"})
	both := report.Digest

	// Again: nothing moves.
	f.log = nil
	report, err = merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	assert.Equal(t, report.Digest, both)
	assert.DeepEqual(t, report.Unchanged, report.Tags)
	assert.Check(t, is.Len(f.writes(), 0))

	// A new image of a platform replaces the old one.
	config := []byte(`{"os":"linux","architecture":"arm64","new":true}`)
	data, err := json.Marshal(ocispecs.Manifest{MediaType: ocispecs.MediaTypeImageManifest, Config: ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}})
	assert.NilError(t, err)
	opts.Records = []record.Found{f.put(t, repo, "linux/arm64", ocispecs.MediaTypeImageManifest, data, config)}
	report, err = merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	assert.DeepEqual(t, report.Platforms, []string{"linux/amd64", "linux/arm64"})
	assert.Equal(t, report.Images[1].Digest, digest.FromBytes(data))
	assert.Check(t, is.Contains(notices(report), "gives way to"))

	// What is there and not expected is not dropped in silence.
	opts.Platforms = platforms(t, "arm64")
	_, err = merge.Run(t.Context(), f, opts)
	assert.ErrorContains(t, err, "linux/amd64 of the existing "+repo+":1 is not expected")
	assert.ErrorContains(t, err, "--remove it")
	opts.Remove = platforms(t, "amd64")
	report, err = merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	assert.DeepEqual(t, report.Platforms, []string{"linux/arm64"})
}

func TestRun_attestations(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		mode merge.Attestations
		// about says what the attestation is about.
		about  func(img digest.Digest) digest.Digest
		change func(*merge.Options)
		kept   int
		fails  string
	}{
		"kept":    {"", nil, nil, 1, ""},
		"dropped": {merge.DropAttestations, nil, nil, 0, ""},
		"refused": {merge.RefuseAttestations, nil, nil, 0, "which attestations=error refuses"},
		"about_nothing_there": {"", func(digest.Digest) digest.Digest { return digest.FromString("x") }, nil, 0,
			"which is not in the index; use attestations=drop"},
		"of_what_changes":         {"", nil, func(o *merge.Options) { o.Annotations = []string{"manifest:a=b"} }, 0, "whose digest changes here"},
		"dropped_of_what_changes": {merge.DropAttestations, nil, func(o *merge.Options) { o.Annotations = []string{"manifest:a=b"} }, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			img := f.oci(t, "linux/arm64")
			about := img.Record.Digest
			if test.about != nil {
				about = test.about(about)
			}
			attested := f.attest(t, repo, about)
			found := f.putIndex(t, repo, ociIndex, nil, entry(t, img), attested)
			found.Path, found.Record.Platform = "linux-arm64.json", "linux/arm64"
			opts := merge.Options{
				Records: []record.Found{f.oci(t, "linux/amd64"), found}, Destinations: []string{repo + ":1"},
				Platforms: platforms(t, "amd64,arm64"), Attestations: test.mode,
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
			index := parsed(t, report)
			assert.Assert(t, is.Len(index.Manifests, 2+test.kept))
			if test.kept > 0 {
				assert.DeepEqual(t, index.Manifests[2], attested)
			}
			assert.Equal(t, len(report.Attached), test.kept)
		})
	}
}

func TestRun_attestation_is_gone(t *testing.T) {
	t.Parallel()
	f := newFake()
	img := f.oci(t, "linux/amd64")
	attested := f.attest(t, repo, img.Record.Digest)
	f.tag(repo+":1", f.putIndex(t, repo, ociIndex, nil, entry(t, img), attested))
	delete(f.manifests, repo+"@"+attested.Digest.String())
	_, err := merge.Run(t.Context(), f, merge.Options{From: []string{repo + ":1"}, Destinations: []string{repo + ":2"}})
	assert.ErrorContains(t, err, "names "+attested.Digest.String()+", which is not there any more")
	assert.Check(t, is.Len(f.writes(), 0))
}

// An attestation goes with its image.
func TestRun_attestation_of_what_is_left_out(t *testing.T) {
	t.Parallel()
	f := newFake()
	amd64, arm64 := f.oci(t, "linux/amd64"), f.oci(t, "linux/arm64")
	f.tag(repo+":1", f.putIndex(t, repo, ociIndex, nil,
		entry(t, amd64), entry(t, arm64), f.attest(t, repo, arm64.Record.Digest), f.attest(t, repo, amd64.Record.Digest)))
	report, err := merge.Run(t.Context(), f, merge.Options{From: []string{repo + ":1"}, Destinations: []string{repo + ":2"}, Platforms: platforms(t, "amd64")})
	assert.NilError(t, err)
	assert.Equal(t, len(report.Attached), 1)
	assert.Equal(t, report.Attached[0].About, amd64.Record.Digest)
	assert.Check(t, is.Contains(notices(report), "left out the attestation"))
}

func TestRun_manifest_annotations(t *testing.T) {
	t.Parallel()
	f := newFake()
	opts := merge.Options{
		Records:      []record.Found{f.oci(t, "linux/amd64"), f.oci(t, "linux/arm64")},
		Destinations: []string{repo + ":1", staging + ":1"}, Annotations: []string{"manifest[linux/arm64]:a=b"},
	}
	report, err := merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	assert.Equal(t, report.Images[0].Digest, report.Images[0].Source)
	changed := report.Images[1]
	assert.Check(t, changed.Digest != changed.Source)
	for _, name := range []string{repo, staging} {
		var manifest ocispecs.Manifest
		assert.NilError(t, json.Unmarshal(f.manifests[name+"@"+changed.Digest.String()].data, &manifest))
		assert.DeepEqual(t, manifest.Annotations, map[string]string{"a": "b"})
	}

	// An image whose build had the annotation stays what it is.
	again := f.put(t, repo, "linux/arm64", ocispecs.MediaTypeImageManifest, f.manifests[repo+"@"+changed.Digest.String()].data, nil)
	opts.Records[1] = again
	report, err = merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	assert.Equal(t, report.Images[1].Source, again.Record.Digest)
	assert.Equal(t, report.Images[1].Digest, again.Record.Digest)
}

func TestRun_standard_annotations(t *testing.T) {
	t.Parallel()
	const prefix = "org.opencontainers.image."
	ci := map[string]string{prefix + "revision": "ci", prefix + "created": "2026-01-01T00:00:00Z", prefix + "version": "1", prefix + "source": "https://x"}
	for name, test := range map[string]struct {
		change func(t *testing.T, f *fake, o *merge.Options)
		want   map[string]string
	}{
		"of_the_run": {func(_ *testing.T, _ *fake, o *merge.Options) { o.Records[0].Record.Revision = "" }, ci},
		"the_records_know_better": {func(_ *testing.T, _ *fake, o *merge.Options) {
			o.Records[0].Record.Committed = time.Date(2025, 5, 6, 7, 8, 9, 0, time.FixedZone("x", 3600))
		}, map[string]string{prefix + "revision": "abc", prefix + "created": "2025-05-06T06:08:09Z", prefix + "source": "https://x"}},
		"same_revision": {func(_ *testing.T, _ *fake, o *merge.Options) { o.Records[0].Record.Revision = "ci" }, ci},
		"the_user_goes_first": {func(_ *testing.T, _ *fake, o *merge.Options) {
			o.Records[0].Record.Revision = "ci"
			o.Annotations = []string{prefix + "version=mine", prefix + "created="}
		}, map[string]string{prefix + "revision": "ci", prefix + "created": "", prefix + "version": "mine", prefix + "source": "https://x"}},
		"a_docker_list_has_none": {func(t *testing.T, f *fake, o *merge.Options) { o.Records[0] = f.docker(t, "linux/amd64") }, map[string]string{}},
		"turned_off":             {func(_ *testing.T, _ *fake, o *merge.Options) { o.Standard = nil; o.Records[0].Record.Revision = "" }, map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			opts := merge.Options{Records: []record.Found{f.oci(t, "linux/amd64")}, Destinations: []string{repo + ":1"}, Standard: ci}
			test.change(t, f, &opts)
			report, err := merge.Run(t.Context(), f, opts)
			assert.NilError(t, err)
			assert.DeepEqual(t, report.Annotations, test.want)
			assert.Equal(t, len(parsed(t, report).Annotations), len(test.want))
		})
	}
}

func TestRun_immutable_tags(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		patterns []string
		fails    bool
	}{
		"none":       {nil, false},
		"all":        {[]string{"*"}, true},
		"by_name":    {[]string{"v*"}, true},
		"not_latest": {[]string{"*", "!v1"}, false},
		"last_wins":  {[]string{"!v1", "*"}, true},
		"other":      {[]string{"*.*"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			f.tag(staging+":v1", f.image(t, staging, "linux/s390x", "linux/s390x", ocispecs.MediaTypeImageManifest))
			opts := merge.Options{Records: []record.Found{f.oci(t, "linux/amd64")}, Destinations: []string{repo + ":v1", staging + ":v1"}, Immutable: test.patterns}
			_, err := merge.Run(t.Context(), f, opts)
			if !test.fails {
				assert.NilError(t, err)
				_, err = merge.Run(t.Context(), f, opts)
				assert.NilError(t, err, "a tag that does not move")
				return
			}
			_, ok := errors.AsType[*merge.VerifyError](err)
			assert.Assert(t, ok, "%v", err)
			assert.ErrorContains(t, err, staging+":v1 names ")
			assert.Check(t, is.Len(f.writes(), 0), "half of it is published")
		})
	}
}

// Some registries take a moment to show what was pushed.
func TestRun_looks_again(t *testing.T) {
	t.Parallel()
	for _, tries := range []int{0, 2} {
		f := newFake()
		misses := 2
		f.fault = func(op string, _ registry.Ref) error {
			if op == "manifest" && misses > 0 {
				misses--
				return registry.ErrNotFound
			}
			return nil
		}
		_, err := merge.Run(t.Context(), f, merge.Options{
			Records: []record.Found{f.oci(t, "linux/amd64")}, Destinations: []string{repo + ":1"}, Wait: make([]time.Duration, tries),
		})
		assert.Equal(t, err == nil, tries == 2, "%v", err)
	}
}

func TestRun_subject_and_type(t *testing.T) {
	t.Parallel()
	f := newFake()
	img := f.oci(t, "linux/amd64")
	f.tag(repo+":old", img)
	opts := merge.Options{Records: []record.Found{img}, Destinations: []string{repo + ":1"}, Subject: "old", ArtifactType: "application/vnd.example"}
	report, err := merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	index := parsed(t, report)
	assert.Equal(t, index.ArtifactType, "application/vnd.example")
	assert.Equal(t, index.Subject.Digest, img.Record.Digest)
	assert.Equal(t, index.Subject.Size, img.Record.Size)

	opts.Subject = img.Record.Digest.String()
	again, err := merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	assert.Equal(t, again.Digest, report.Digest)
	opts.Subject = "none"
	_, err = merge.Run(t.Context(), f, opts)
	assert.ErrorContains(t, err, "the subject "+repo+":none is not there")
	opts.Subject = "a b"
	_, err = merge.Run(t.Context(), f, opts)
	_, ok := errors.AsType[*merge.UsageError](err)
	assert.Check(t, ok, "%v", err)
}

func TestRun_single_manifest(t *testing.T) {
	t.Parallel()
	f := newFake()
	img := f.oci(t, "linux/amd64")
	opts := merge.Options{Records: []record.Found{img}, Destinations: []string{repo + ":1"}, SingleManifest: true, Standard: map[string]string{"a": "b"}}
	report, err := merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	assert.Equal(t, f.tags()[repo+":1"], img.Record.Digest)
	assert.Equal(t, report.MediaType, ocispecs.MediaTypeImageManifest)

	opts.Annotations = []string{"a=b"}
	report, err = merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	assert.Equal(t, report.MediaType, ociIndex)
	assert.Check(t, is.Contains(strings.Join(report.Warnings, ""), "cannot hold"))
}

// Two versions of one image share repository and platforms: only the key tells
// them apart.
func TestRun_two_versions_of_one_image(t *testing.T) {
	t.Parallel()
	f := newFake()
	var found []record.Found
	for _, version := range []string{"3.11", "3.12"} {
		for _, p := range []string{"linux/amd64", "linux/arm64"} {
			img := f.oci(t, p)
			img.Path = version + "/" + img.Path
			img.Record.Key = "app-" + version
			found = append(found, img)
		}
	}
	opts := merge.Options{Records: found, Destinations: []string{repo + ":3.11"}, Platforms: platforms(t, "amd64,arm64")}
	_, err := merge.Run(t.Context(), f, opts)
	assert.ErrorContains(t, err, "more than one key: app-3.11 (")
	opts.Key = "app-3.11"
	report, err := merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	for _, img := range report.Images {
		assert.Check(t, strings.HasPrefix(img.Record, "3.11/"))
	}
}
