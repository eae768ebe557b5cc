package cli

import (
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/build"
)

func TestCacheFlags(t *testing.T) {
	t.Parallel()
	here, err := filepath.Abs("dir")
	assert.NilError(t, err)
	for name, tt := range map[string]struct {
		flags cacheFlags
		want  build.Options
		err   string
	}{
		"registry":        {flags: cacheFlags{CacheFrom: []string{"type=registry,ref=r/a:t"}}, want: build.Options{CacheFrom: []build.CacheLocation{{Ref: "r/a:t"}}}},
		"bare":            {flags: cacheFlags{CacheFrom: []string{"r/a:t\nr/b"}}, want: build.Options{CacheFrom: []build.CacheLocation{{Ref: "r/a:t"}, {Ref: "r/b"}}}},
		"to_registry":     {flags: cacheFlags{CacheTo: []string{"type=registry,ref=r/a,mode=max,oci-mediatypes=true,image-manifest=true,ignore-error=true"}}, want: build.Options{CacheTo: []build.CacheLocation{{Ref: "r/a"}}}},
		"local":           {flags: cacheFlags{CacheFrom: []string{"type=local,src=dir"}, CacheTo: []string{"type=local,dest=dir"}}, want: build.Options{CacheFrom: []build.CacheLocation{{Dir: here}}, CacheTo: []build.CacheLocation{{Dir: here}}}},
		"no_ref":          {flags: cacheFlags{CacheFrom: []string{"type=registry"}}, err: "ref=REPO is missing"},
		"no_src":          {flags: cacheFlags{CacheFrom: []string{"type=local,dest=dir"}}, err: "src=DIRECTORY is missing"},
		"no_dest":         {flags: cacheFlags{CacheTo: []string{"type=local,src=dir"}}, err: "dest=DIRECTORY is missing"},
		"github":          {flags: cacheFlags{CacheTo: []string{"type=gha,mode=max"}}, err: "type=gha is not supported: use type=registry,ref=REPOSITORY, or type=local"},
		"inline":          {flags: cacheFlags{CacheTo: []string{"type=inline"}}, err: "type=inline is not supported"},
		"no_type":         {flags: cacheFlags{CacheFrom: []string{"ref=r/a"}}, err: "type is missing"},
		"min":             {flags: cacheFlags{CacheTo: []string{"type=registry,ref=r/a,mode=min"}}, err: "use mode=max"},
		"docker_types":    {flags: cacheFlags{CacheTo: []string{"type=registry,ref=r/a,oci-mediatypes=false"}}, err: "oci-mediatypes=false is not supported"},
		"no_boolean":      {flags: cacheFlags{CacheTo: []string{"type=registry,ref=r/a,image-manifest=maybe"}}, err: "use true or false"},
		"own_compression": {flags: cacheFlags{CacheTo: []string{"type=registry,ref=r/a,compression=zstd"}}, err: "use --compression"},
		"mode_of_from":    {flags: cacheFlags{CacheFrom: []string{"type=registry,ref=r/a,mode=max"}}, err: "mode is unknown"},
		"unknown":         {flags: cacheFlags{CacheFrom: []string{"type=local,src=a,digest=x"}}, err: "digest is unknown for type=local"},
		"twice":           {flags: cacheFlags{CacheFrom: []string{"type=local,src=a,src=b"}}, err: "src is given twice"},
		"no_value":        {flags: cacheFlags{CacheFrom: []string{"type=local,src"}}, err: "want KEY=VALUE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var o build.Options
			err := tt.flags.options(&o)
			if tt.err != "" {
				assert.Check(t, is.ErrorContains(err, tt.err))
				return
			}
			assert.NilError(t, err)
			assert.Check(t, is.DeepEqual(o, tt.want))
		})
	}
}
