package local

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/progress"
	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// What was built elsewhere is published as if it had been built here.
func TestPublish(t *testing.T) {
	t.Parallel()
	_, repo := newFake(t, true)
	c := newClient(t)
	image, _ := pushImage(t, c, repo, "a layer")
	good := record.Record{Image: repo.Name(), Platform: "linux/amd64", Digest: image.Digest, Size: image.Size, MediaType: image.MediaType, Pushed: true, Schema: record.Schema}
	bad := func(change func(*record.Record)) record.Record {
		r := good
		change(&r)
		return r
	}
	for _, tc := range []struct {
		name   string
		set    func(*build.Options)
		record record.Record
		// tags move, of the image or of an index.
		tags  []string
		index bool
		want  string
	}{
		{name: "tag", record: good, tags: []string{":tag"}},
		{name: "by_digest", set: func(o *build.Options) { o.PushByDigest = true }, record: good},
		{name: "index", set: func(o *build.Options) { o.PublishIndex = true }, record: good, tags: []string{":index"}, index: true},
		{name: "no_push", set: func(o *build.Options) { o.NoPush = true }, record: bad(func(r *record.Record) { r.Pushed = false })},
		{name: "other_platform", record: bad(func(r *record.Record) { r.Platform = "linux/arm64" }), want: "linux/amd64: the build has left no record"},
		{name: "elsewhere", record: bad(func(r *record.Record) { r.Image = "example.com/x" }), want: `in "example.com/x"`},
		{name: "not_pushed", record: bad(func(r *record.Record) { r.Pushed = false }), want: "has left its image"},
		{name: "absent", record: bad(func(r *record.Record) { r.Digest = "sha256:" + image.Digest[8:] + "0" }), want: "nothing removes images"},
		{name: "size", record: bad(func(r *record.Record) { r.Size++ }), want: "another image"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			o := build.Options{
				Platforms: []string{"linux/amd64"}, Destinations: []string{repo.Name() + ":" + tc.name}, Annotations: []string{"manifest-descriptor:a=b"},
				DigestFile: filepath.Join(dir, "new", "digest"), OCIMode: "auto",
			}
			if !tc.index {
				o.Annotations = nil
			}
			if tc.set != nil {
				tc.set(&o)
			}
			display, err := progress.New(progress.Options{Out: io.Discard, Mode: progress.Plain})
			assert.NilError(t, err)
			d := &Driver{Registry: c, Progress: display}
			assert.NilError(t, d.Ready(t.Context(), o))
			r, err := d.Publish(t.Context(), o, []record.Record{tc.record}, []progress.ImageRow{{Platform: "linux/amd64"}})
			if tc.want != "" {
				assert.ErrorContains(t, err, tc.want)
				return
			}
			assert.NilError(t, err)
			var tags []string
			for _, tag := range tc.tags {
				tags = append(tags, repo.Name()+tag)
			}
			assert.Check(t, is.DeepEqual(r.Tags, tags))
			digest, err := os.ReadFile(o.DigestFile)
			assert.NilError(t, err)
			assert.Check(t, is.Equal(string(digest), r.Descriptor.Digest.String()))
			for _, tag := range tags {
				ref, err := registry.ParseRef(tag)
				assert.NilError(t, err)
				desc, data, err := c.Manifest(t.Context(), ref)
				assert.NilError(t, err)
				assert.Check(t, is.Equal(desc.Digest, r.Descriptor.Digest))
				assert.Check(t, is.Equal(registry.IsIndex(desc.MediaType), tc.index))
				if !tc.index {
					assert.Check(t, is.Equal(desc.Digest, image.Digest))
					continue
				}
				var index ocispecs.Index
				assert.NilError(t, json.Unmarshal(data, &index))
				assert.Check(t, is.Equal(index.Manifests[0].Digest, image.Digest))
				assert.Check(t, is.Equal(index.Manifests[0].Annotations["a"], "b"))
			}
		})
	}
}
