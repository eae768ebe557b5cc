package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func parseExecutor(t *testing.T, args ...string) (*executorCommand, error) {
	t.Helper()
	c := &executorCommand{}
	k, err := kong.New(c, kong.Writers(&bytes.Buffer{}, &bytes.Buffer{}), kong.KindMapper(boolKind, strictBool{}))
	assert.NilError(t, err)
	args, c.ignored, err = withoutMeaningless(kanikoSpelling(args))
	assert.NilError(t, err)
	kctx, err := k.Parse(args)
	if err == nil {
		for _, p := range kctx.Path {
			if p.Flag != nil {
				c.given = append(c.given, p.Flag.Name)
			}
		}
	}
	return c, err
}

func TestExecutor_options(t *testing.T) {
	t.Parallel()
	c, err := parseExecutor(t, "--context=dir:///src", "-f", "Dockerfile.x", "-d", "r.test/a", "--destination=r.test/b:2",
		"--customPlatform=linux/arm64", "--build-arg", "A=1,2", "--label=l=1", "--snapshotMode=redo", "--cache=true", "--cache-repo=r.test/c",
		"--cache-ttl=6h", "--compression=zstd", "--compression-level=3", "--push-retry=3", "--push-retry-initial-delay=5", "--push-retry-max-delay=7",
		"--publish-index=true", "--index-annotations=x=y", "--context-sub-path=sub/dir", "--whitelist-var-run=false", "--use-new-run", "--reproducible",
		"--image-name-with-digest-file=n", "--digest-file=d", "--tarPath=t.tar", "--oci-layout-path=l", "--log-format=json", "--require-native-nodes=false")
	assert.NilError(t, err)
	assert.NilError(t, c.refuse())
	w := &World{LookupEnv: variables{"HOME": "/h"}.lookup}
	b, err := c.build(w)
	assert.NilError(t, err)
	o, err := b.options(w)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(o.Context, "dir:///src/sub/dir"))
	assert.Check(t, is.Equal(o.Dockerfile, "Dockerfile.x"))
	assert.Check(t, is.DeepEqual(o.Destinations, []string{"r.test/a:latest", "r.test/b:2"}))
	assert.Check(t, is.DeepEqual(o.Platforms, []string{"linux/arm64"}))
	assert.Check(t, is.DeepEqual(o.BuildArgs, map[string]string{"A": "1,2"}))
	assert.Check(t, is.Equal(o.CacheTTL.Hours(), 6.0))
	assert.Check(t, is.Equal(o.Compression, "zstd"))
	assert.Check(t, is.Equal(o.CompressionLevel, 3))
	assert.Check(t, is.Equal(o.Registries.Retry.Count, 3))
	assert.Check(t, is.Equal(o.Registries.Retry.MaxDelay.Milliseconds(), int64(7)))
	assert.Check(t, is.DeepEqual(o.Annotations, []string{"index:x=y"}))
	assert.Check(t, o.PublishIndex && o.Cache && o.Reproducible && !o.NoPush)
	assert.Check(t, is.Equal(o.Tar, "t.tar"))
	assert.Check(t, is.Equal(o.NameDigestFile, "n"))
	assert.Check(t, is.Equal(b.Progress, "json"))
}

func TestExecutor_defaults(t *testing.T) {
	t.Parallel()
	c, err := parseExecutor(t, "--no-push")
	assert.NilError(t, err)
	w := &World{LookupEnv: variables{"HOME": "/h"}.lookup}
	b, err := c.build(w)
	assert.NilError(t, err)
	o, err := b.options(w)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(o.Context, "/workspace/"))
	assert.Check(t, o.NoPush)
	assert.Check(t, is.Equal(o.CompressionLevel, 0), "kaniko's -1 is the default level")
	assert.Check(t, is.Equal(o.Registries.Retry.Count, 5), "kaniko does not retry by default: nobody wants that")
}

func TestExecutor_refuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, flag, want string
	}{
		{"single_snapshot", "--single-snapshot", "--single-snapshot"},
		{"ignore_path", "--ignore-path=/x", "/x"},
		{"docker_format", "--image-format=docker", "--image-format=docker"},
		{"bucket", "--bucket=b", "--bucket"},
		{"docker_mode", "--oci-mode=docker", "--oci-mode=docker"},
		{"sub_path", "--context-sub-path=../x", "--context-sub-path"},
		{"unknown", "--sing-images", "unknown flag"},
		{"two_platforms", "--platform=linux/arm64 --custom-platform=linux/amd64", "custom-platform"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var stderr bytes.Buffer
			w := World{Stdout: &stderr, Stderr: &stderr, LookupEnv: variables{"HOME": "/h"}.lookup}
			code := runExecutor(t.Context(), append([]string{"--no-push"}, strings.Fields(tc.flag)...), w)
			assert.Check(t, is.Equal(code, 2))
			assert.Check(t, is.Contains(stderr.String(), tc.want))
		})
	}
}
