package local

import (
	"errors"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/annotation"
	"github.com/org/kaniko-multiarch/internal/build"
)

func isInput(err error) bool {
	_, ok := errors.AsType[*InputError](err)
	return ok
}

func TestParseTarget(t *testing.T) {
	t.Parallel()
	type want struct {
		repository   string
		tags, copies []string
		index        bool
	}
	for _, tc := range []struct {
		name      string
		o         build.Options
		platforms int
		want      want
	}{
		{"one_tag", build.Options{Destinations: []string{"r.io/a:1"}}, 1, want{repository: "r.io/a", tags: []string{"r.io/a:1"}}},
		{"names_are_normalised", build.Options{Destinations: []string{"Acme/App:V1"}}, 1, want{repository: "docker.io/acme/app", tags: []string{"docker.io/acme/app:V1"}}},
		{"docker_library", build.Options{Destinations: []string{"app:1"}}, 1, want{repository: "docker.io/library/app", tags: []string{"docker.io/library/app:1"}}},
		{"port", build.Options{Destinations: []string{"localhost:5000/a"}}, 1, want{repository: "localhost:5000/a"}},
		{"several_tags", build.Options{Destinations: []string{"r.io/a:1", "r.io/a:2"}}, 1, want{repository: "r.io/a", tags: []string{"r.io/a:1", "r.io/a:2"}}},
		{"repeated_tag", build.Options{Destinations: []string{"r.io/a:1", "R.io/a:1"}}, 1, want{repository: "r.io/a", tags: []string{"r.io/a:1"}}},
		{"no_tag_is_by_digest", build.Options{Destinations: []string{"r.io/a"}}, 1, want{repository: "r.io/a"}},
		{"push_by_digest", build.Options{Destinations: []string{"r.io/a:1", "r.io/b:1"}, PushByDigest: true}, 1, want{repository: "r.io/a", copies: []string{"r.io/b"}}},
		{"push_by_digest_of_several_platforms", build.Options{Destinations: []string{"r.io/a:1"}, PushByDigest: true}, 2, want{repository: "r.io/a", index: true}},
		{"image", build.Options{Image: "r.io/a"}, 1, want{repository: "r.io/a"}},
		{"image_moves_no_tag", build.Options{Image: "r.io/a", Destinations: []string{"r.io/a:1"}}, 1, want{repository: "r.io/a"}},
		{"image_is_first", build.Options{Image: "r.io/a", Destinations: []string{"r.io/b:1"}}, 1, want{repository: "r.io/a", copies: []string{"r.io/b"}}},
		{"records_of_one_platform_are_by_digest", build.Options{Destinations: []string{"r.io/a:1"}, DigestsTo: "d"}, 1, want{repository: "r.io/a"}},
		{"records_of_several_platforms_keep_the_tags", build.Options{Destinations: []string{"r.io/a:1"}, DigestsTo: "d"}, 2, want{repository: "r.io/a", tags: []string{"r.io/a:1"}, index: true}},
		{"several_repositories", build.Options{Destinations: []string{"r.io/a:1", "q.io/a:1", "r.io/a:2", "q.io/a:2"}}, 1, want{repository: "r.io/a", tags: []string{"r.io/a:1", "q.io/a:1", "r.io/a:2", "q.io/a:2"}, copies: []string{"q.io/a"}}},
		{"several_repositories_by_digest", build.Options{Destinations: []string{"r.io/a", "q.io/a"}}, 1, want{repository: "r.io/a", copies: []string{"q.io/a"}}},
		{"several_platforms", build.Options{Destinations: []string{"r.io/a:1"}}, 2, want{repository: "r.io/a", tags: []string{"r.io/a:1"}, index: true}},
		{"index_of_one", build.Options{Destinations: []string{"r.io/a:1"}, PublishIndex: true}, 1, want{repository: "r.io/a", tags: []string{"r.io/a:1"}, index: true}},
		{"nowhere_without_push", build.Options{NoPush: true}, 1, want{}},
		{"name_without_push", build.Options{NoPush: true, Destinations: []string{"r.io/a:1"}}, 1, want{repository: "r.io/a", tags: []string{"r.io/a:1"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseTarget(tc.o, tc.platforms)
			assert.NilError(t, err)
			assert.Check(t, is.Equal(got.none(), tc.want.repository == ""))
			if !got.none() {
				assert.Check(t, is.Equal(got.repository.String(), tc.want.repository))
			}
			var tags, copies []string
			for _, r := range got.tags {
				tags = append(tags, r.String())
			}
			for _, r := range got.copies {
				copies = append(copies, r.String())
			}
			assert.Check(t, is.DeepEqual(tags, tc.want.tags))
			assert.Check(t, is.DeepEqual(copies, tc.want.copies))
			assert.Check(t, is.Equal(got.index, tc.want.index))
		})
	}
}

func TestParseTarget_errors(t *testing.T) {
	t.Parallel()
	const sum = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, tc := range []struct {
		name string
		o    build.Options
		want []string
	}{
		{"nowhere", build.Options{}, []string{"nowhere to push to", "--destination", "--image", "--no-push"}},
		{"bad_name", build.Options{Destinations: []string{"r.io/a b"}}, []string{"--destination", "r.io/a b"}},
		{"scheme", build.Options{Destinations: []string{"https://r.io/a"}}, []string{"--destination", "r.io/a"}},
		{"digest", build.Options{Destinations: []string{"r.io/a" + sum}}, []string{"--destination", "cannot be pushed to"}},
		{"second_name", build.Options{Destinations: []string{"r.io/a:1", ":1"}}, []string{"--destination", ":1"}},
		{"image_with_tag", build.Options{Image: "r.io/a:1"}, []string{"--image r.io/a:1", "without tag", "--destination"}},
		{"annotation", build.Options{NoPush: true, Annotations: []string{"a"}}, []string{"KEY=VALUE"}},
		{"annotation_of_no_index", build.Options{NoPush: true, Annotations: []string{"index:a=1"}}, []string{"--publish-index", "manifest:"}},
		{"annotation_of_the_indexs_descriptor", build.Options{NoPush: true, PublishIndex: true, Annotations: []string{"index-descriptor:a=1"}}, []string{"use index:"}},
		{"annotation_platform", build.Options{NoPush: true, Annotations: []string{"manifest[linux/amd46]:a=1"}}, []string{"linux/amd46"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := parseTarget(tc.o, 1)
			assert.Assert(t, err != nil)
			assert.Check(t, isInput(err), "%T", err)
			for _, want := range tc.want {
				assert.Check(t, is.ErrorContains(err, want))
			}
		})
	}
}

func TestAnnotations(t *testing.T) {
	t.Parallel()
	target, err := parseTarget(build.Options{NoPush: true, Annotations: []string{
		"bare=1",
		"manifest[linux/arm64/v8]:arm=3",
		"manifest[linux/arm64]:all=4",
		"manifest:all=2",
		"index:top=5=6",
		"manifest-descriptor:entry=7",
		"manifest-descriptor[linux/amd64]:entry=8",
		"index,manifest-descriptor[linux/arm64]:both=9",
		"manifest:empty=",
	}}, 2)
	assert.NilError(t, err)
	arm, amd := ocispecs.Platform{OS: "linux", Architecture: "arm64"}, ocispecs.Platform{OS: "linux", Architecture: "amd64"}
	assert.Check(t, is.DeepEqual(target.manifestAnnotations(amd), map[string]string{"bare": "1", "all": "2", "empty": ""}))
	assert.Check(t, is.DeepEqual(target.manifestAnnotations(arm), map[string]string{"bare": "1", "all": "4", "arm": "3", "empty": ""}))
	assert.Check(t, is.DeepEqual(target.descriptorAnnotations("linux/amd64"), map[string]string{"entry": "8"}))
	assert.Check(t, is.DeepEqual(target.descriptorAnnotations("linux/arm64"), map[string]string{"entry": "7", "both": "9"}))
	assert.Check(t, is.DeepEqual(target.indexAnnotations(), []string{"index:top=5=6", "index:both=9"}))
	// What merge gets must mean the same there.
	for _, line := range target.indexAnnotations() {
		parsed, err := annotation.Parse(line, annotation.Manifest)
		assert.NilError(t, err)
		assert.Check(t, is.Equal(parsed[0].Place, annotation.Index))
	}

	none, err := parseTarget(build.Options{NoPush: true}, 1)
	assert.NilError(t, err)
	assert.Check(t, is.Nil(none.manifestAnnotations(amd)))
}

// An annotation that nothing would hold is an error, not dropped.
func TestTarget_check(t *testing.T) {
	t.Parallel()
	platforms := []ocispecs.Platform{{OS: "linux", Architecture: "amd64"}}
	for _, tc := range []struct {
		name string
		o    build.Options
		want string
	}{
		{"none", build.Options{}, ""},
		{"platform_that_is_built", build.Options{Annotations: []string{"manifest[linux/amd64]:a=1"}}, ""},
		{"platform_that_is_not_built", build.Options{Annotations: []string{"manifest[linux/arm64]:a=1"}}, "linux/arm64, which is not built: add it to --platform"},
		{"descriptor_without_index", build.Options{Annotations: []string{"manifest-descriptor:a=1"}}, "--publish-index"},
		{"descriptor_in_an_index", build.Options{PublishIndex: true, Annotations: []string{"manifest-descriptor:a=1"}}, ""},
		{"descriptor_for_merge", build.Options{DigestsTo: "d", Annotations: []string{"manifest-descriptor:a=1"}}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.o.NoPush = true
			target, err := parseTarget(tc.o, len(platforms))
			assert.NilError(t, err)
			err = target.check(platforms, tc.o)
			if tc.want == "" {
				assert.NilError(t, err)
				return
			}
			assert.Check(t, isInput(err), "%v", err)
			assert.Check(t, is.ErrorContains(err, tc.want))
		})
	}
}
