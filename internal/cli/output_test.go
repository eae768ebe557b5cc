package cli

import (
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/build"
)

func TestOutput(t *testing.T) {
	t.Parallel()
	yes, no, epoch := true, false, int64(7)
	for _, tc := range []struct {
		name   string
		lines  []string
		pushed bool
		want   build.Options
	}{
		{"none", nil, false, build.Options{}},
		{"directory", []string{"out"}, false, build.Options{NoPush: true, Outputs: []build.Output{{Type: "local", Dest: "out"}}}},
		{"standard_output", []string{"-"}, false, build.Options{NoPush: true, Outputs: []build.Output{{Type: "tar", Dest: "-"}}}},
		{"default_of_archives", []string{"type=oci"}, false, build.Options{NoPush: true, Outputs: []build.Output{{Type: "oci", Dest: "-"}}}},
		{"split", []string{"type=local,dest=a,platform-split=true", "type=tar,dest=b,platform-split=false"}, false, build.Options{NoPush: true,
			Outputs: []build.Output{{Type: "local", Dest: "a", Split: &yes}, {Type: "tar", Dest: "b", Split: &no}}}},
		{"layout", []string{`type=oci,dest=d,tar=false,"name=a:1,b:2"`}, false, build.Options{NoPush: true,
			Outputs: []build.Output{{Type: "oci", Dest: "d", Directory: true, Names: []string{"a:1", "b:2"}}}}},
		{"engine", []string{"type=docker,name=a"}, false, build.Options{NoPush: true, Outputs: []build.Output{{Type: "docker", Names: []string{"a"}}}}},
		{"registry_pushes", []string{"type=registry,name=r/a:1,push-by-digest=true,name-canonical=true,oci-mediatypes=true"}, false,
			build.Options{Destinations: []string{"r/a:1"}, PushByDigest: true}},
		{"image_pushes", []string{"type=image,push=true,name=r/a:1", "out"}, false,
			build.Options{Destinations: []string{"r/a:1"}, Outputs: []build.Output{{Type: "local", Dest: "out"}}}},
		{"asked_to_push", []string{"out"}, true, build.Options{Outputs: []build.Output{{Type: "local", Dest: "out"}}}},
		{"image_options", []string{"type=oci,dest=f,compression=zstd,compression-level=9,force-compression=false,rewrite-timestamp=true,source-date-epoch=7," +
			"annotation.a.B=c=d,annotation[linux/arm64].x=1,annotation-index.k=v,annotation-manifest-descriptor[linux/amd64].z=2"}, false,
			build.Options{NoPush: true, Outputs: []build.Output{{Type: "oci", Dest: "f"}}, Compression: "zstd", CompressionLevel: 9, RewriteTimestamp: true, SourceDateEpoch: &epoch,
				Annotations: []string{"index:k=v", "manifest-descriptor[linux/amd64]:z=2", "manifest:a.B=c=d", "manifest[linux/arm64]:x=1"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var o build.Options
			assert.NilError(t, outputFlags{Output: tc.lines}.options(&o, tc.pushed))
			assert.Check(t, is.DeepEqual(o, tc.want))
		})
	}
}

func TestOutput_refuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, lines, want string }{
		{"unknown_type", "type=s3,bucket=b", "type=s3 is unknown"},
		{"no_type", "dest=x", "type is missing"},
		{"unknown_key", "type=oci,dest=x,speed=1", "speed is unknown for type=oci"},
		{"key_of_another_type", "type=local,dest=x,compression=zstd", "compression is unknown for type=local"},
		{"local_without_dest", "type=local", "dest is missing"},
		{"local_to_stdout", "type=local,dest=-", "use type=tar"},
		{"registry_with_dest", "type=registry,dest=x", "has a name"},
		{"image_without_push", "type=image,name=a", "keeps the image nowhere"},
		{"registry_push_false", "type=registry,push=false", "keeps the image nowhere"},
		{"oci_push", "type=oci,push=true", "second --output"},
		{"docker_directory", "type=docker,tar=false,dest=x", "only type=oci"},
		{"docker_media_types", "type=oci,oci-mediatypes=false", "images are OCI images"},
		{"force_compression", "type=registry,force-compression=true", "force-compression=true is not supported"},
		{"store", "type=registry,store=true", "store=true is not supported"},
		{"estargz", "type=oci,compression=estargz", "use gzip or zstd"},
		{"boolean", "type=oci,tar=maybe", "use true or false"},
		{"twice", "type=oci,dest=a,dest=b", "dest is given twice"},
		{"no_value", "type=oci,dest", "want KEY=VALUE"},
		{"two_on_stdout", "type=oci\ntype=tar", "standard output"},
		{"disagree", "type=oci,dest=a,compression=gzip\ntype=oci,dest=b,compression=zstd", "build twice"},
		{"insecure", "type=registry,registry.insecure=true", "--insecure-registry"},
		{"empty_annotation", "type=oci,annotation.=x", "unknown"},
		{"mode_delete", "type=local,dest=x,mode=delete", "mode=delete is not supported"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var o build.Options
			err := outputFlags{Output: []string{tc.lines}}.options(&o, false)
			assert.ErrorContains(t, err, tc.want)
			assert.Check(t, isUsage(err))
		})
	}
}
