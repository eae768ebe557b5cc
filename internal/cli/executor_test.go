package cli

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

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
	assert.Check(t, is.Equal(o.Context+" "+o.ContextSubPath, "dir:///src sub/dir"))
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

// What becomes of every flag of kaniko 1.24, its living forks and the guide:
// works with this value changes what is built or how, ignored changes nothing,
// refused ends with exit code 2 and what to do instead.
func TestExecutor_every_flag(t *testing.T) {
	t.Parallel()
	works := map[string]string{
		"annotation": "a=1", "build-arg": "A=1", "cache": "true", "cache-repo": "r/c", "cache-ttl": "6h", "compression": "zstd",
		"compression-level": "3", "context": "dir://x", "context-sub-path": "sub", "credential-helpers": "", "custom-platform": "linux/arm64",
		"customPlatform": "linux/arm64", "destination": "r/b:1", "digest-file": "f", "disable-compression": "true", "dockerfile": "D", "force": "true",
		"git": "branch=b", "image-download-retry": "9", "image-name-tag-with-digest-file": "f", "image-name-with-digest-file": "f",
		"index-annotations": "a=1", "insecure": "true", "insecure-pull": "true", "insecure-registry": "h", "label": "l=1", "log-format": "json",
		"multi-platform": "linux/arm64", "no-push": "true", "no-push-cache": "true", "oci-layout-path": "d", "oci-mode": "oci",
		"platform": "linux/arm64,linux/amd64", "publish-index": "true", "push-ignore-immutable-tag-errors": "true", "push-retry": "3",
		"push-retry-initial-delay": "7", "push-retry-max-delay": "7", "registry-certificate": "r=f", "registry-client-cert": "r=c,k",
		"registry-map": "a=b", "registry-mirror": "m", "reproducible": "true", "require-native-nodes": "true", "secret": "id=a,src=f",
		"skip-default-registry-fallback": "true", "skip-tls-verify": "true", "skip-push-permission-check": "true", "skip-tls-verify-pull": "true", "skip-tls-verify-registry": "h",
		"tar-path": "f", "tarPath": "f", "target": "t", "verbosity": "warn",
	}
	// These choose what is run, or how it is shown.
	elsewhere := map[string]string{"driver": "ci", "dryrun": "true", "digests-from": "d", "log-timestamp": "true"}
	same := map[string]string{"cache-run-layers": "true", "image-format": "oci", "single-snapshot": "false"}
	ignored := map[string]string{
		"cache-copy-layers": "true", "cache-dir": "/c", "cleanup": "true", "compressed-caching": "false", "force-build-metadata": "true",
		"ignore-var-run": "false", "whitelist-var-run": "false", "image-fs-extract-retry": "3", "kaniko-dir": "/k", "materialize": "true",
		"pre-cleanup": "true", "preserve-context": "true", "skip-unused-stages": "true",
		"snapshot-mode": "redo", "snapshotMode": "redo", "use-new-run": "true", "arch-cache-repo-suffix": "-x", "push-retry-backoff-multiplier": "1.5",
		"max-file-size": "1GB", "debug-full": "true",
	}
	refused := map[string]string{
		"allowed-registries": "a", "allowed-repos": "a", "bucket": "b", "default-user": "u", "denied-registries": "a", "denied-repos": "a",
		"generate-provenance": "true", "ignore-path": "/x", "image-format": "docker", "legacy-manifest-list": "true",
		"oci-mode": "docker", "require-signature": "true", "sign-images": "true", "single-snapshot": "true", "k8s-image": "x",
		"digest-file": "https://h/d", "target": "a --target=b", "cache-run-layers": "false --cache", "sing-images": "true",
		"context-sub-path": "../x", "platform": "linux/arm64 --custom-platform=linux/amd64",
	}
	w := &World{LookupEnv: variables{"HOME": "/h"}.lookup}
	outcome := func(args ...string) (any, error) {
		c, err := parseExecutor(t, append([]string{"--destination=r/a:1"}, args...)...)
		if err == nil {
			err = c.refuse()
		}
		if err != nil {
			return nil, err
		}
		b, err := c.build(w)
		if err != nil {
			return nil, err
		}
		o, err := b.options(w)
		return []any{o, b.Progress, b.Force}, err
	}
	base, err := outcome()
	assert.NilError(t, err)
	for _, flags := range []map[string]string{works, same, ignored} {
		for name, value := range flags {
			got, err := outcome("--" + name + "=" + value)
			assert.Check(t, err, name)
			_, changes := works[name]
			assert.Check(t, is.Equal(!reflect.DeepEqual(got, base), changes), name)
		}
	}
	for name, value := range refused {
		var out bytes.Buffer
		args := append([]string{"--no-push"}, strings.Fields("--"+name+"="+value)...)
		code := runExecutor(t.Context(), args, World{Stdout: &out, Stderr: &out, LookupEnv: w.LookupEnv})
		assert.Check(t, is.Equal(code, exitUsage), name)
		assert.Check(t, is.Contains(out.String(), "--"+name))
	}
	// No flag is forgotten here.
	known := slices.Collect(maps.Keys(meaningless()))
	k, err := kong.New(&executorCommand{}, kong.KindMapper(boolKind, strictBool{}))
	assert.NilError(t, err)
	for _, f := range k.Model.Flags {
		known = append(known, f.Name)
	}
	ours := []string{
		"help", "digests-to", "key", "isolation", "state-dir", "verbose", "profile",
		"add-host", "ssh", "network", "allow", "ulimit", "shm-size",
	}
	ours = append(ours, kubernetesNames()...)
	for _, name := range known {
		_, isIgnored := meaningless()[name]
		listed := isIgnored || slices.Contains(ours, name)
		for _, flags := range []map[string]string{works, elsewhere, same, ignored, refused} {
			_, ok := flags[name]
			listed = listed || ok
		}
		assert.Check(t, listed, "--%s is in no list of this test", name)
	}
}

// Flags without meaning are taken in every form that kaniko takes, and each has
// a reason.
func TestExecutor_meaningless(t *testing.T) {
	t.Parallel()
	kept, names, err := withoutMeaningless(strings.Fields("--snapshot-mode redo --cleanup --destination r/a --compressed-caching=false --cache-dir=/c -- --cleanup"))
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(kept, strings.Fields("--destination r/a -- --cleanup")))
	assert.Check(t, is.DeepEqual(names, strings.Fields("snapshot-mode cleanup compressed-caching cache-dir")))
	for _, args := range []string{"--cleanup=yes", "--snapshot-mode"} {
		_, _, err = withoutMeaningless([]string{args})
		assert.Check(t, isUsage(err), args)
	}
	for name, f := range meaningless() {
		assert.Check(t, f.reason != "", name)
	}
}

func TestStamped(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &stamped{w: &out, now: func() time.Time { return time.Unix(0, 0) }}
	for _, part := range []string{"one\nt", "wo\n", "\n"} {
		_, err := fmt.Fprint(s, part)
		assert.NilError(t, err)
	}
	const at = "1970-01-01T00:00:00.000Z "
	assert.Check(t, is.Equal(out.String(), at+"one\n"+at+"two\n"+at+"\n"))
}
