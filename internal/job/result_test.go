package job

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/record"
)

func aRecord() *record.Record {
	return &record.Record{
		Schema: record.Schema, Key: "app-1f2e3d", Image: "registry.example.com/app", Target: "prod", Platform: "linux/arm/v7",
		Digest: digest.FromString("x"), Size: 7, MediaType: "application/vnd.oci.image.manifest.v1+json", Pushed: true,
		Revision: strings.Repeat("a", 40), Committed: time.Unix(1, 0).UTC(), Run: "1", Attempt: 2, Finished: time.Unix(2, 0).UTC(),
		Annotations: map[string]string{"a": "b"}, Emulated: true, Seconds: 1.5, Cache: record.Cache{Hits: 1, Misses: 2},
	}
}

func TestResult(t *testing.T) {
	t.Parallel()
	step := 42
	large := aRecord()
	large.Annotations["a"] = strings.Repeat("x", 4000)
	for _, tc := range []struct {
		name string
		in   Result
		// shortened is true where only the ends of the error are kept, bare where
		// the record has no annotations.
		shortened, bare bool
	}{
		{name: "built", in: Result{Record: aRecord(), LayersReused: 1, LayersBuilt: 2, ImageSize: 3}},
		{name: "failed", in: Result{ExitCode: 1, StepCode: &step, Error: "line 3: RUN false <&>"}},
		{name: "long_error", in: Result{ExitCode: 3, Error: "begin" + strings.Repeat("é", 4000) + "end"}, shortened: true},
		{name: "long_error_further", in: Result{ExitCode: 3, Error: "begin." + strings.Repeat("é", 4000) + ".end"}, shortened: true},
		{name: "binary_error", in: Result{ExitCode: 3, Error: "begin" + strings.Repeat("\x01\xff", 4000) + "end"}, shortened: true},
		{name: "long_error_with_record", in: Result{Record: aRecord(), ExitCode: 5, Error: "begin" + strings.Repeat("x", 9000) + "end"}, shortened: true},
		{name: "large_annotations", in: Result{Record: large}, bare: true},
		{name: "both", in: Result{Record: large, Error: "begin" + strings.Repeat("x", 9000) + "end"}, shortened: true, bare: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			data, err := tc.in.Encode()
			assert.NilError(t, err)
			assert.Check(t, len(data) <= MaxResult, "%d bytes", len(data))
			got, err := ParseResult(string(data))
			assert.NilError(t, err)
			want := tc.in
			want.Schema = resultSchema
			if tc.shortened {
				assert.Check(t, len(data) > MaxResult-200, "only %d bytes are used", len(data))
				assert.Check(t, strings.HasPrefix(got.Error, "begin") && strings.HasSuffix(got.Error, "end") && strings.Contains(got.Error, cut), got.Error)
				assert.Check(t, strings.Contains(tc.in.Error, "\xff") || !strings.ContainsRune(got.Error, utf8.RuneError), "a character is cut: %s", got.Error)
				want.Error = got.Error
			}
			if tc.bare {
				slim := *want.Record
				slim.Annotations = nil
				want.Record = &slim
			}
			assert.Check(t, is.DeepEqual(got, want))
		})
	}
}

func TestParseResult_refuses(t *testing.T) {
	t.Parallel()
	whole, err := Result{Record: aRecord()}.Encode()
	assert.NilError(t, err)
	bad := aRecord()
	bad.Digest = "sha256:x"
	invalid, err := Result{Record: bad}.Encode()
	assert.NilError(t, err)
	for _, tc := range []struct{ name, message, want string }{
		{"nothing", "  \n", "no result"},
		{"log", "fatal: something\n", `last words are "fatal: something`},
		{"cut", string(whole[:100]), "no result"},
		{"foreign", `{"a":1}`, "no result"},
		{"version", `{"schema":"kaniko-multiarch.job/v2"}`, "the same release"},
		{"record", string(invalid), "not a digest record"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseResult(tc.message)
			assert.ErrorContains(t, err, tc.want)
		})
	}
}
