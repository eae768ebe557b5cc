package merge_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/registry"
	"github.com/org/kaniko-multiarch/merge"
)

const goldenIndex = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` +
	`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%d,"platform":{"architecture":"amd64","os":"linux"}},` +
	`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%d,"annotations":{"com.example.mine":"yes","com.example.step":"<fast>"},"platform":{"architecture":"arm","os":"linux","variant":"v7"}},` +
	`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%d,"annotations":{"com.example.mine":"yes"},"platform":{"architecture":"arm64","os":"linux"}}` +
	`],"annotations":{"a.first":"1,2=3","org.opencontainers.image.title":"a & b"}}`

func TestRun_publishes(t *testing.T) {
	t.Parallel()
	f := newFake()
	arm64, amd64, arm := f.oci(t, "linux/arm64"), f.oci(t, "linux/amd64"), f.oci(t, "linux/arm/v7")
	arm.Record.Annotations = map[string]string{"com.example.step": "<fast>"}
	opts := merge.Options{
		Records:      []record.Found{arm64, arm, amd64},
		Destinations: []string{repo + ":1", repo + ":latest", repo + ":1"},
		Platforms:    platforms(t, "linux/arm/v7,linux/arm64/v8,linux/amd64"),
		Annotations: []string{
			"org.opencontainers.image.title=a & b", "index:a.first=1,2=3", "",
			"manifest-descriptor[linux/arm/v7],manifest-descriptor[arm64]:com.example.mine=yes",
		},
	}
	report, err := merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)

	want := fmt.Sprintf(goldenIndex, amd64.Record.Digest, amd64.Record.Size, arm.Record.Digest, arm.Record.Size, arm64.Record.Digest, arm64.Record.Size)
	assert.Equal(t, string(report.Index), want)
	d := digest.FromString(want)
	assert.Equal(t, report.Digest, d)
	assert.Equal(t, report.Image, repo+"@"+d.String())
	assert.DeepEqual(t, report.Tags, []string{repo + ":1", repo + ":latest"})
	assert.DeepEqual(t, report.Platforms, []string{"linux/amd64", "linux/arm/v7", "linux/arm64"})
	assert.Equal(t, report.Published, true)
	assert.Equal(t, report.Images[1], merge.Image{
		Platform: "linux/arm/v7", Digest: arm.Record.Digest, Size: arm.Record.Size, MediaType: ocispecs.MediaTypeImageManifest,
		Source: arm.Record.Digest, Record: "linux-arm-v7.json",
	})
	assert.DeepEqual(t, f.writes(), []string{"push " + repo + "@" + d.String(), "push " + repo + ":1", "push " + repo + ":latest"})
	assert.DeepEqual(t, f.tags(), map[string]digest.Digest{repo + ":1": d, repo + ":latest": d})

	// The order of records and annotations changes nothing.
	slices.Reverse(opts.Records)
	slices.Reverse(opts.Annotations)
	again, err := merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	assert.Equal(t, string(again.Index), want)

	data, err := json.Marshal(report)
	assert.NilError(t, err)
	assert.Check(t, !strings.Contains(string(data), "null"), "%s", data)
}

// In these cases f has the good images of two platforms, and change makes
// something wrong.
type testCase struct {
	change func(t *testing.T, f *fake, o *merge.Options)
	want   []string
}

func TestRun_refuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]testCase{
		"no_records": {func(_ *testing.T, _ *fake, o *merge.Options) { o.Records = nil; o.Platforms = nil }, []string{"no digest records"}},
		"missing_platform": {func(t *testing.T, _ *fake, o *merge.Options) { o.Platforms = platforms(t, "amd64,arm64,s390x") },
			[]string{"platform linux/s390x is missing"}},
		"unexpected_platform": {func(t *testing.T, _ *fake, o *merge.Options) { o.Platforms = platforms(t, "amd64") },
			[]string{"platform linux/arm64 of linux-arm64.json is not expected: --platform names linux/amd64"}},
		"duplicate_platform": {func(t *testing.T, f *fake, o *merge.Options) {
			twin := f.image(t, repo, "linux/arm64/v8", "linux/arm64", ocispecs.MediaTypeImageManifest)
			o.Records = append(o.Records, twin)
		}, []string{"platform linux/arm64 is there 2 times: linux-arm64.json, linux-arm64-v8.json"}},
		"duplicate_bare": {func(_ *testing.T, _ *fake, o *merge.Options) { o.Records = append(o.Records, bare(o.Records[0])) },
			[]string{"platform linux/amd64 is there 2 times: linux-amd64.json, linux-amd64.digest"}},
		"missing_for_bare_digests": {func(t *testing.T, _ *fake, o *merge.Options) { o.Records = []record.Found{bare(o.Records[0])} },
			[]string{"platform linux/arm64 is missing"}},
		"digest_not_in_registry": {func(_ *testing.T, _ *fake, o *merge.Options) { o.Records[1].Record.Digest = digest.FromString("gone") },
			[]string{"linux-arm64.json: " + digest.FromString("gone").String() + " is not in " + repo}},
		"size": {func(_ *testing.T, _ *fake, o *merge.Options) { o.Records[0].Record.Size = 7 }, []string{"linux-amd64.json: its size is 7"}},
		"media_type": {func(_ *testing.T, _ *fake, o *merge.Options) { o.Records[0].Record.MediaType = dockerImage },
			[]string{"linux-amd64.json: its media type is " + dockerImage}},
		"platform_of_config": {func(t *testing.T, f *fake, o *merge.Options) {
			o.Records[1] = f.image(t, repo, "linux/arm64", "linux/amd64", ocispecs.MediaTypeImageManifest)
		}, []string{"linux-arm64.json: it is the record of linux/arm64, but the image", "was built for linux/amd64"}},
		"variant_of_config": {func(t *testing.T, f *fake, o *merge.Options) {
			o.Records = append(o.Records, f.image(t, repo, "linux/arm/v6", "linux/arm/v7", ocispecs.MediaTypeImageManifest))
			o.Platforms = nil
		}, []string{"it is the record of linux/arm/v6, but", "was built for linux/arm/v7"}},
		"unknown_platform": {func(_ *testing.T, _ *fake, o *merge.Options) {
			o.Records[1].Record.Platform = "linux/amr64"
			o.Platforms = nil
		},
			[]string{`linux-arm64.json: platform "linux/amr64"`}},
		"other_key": {func(_ *testing.T, _ *fake, o *merge.Options) { o.Records[1].Record.Key = "web" },
			[]string{"more than one key: app-1f2e3d (linux-amd64.json), web (linux-arm64.json); choose one with --key"}},
		"no_record_of_key": {func(_ *testing.T, _ *fake, o *merge.Options) { o.Key = "web"; o.Platforms = nil }, []string{"no record of key web; those found are of app-1f2e3d"}},
		"other_image":      {func(_ *testing.T, _ *fake, o *merge.Options) { o.Records[1].Record.Image = "ghcr.io/acme/web" }, []string{"more than one image: ghcr.io/acme/app (linux-amd64.json), ghcr.io/acme/web"}},
		"other_target": {func(_ *testing.T, _ *fake, o *merge.Options) {
			o.Records[0].Record.Target = "a"
			o.Records[1].Record.Target = "b"
		}, []string{"more than one target: a"}},
		"other_revision": {func(_ *testing.T, _ *fake, o *merge.Options) { o.Records[1].Record.Revision = "def" }, []string{"more than one revision: abc (linux-amd64.json), def (linux-arm64.json)"}},
		"other_run":      {func(_ *testing.T, _ *fake, o *merge.Options) { o.Records[1].Record.Run = "76" }, []string{"more than one run: 77"}},
		"bad_image":      {func(_ *testing.T, _ *fake, o *merge.Options) { o.Records[1].Record.Image = "https://ghcr.io/x" }, []string{"linux-arm64.json: image reference"}},
		"some_unpushed": {func(_ *testing.T, _ *fake, o *merge.Options) { o.Records[1].Record.Pushed = false },
			[]string{"not pushed, unlike the others: linux-arm64.json"}},
		"unpushed_beside_bare": {func(_ *testing.T, _ *fake, o *merge.Options) {
			o.Records[0] = bare(o.Records[0])
			o.Records[1].Record.Pushed = false
		}, []string{"not pushed, unlike the others: linux-arm64.json"}},
		"unpushed_but_demanded": {func(_ *testing.T, _ *fake, o *merge.Options) {
			o.Records[0].Record.Pushed, o.Records[1].Record.Pushed = false, false
			o.ExplicitPush = true
		}, []string{"a push is demanded but no image was pushed: linux-amd64.json, linux-arm64.json"}},
		"index_as_child": {func(t *testing.T, f *fake, o *merge.Options) {
			o.Records[1] = f.put(t, repo, "linux/arm64", ocispecs.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[]}`), nil)
		}, []string{"has no image"}},
		"index_of_another_platform": {func(t *testing.T, f *fake, o *merge.Options) {
			o.Records[1] = f.index(t, repo, ocispecs.MediaTypeImageIndex, f.oci(t, "linux/arm64"), f.oci(t, "linux/s390x"))
			o.Records[1].Record.Platform = "linux/arm64"
			o.Platforms = nil
		}, []string{"it is the record of linux/arm64, but the index", "holds an image for linux/s390x"}},
		"no_records_but_others": {func(_ *testing.T, _ *fake, o *merge.Options) {
			o.Records[1].Record.Revision = "def"
			o.From = []string{repo + ":none"}
		}, []string{"more than one revision", "--from " + repo + ":none: it is not there"}},
		"manifest_annotation_of_docker": {func(t *testing.T, f *fake, o *merge.Options) {
			o.Records[0], o.Records[1] = f.docker(t, "linux/amd64"), f.docker(t, "linux/arm64")
			o.Annotations = []string{"manifest[linux/arm64]:a=b"}
		}, []string{"cannot hold annotations; use oci-mode=oci"}},
		"annotation_of_absent": {func(_ *testing.T, _ *fake, o *merge.Options) { o.Annotations = []string{"manifest[linux/s390x]:a=b"} },
			[]string{"meant for linux/s390x, which is not in the index"}},
		"manifest_of_another_kind": {func(t *testing.T, f *fake, o *merge.Options) {
			o.Records[1] = f.put(t, repo, "linux/arm64", "application/json", []byte(`{}`), nil)
		}, []string{"is no image but application/json"}},
		"artifact": {func(t *testing.T, f *fake, o *merge.Options) {
			o.Records[1] = f.put(t, repo, "linux/arm64", ocispecs.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json"}}`), nil)
		}, []string{"is no container image: its config is application/vnd.cncf.helm"}},
		"manifest_type_disagrees": {func(t *testing.T, f *fake, o *merge.Options) {
			o.Records[1] = f.put(t, repo, "linux/arm64", ocispecs.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"mediaType":"`+dockerImage+`"}`), nil)
		}, []string{"says that it is " + dockerImage}},
		"manifest_is_no_json": {func(t *testing.T, f *fake, o *merge.Options) {
			o.Records[1] = f.put(t, repo, "linux/arm64", ocispecs.MediaTypeImageManifest, []byte(`{`), nil)
		}, []string{"cannot be read"}},
		"config_blob_missing": {func(_ *testing.T, f *fake, _ *merge.Options) { f.blobs = nil }, []string{"linux-amd64.json: the config of", "linux-arm64.json: the config of"}},
		"config_blob_altered": {func(_ *testing.T, f *fake, _ *merge.Options) {
			for name, data := range f.blobs {
				f.blobs[name] = append(slices.Clone(data), ' ')
			}
		}, []string{"its content does not match"}},
		"config_without_platform": {func(t *testing.T, f *fake, o *merge.Options) {
			config := []byte(`{"architecture":"arm64"}`)
			o.Records[1] = f.put(t, repo, "linux/arm64", ocispecs.MediaTypeImageManifest, fmt.Appendf(nil,
				`{"schemaVersion":2,"config":{"mediaType":"%s","digest":"%s","size":%d}}`, ocispecs.MediaTypeImageConfig, digest.FromBytes(config), len(config)), config)
		}, []string{"does not name os and architecture"}},
		"config_digest_is_nonsense": {func(t *testing.T, f *fake, o *merge.Options) {
			o.Records[1] = f.put(t, repo, "linux/arm64", ocispecs.MediaTypeImageManifest, fmt.Appendf(nil,
				`{"schemaVersion":2,"config":{"mediaType":"%s","digest":"../x","size":1}}`, ocispecs.MediaTypeImageConfig), nil)
		}, []string{`digest "../x"`}},
		"registry_answers_with_another_manifest": {func(_ *testing.T, f *fake, o *merge.Options) {
			f.manifests[repo+"@"+o.Records[1].Record.Digest.String()] = f.manifests[repo+"@"+o.Records[0].Record.Digest.String()]
		}, []string{"linux-arm64.json: the registry answers with the content of"}},
		"oci_images_in_docker_mode": {func(_ *testing.T, _ *fake, o *merge.Options) { o.OCIMode = merge.ModeDocker },
			[]string{"linux-amd64.json:", "linux-arm64.json:", "cannot hold"}},
		"annotation_for_absent_platform": {func(_ *testing.T, _ *fake, o *merge.Options) {
			o.Annotations = []string{"manifest-descriptor[linux/s390x]:a=b"}
		}, []string{"an annotation is meant for linux/s390x, which is not in the index"}},
		"all_at_once": {func(t *testing.T, _ *fake, o *merge.Options) {
			o.Records[0].Record.Size = 1
			o.Records[1].Record.Revision = "def"
			o.Platforms = platforms(t, "amd64,s390x")
		}, []string{"4 problems", "its size is 1", "revision", "linux/s390x is missing", "linux/arm64 of linux-arm64.json is not expected"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			opts := merge.Options{
				Records:      []record.Found{f.oci(t, "linux/amd64"), f.oci(t, "linux/arm64")},
				Destinations: []string{repo + ":1"},
				Platforms:    platforms(t, "linux/amd64,linux/arm64"),
			}
			test.change(t, f, &opts)
			_, err := merge.Run(t.Context(), f, opts)
			verify, ok := errors.AsType[*merge.VerifyError](err)
			assert.Assert(t, ok, "%v", err)
			assert.Equal(t, verify.ExitCode(), 7)
			for _, want := range test.want {
				assert.Check(t, is.ErrorContains(err, want))
			}
			assert.Check(t, is.Len(f.writes(), 0))
		})
	}
}

func TestRun_usage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*merge.Options)
		want   string
	}{
		"no_destination":      {func(o *merge.Options) { o.Destinations = nil }, "no destination"},
		"bad_destination":     {func(o *merge.Options) { o.Destinations = []string{"a b"} }, `"a b"`},
		"digest_destination":  {func(o *merge.Options) { o.Destinations = []string{repo + "@" + digest.FromString("a").String()} }, "has a tag or nothing"},
		"mode":                {func(o *merge.Options) { o.OCIMode = "OCI" }, `oci-mode "OCI"`},
		"annotation_no_value": {func(o *merge.Options) { o.Annotations = []string{"title"} }, "KEY=VALUE"},
		"annotation_no_key":   {func(o *merge.Options) { o.Annotations = []string{"=x"} }, "key is empty"},
		"annotation_prefix_only": {func(o *merge.Options) { o.Annotations = []string{"index:=x"} },
			`annotation "index:=x"`},
		"attestations":           {func(o *merge.Options) { o.Attestations = "Keep" }, "use keep, drop or error"},
		"from":                   {func(o *merge.Options) { o.From = []string{"a b"} }, `"a b"`},
		"from_platform":          {func(o *merge.Options) { o.From = []string{"linux/amr64=app:1"} }, "PLATFORM=REF"},
		"append_without_tag":     {func(o *merge.Options) { o.Append = true; o.Destinations = []string{repo} }, "the tag to append to"},
		"immutable_pattern":      {func(o *merge.Options) { o.Immutable = []string{"!v[*"} }, "not a pattern"},
		"annotation_index_desc":  {func(o *merge.Options) { o.Annotations = []string{"index-descriptor:a=b"} }, "use index"},
		"annotation_no_place":    {func(o *merge.Options) { o.Annotations = []string{"indx:a=b"} }, `"indx" is no place`},
		"annotation_index_of":    {func(o *merge.Options) { o.Annotations = []string{"index[linux/arm64]:a=b"} }, "manifest-descriptor[linux/arm64]"},
		"annotation_platform":    {func(o *merge.Options) { o.Annotations = []string{"manifest-descriptor[linux/amr64]:a=b"} }, "amr64"},
		"annotation_no_platform": {func(o *merge.Options) { o.Annotations = []string{"manifest-descriptor[]:a=b"} }, `platform ""`},
		"annotation_twice":       {func(o *merge.Options) { o.Annotations = []string{"a=b", "index:a=c"} }, "a is given twice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			opts := merge.Options{Records: []record.Found{f.oci(t, "linux/amd64")}, Destinations: []string{repo + ":1"}}
			test.change(&opts)
			_, err := merge.Run(t.Context(), f, opts)
			wrong, ok := errors.AsType[*merge.UsageError](err)
			assert.Assert(t, ok, "%v", err)
			assert.Equal(t, wrong.ExitCode(), 2)
			assert.ErrorContains(t, err, test.want)
			assert.Check(t, is.Len(f.log, 0))
		})
	}
}

func TestRun_accepts_with_notice(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]testCase{
		"found_platforms_are_taken": {func(_ *testing.T, _ *fake, o *merge.Options) { o.Platforms = nil }, []string{"platforms found: linux/amd64,linux/arm64;"}},
		"empty_revision": {func(_ *testing.T, _ *fake, o *merge.Options) { o.Records[1].Record.Revision = "" },
			[]string{"without revision, taken to match abc: linux-arm64.json"}},
		"empty_run": {func(_ *testing.T, _ *fake, o *merge.Options) { o.Records[0].Record.Run = "" }, []string{"without run, taken to match 77: linux-amd64.json"}},
		"empty_key": {func(_ *testing.T, _ *fake, o *merge.Options) {
			o.Key = "app-1f2e3d"
			o.Records[0].Record.Key = ""
		}, []string{"without key, taken to match app-1f2e3d: linux-amd64.json"}},
		"same_image_spelled_twice": {func(t *testing.T, f *fake, o *merge.Options) {
			o.Records[0] = f.image(t, "docker.io/library/app", "linux/amd64", "linux/amd64", ocispecs.MediaTypeImageManifest)
			o.Records[1] = f.image(t, "docker.io/library/app", "linux/arm64", "linux/arm64", ocispecs.MediaTypeImageManifest)
			o.Records[1].Record.Image = "app"
			o.Destinations = []string{"app:1"}
		}, nil},
		"bare_digests": {func(_ *testing.T, _ *fake, o *merge.Options) {
			o.Key = "any"
			o.Records[0], o.Records[1] = bare(o.Records[0]), bare(o.Records[1])
		}, []string{"unchecked: linux-amd64.digest, linux-arm64.digest", "no record names key any"}},
		"other_keys_are_skipped": {func(t *testing.T, f *fake, o *merge.Options) {
			o.Key = "app-1f2e3d"
			other := f.oci(t, "linux/s390x")
			other.Record.Key = "web"
			o.Records = append(o.Records, other)
		}, []string{"skipped the records of other keys: web"}},
		"superseded": {func(_ *testing.T, _ *fake, o *merge.Options) {
			o.Records[0].Superseded = []string{"1/linux-amd64.json"}
		},
			[]string{"linux-amd64.json replaces the earlier 1/linux-amd64.json"}},
		"record_annotation_gives_way": {func(_ *testing.T, _ *fake, o *merge.Options) {
			o.Records[0].Record.Annotations = map[string]string{"a": "record", "b": "same"}
			o.Annotations = []string{"manifest-descriptor:a=user", "manifest-descriptor:b=same"}
		}, []string{"linux-amd64.json: annotation a=record of the record gives way to user"}},
		"record_in_memory": {func(_ *testing.T, _ *fake, o *merge.Options) {
			o.Records[0].Path, o.Records[0].Record.Run = "", ""
		}, []string{"without run, taken to match 77: the record of ghcr.io/acme/app linux/amd64"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			opts := merge.Options{
				Records:      []record.Found{f.oci(t, "linux/amd64"), f.oci(t, "linux/arm64")},
				Destinations: []string{repo + ":1"},
				Platforms:    platforms(t, "linux/amd64,linux/arm64"),
			}
			test.change(t, f, &opts)
			report, err := merge.Run(t.Context(), f, opts)
			assert.NilError(t, err)
			assert.Equal(t, report.Published, true)
			assert.DeepEqual(t, report.Platforms, []string{"linux/amd64", "linux/arm64"})
			notices := strings.Join(report.Notices, "\n")
			assert.Equal(t, len(report.Notices), len(test.want), notices)
			for _, want := range test.want {
				assert.Check(t, is.Contains(notices, want))
			}
			assert.Equal(t, f.tags()[report.Tags[0]], report.Digest)
		})
	}
}

func TestRun_dry_run_writes_nothing(t *testing.T) {
	t.Parallel()
	f := newFake()
	opts := merge.Options{
		Records:      []record.Found{f.oci(t, "linux/amd64"), f.docker(t, "linux/arm64")},
		Destinations: []string{repo + ":1", "quay.io/acme/app:1"},
		OCIMode:      merge.ModeOCI,
	}
	published, err := merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)

	f.log = nil
	f.fault = refuse("push", "copy")
	opts.DryRun = true
	report, err := merge.Run(t.Context(), f, opts)
	assert.NilError(t, err)
	assert.Equal(t, report.Published, false)
	assert.Equal(t, string(report.Index), string(published.Index))
	assert.Equal(t, report.Image, published.Image)
	assert.DeepEqual(t, report.Tags, published.Tags)
	assert.Check(t, is.Len(f.writes(), 0))
	assert.Check(t, is.Len(report.Warnings, 0))
}

func TestRun_unpushed_images_are_a_dry_run(t *testing.T) {
	t.Parallel()
	for name, ours := range map[string]bool{"ours": false, "asked_for": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			opts := merge.Options{
				Records:      []record.Found{f.oci(t, "linux/arm64"), f.oci(t, "linux/amd64")},
				Destinations: []string{repo + ":1"},
				Platforms:    platforms(t, "linux/amd64,linux/arm64"),
			}
			pushed, err := merge.Run(t.Context(), f, opts)
			assert.NilError(t, err)

			opts.DryRun = ours
			for i := range opts.Records {
				opts.Records[i].Record.Pushed = false
			}
			nothing := newFake()
			nothing.fault = refuse("manifest", "blob", "push", "copy")
			report, err := merge.Run(t.Context(), nothing, opts)
			assert.NilError(t, err)
			assert.Equal(t, report.Published, false)
			assert.Equal(t, report.Digest, pushed.Digest)
			assert.Assert(t, is.Len(report.Warnings, 1))
			assert.Check(t, is.Contains(report.Warnings[0], "no image was pushed"))
			assert.Check(t, is.Len(nothing.log, 0))

			opts.Platforms = platforms(t, "linux/amd64")
			_, err = merge.Run(t.Context(), nothing, opts)
			assert.ErrorContains(t, err, "not expected")
		})
	}
}

func TestRun_copies_from_where_it_was_pushed(t *testing.T) {
	t.Parallel()
	f := newFake()
	staging := "ghcr.io/acme/staging"
	amd64 := f.image(t, staging, "linux/amd64", "linux/amd64", ocispecs.MediaTypeImageManifest)
	arm64 := f.image(t, staging, "linux/arm64", "linux/arm64", ocispecs.MediaTypeImageManifest)
	report, err := merge.Run(t.Context(), f, merge.Options{
		Records:      []record.Found{amd64, arm64},
		Destinations: []string{repo + ":1", "quay.io/acme/app"},
	})
	assert.NilError(t, err)
	a, b, d := amd64.Record.Digest.String(), arm64.Record.Digest.String(), report.Digest.String()
	assert.DeepEqual(t, f.writes(), []string{
		"copy " + repo + "@" + a, "copy " + repo + "@" + b,
		"copy quay.io/acme/app@" + a, "copy quay.io/acme/app@" + b,
		"push " + repo + "@" + d, "push quay.io/acme/app@" + d,
		"push " + repo + ":1",
	})
	assert.DeepEqual(t, report.Tags, []string{repo + ":1"})
	assert.Equal(t, report.Images[0].CopiedFrom, staging)
}

func TestRun_untagged_destination_moves_no_tag(t *testing.T) {
	t.Parallel()
	f := newFake()
	report, err := merge.Run(t.Context(), f, merge.Options{Records: []record.Found{f.oci(t, "linux/amd64")}, Destinations: []string{repo}})
	assert.NilError(t, err)
	assert.Check(t, is.Len(f.tags(), 0))
	assert.Equal(t, report.Published, true)
	assert.DeepEqual(t, report.Tags, []string{})
	_, ok := f.manifests[report.Image]
	assert.Check(t, ok)
}

func refuse(ops ...string) func(string, registry.Ref) error {
	return func(op string, ref registry.Ref) error {
		if slices.Contains(ops, op) {
			return fmt.Errorf("%s %s: %w", op, ref, registry.ErrDenied)
		}
		return nil
	}
}
