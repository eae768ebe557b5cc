package annotation

import (
	"testing"

	"gotest.tools/v3/assert"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, line string
		want       []Annotation
	}{
		{"bare", "a=b", []Annotation{{Manifest, "", "a", "b"}}},
		{"value_with_equals_and_colon", "a=b=c:d", []Annotation{{Manifest, "", "a", "b=c:d"}}},
		{"empty_value", "a=", []Annotation{{Manifest, "", "a", ""}}},
		{"index", "index:a=b", []Annotation{{Index, "", "a", "b"}}},
		{"narrowed", "manifest-descriptor[linux/arm64/v8]:a=b", []Annotation{{ManifestDescriptor, "linux/arm64", "a", "b"}}},
		{"two_places", "index,manifest[linux/amd64]:a=b", []Annotation{{Index, "", "a", "b"}, {Manifest, "linux/amd64", "a", "b"}}},
		{"index_descriptor", "index-descriptor:a=b", []Annotation{{IndexDescriptor, "", "a", "b"}}},
		{"space_around", "  a=b\n", []Annotation{{Manifest, "", "a", "b"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := Parse(tc.line, Manifest)
			assert.NilError(t, err)
			assert.DeepEqual(t, got, tc.want)
		})
	}
}

func TestParse_refuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, line, want string }{
		{"no_value", "a", "KEY=VALUE"},
		{"no_key", "=b", "its key is empty"},
		{"place_without_key", "index:=b", "its key is empty"},
		{"unknown_place", "layer:a=b", `"layer" is no place`},
		{"index_of_a_platform", "index[linux/arm64]:a=b", "manifest-descriptor[linux/arm64]"},
		{"bad_platform", "manifest[x/y/z/w]:a=b", "x/y/z/w"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse(tc.line, Index)
			assert.ErrorContains(t, err, tc.want)
		})
	}
}
