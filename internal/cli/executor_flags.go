package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// kanikoSpelling replaces the spellings that kaniko and its forks have besides.
func kanikoSpelling(args []string) []string {
	other := map[string]string{
		"--customPlatform": "--custom-platform", "--snapshotMode": "--snapshot-mode",
		"--tarPath": "--tar-path", "--whitelist-var-run": "--ignore-var-run", "--multi-platform": "--platform",
	}
	out := make([]string, len(args))
	for i, a := range args {
		name, value, hasValue := strings.Cut(a, "=")
		out[i] = a
		if now, ok := other[name]; ok {
			out[i] = now
			if hasValue {
				out[i] += "=" + value
			}
		}
	}
	return out
}

// ignoredFlag is one that steers what another engine does and this one does
// not do.
type ignoredFlag struct {
	reason string
	// valued is false for a boolean, whose value is given with "=" or not at all.
	valued bool
}

// meaningless are the flags that are taken and change nothing, by their name.
func meaningless() map[string]ignoredFlag {
	out := map[string]ignoredFlag{}
	for _, group := range []struct{ reason, booleans, valued string }{
		{
			"a step's changes are known without a snapshot",
			"use-new-run ignore-var-run incremental-snapshots integrity-check full-scan-backup",
			"snapshot-mode image-fs-extract-retry max-expected-changes file-hash-cache-max-entries file-hash-cache-max-memory-mb max-file-hash-size",
		},
		{
			"the root directory is afterwards what it was, and each build's files are its own",
			"cleanup pre-cleanup preserve-context materialize", "kaniko-dir",
		},
		{
			"layers are never held in memory",
			"compressed-caching memory-monitoring",
			"gc-threshold monitoring-interval max-memory-usage-bytes",
		},
		{
			"every layer is cached, per platform; base layers are kept in the state directory",
			"cache-copy-layers enable-smart-cache enable-unified-cache enable-predictive-cache local-cache-compress local-cache-use-mmap cache-disable-http2",
			"cache-dir arch-cache-repo-suffix cache-max-concurrent-requests cache-max-conns cache-max-conns-per-host cache-request-timeout " +
				"cache-result-max-entries cache-result-max-memory-mb cache-result-ttl local-cache-compression max-cache-entries " +
				"max-concurrent-cache-checks max-preload-size predictive-cache-max-layers predictive-cache-max-memory-mb prefetch-window preload-timeout",
		},
		{
			"stages that are not needed are never built, the others in parallel where they can",
			"skip-unused-stages enable-parallel-exec optimize-execution-order enable-lazy-image-loading use-oci-stages",
			"max-workers max-parallel-commands max-parallel-copy max-parallel-hashing max-network-concurrency layer-load-max-concurrent",
		},
		{
			"nothing limits the size of files, or the time of a step but the CI system",
			"", "max-file-size max-file-size-bytes max-tar-file-size max-total-archive-size max-total-file-size-bytes command-timeout",
		},
		{
			"--verbosity=debug prints all diagnostics there are",
			"debug-build-steps debug-cache debug-drivers debug-filesystem debug-full debug-multi-platform debug-oci debug-output-files debug-registry debug-signing",
			"debug-components debug-level",
		},
		{"the config has the build's metadata always", "force-build-metadata", ""},
		{"delays double, up to --push-retry-max-delay", "", "push-retry-backoff-multiplier"},
	} {
		for name := range strings.FieldsSeq(group.booleans) {
			out[name] = ignoredFlag{group.reason, false}
		}
		for name := range strings.FieldsSeq(group.valued) {
			out[name] = ignoredFlag{group.reason, true}
		}
	}
	return out
}

// withoutMeaningless takes the flags away that have no meaning here, and
// returns their names.
func withoutMeaningless(args []string) (kept, names []string, err error) {
	known := meaningless()
	for i := 0; i < len(args); i++ {
		flag, value, hasValue := strings.Cut(args[i], "=")
		name, long := strings.CutPrefix(flag, "--")
		f, ok := known[name]
		switch {
		case args[i] == "--":
			return append(kept, args[i:]...), names, nil
		case !long || !ok:
			kept = append(kept, args[i])
			continue
		case f.valued && !hasValue && i+1 == len(args):
			return nil, nil, usagef("--%s: want a value", name)
		case f.valued && !hasValue:
			i++
		case !f.valued && hasValue && !slices.Contains([]string{"true", "True", "TRUE", "false", "False", "FALSE"}, value):
			return nil, nil, usagef("--%s: %q is not a boolean: use true or false", name, value)
		}
		names = append(names, name)
	}
	return kept, names, nil
}

// refuse names the flags that would change the result and cannot be honoured.
func (c *executorCommand) refuse() error {
	switch {
	case c.SingleSnapshot:
		return usagef("--single-snapshot: every instruction makes a layer here, as in BuildKit: leave the flag out, or copy the last stage into a stage FROM scratch")
	case len(c.IgnorePath) > 0:
		return usagef("--ignore-path: what a step writes is in its layer: remove %s in the step that makes it, or mount a tmpfs there (RUN --mount=type=tmpfs)", c.IgnorePath[0])
	case c.ImageFormat == "docker":
		return usagef("--image-format=docker: images are OCI images, which every registry and runtime of today reads: leave the flag out")
	case c.LegacyManifestList:
		return usagef("--legacy-manifest-list: images are OCI images, and so is their index: leave the flag out")
	case c.OCIMode == "docker" && c.Driver != "ci":
		return usagef("--oci-mode=docker: images are OCI images: use auto or oci")
	case c.Bucket != "":
		return usagef("--bucket: a context in a bucket is not supported: download it first and give the directory with --context")
	case slices.Contains(c.given, "cache-run-layers") && !c.CacheRunLayers && c.Cache:
		return usagef("--cache-run-layers=false: the cache keeps every layer: leave out --cache")
	case len(c.Target) > 1:
		return usagef("--target: one stage a run: start one for each of %s", strings.Join(c.Target, ", "))
	case strings.Contains(c.DigestFile, "://"):
		return usagef("--digest-file=URL: the digest is written to a file: upload that in the next step")
	}
	return c.refuseOfFork()
}

// refuseOfFork are rules about who may be asked or what must be attested:
// without them a build would be less than what was asked for.
func (c *executorCommand) refuseOfFork() error {
	for flag, values := range map[string][]string{
		"allowed-registries": c.AllowedRegistries, "allowed-repos": c.AllowedRepos,
		"denied-registries": c.DeniedRegistries, "denied-repos": c.DeniedRepos,
	} {
		if len(values) > 0 {
			return usagef("--%s: registries are not filtered here: use --registry-map with --skip-default-registry-fallback, or the network's rules", flag)
		}
	}
	switch {
	case c.DefaultUser != "":
		return usagef("--default-user: an image without USER runs as root: write USER %s into the Dockerfile", c.DefaultUser)
	case c.GenerateProvenance:
		return usagef("--generate-provenance is not supported in this version: attest the digest (--digest-file) in the next step")
	case c.RequireSignature:
		return usagef("--require-signature is not supported in this version: verify base images in a step before and name them by digest")
	case c.SignImages:
		return usagef("--sign-images is not supported in this version: sign the digest (--digest-file) in the next step")
	}
	return nil
}

func executorUsage(err error) error {
	var parse *kong.ParseError
	if errors.As(err, &parse) {
		return usagef("%w (see %s --help)", err, executorName)
	}
	return &usage{err}
}
