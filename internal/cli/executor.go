package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// executorName is the name under which the program takes kaniko's flags.
const executorName = "executor"

// executorCommand is kaniko's command line: the flags of kaniko 1.24 and of its
// living forks, and those of the multi-arch guide of one of them. What has no
// meaning in this engine is listed in meaningless, what cannot be honoured in
// refuse; all else is a field here.
type executorCommand struct {
	Annotation       []string      `sep:"none" help:"NAME=VALUE of an annotation of the image."`
	Bucket           string        `hidden:""`
	BuildArg         []string      `sep:"none" help:"NAME=VALUE of an ARG; NAME alone takes the environment's."`
	Cache            bool          `help:"Use and keep layers in a registry."`
	CacheRepo        string        `help:"Repository of the layer cache (default: /cache below the first destination)."`
	CacheRunLayers   bool          `hidden:"" default:"true"`
	CacheTTL         time.Duration `name:"cache-ttl" default:"336h" help:"How long a cached layer counts."`
	Compression      string        `enum:"gzip,zstd," default:"" help:"gzip or zstd."`
	CompressionLevel int           `default:"-1" help:"1 to 9 for gzip, 1 to 22 for zstd."`
	Context          string        `short:"c" default:"/workspace/" help:"Directory, tar://FILE.tar.gz, tar://stdin, git://HOST/REPO[#REF], https://HOST/REPO.git[#REF[:DIR]], https://HOST/FILE.tar.gz."`
	ContextSubPath   string        `help:"Directory in the context to use as the context."`
	CustomPlatform   string        `xor:"platform" help:"The same as --platform."`
	Destination      []string      `short:"d" sep:"none" help:"Names to publish: REPO:TAG."`
	DigestFile       string        `help:"File for the digest of what was built."`
	DisableCompress  bool          `name:"disable-compression" hidden:""`
	Dockerfile       string        `short:"f" default:"Dockerfile" help:"Path of the Dockerfile."`
	DryRun           bool          `name:"dryrun" help:"Print the steps, run and publish nothing."`
	Force            bool          `help:"Build in place even where that may replace files of somebody's."`
	Git              string        `help:"Options of a git context: branch=,single-branch=,depth=,recurse-submodules=,insecure-skip-tls=."`
	IgnorePath       []string      `hidden:""`
	ImageFormat      string        `hidden:"" enum:"oci,docker," default:""`
	DownloadRetry    int           `name:"image-download-retry" help:"How often a failed download of a base image is tried again."`
	NameTagDigest    string        `name:"image-name-tag-with-digest-file" help:"File for REPO:TAG@DIGEST, a line for each name."`
	NameDigest       string        `name:"image-name-with-digest-file" help:"File for REPO@DIGEST, a line for each name."`
	Label            []string      `sep:"none" help:"NAME=VALUE of a label."`
	LogTimestamp     bool          `help:"Begin every line with the time."`
	LogFormat        string        `enum:"color,text,json" default:"color" help:"color, text or json."`
	NoPush           bool          `help:"Build everything, push nothing."`
	NoPushCache      bool          `help:"Keep nothing in the cache."`
	OCILayoutPath    string        `name:"oci-layout-path" help:"Directory for an OCI image layout of the result."`
	IgnoreImmutable  bool          `name:"push-ignore-immutable-tag-errors" help:"Take a tag that the registry does not let move for published."`
	Reproducible     bool          `help:"Limit all times to SOURCE_DATE_EPOCH, or to 1970 without it."`
	Secret           []string      `sep:"none" help:"id=NAME,src=FILE or id=NAME,env=VARIABLE."`
	SkipPushCheck    bool          `name:"skip-push-permission-check" help:"Do not ask before the build whether pushing is allowed."`
	SingleSnapshot   bool          `hidden:""`
	TarPath          string        `help:"File for a tar of the result, which docker load reads, too."`
	Target           []string      `sep:"none" help:"Stage of the Dockerfile to build."`
	Verbosity        string        `short:"v" enum:"trace,debug,info,warn,error,fatal,panic" default:"info" help:"trace, debug, info, warn, error, fatal or panic."`

	// The multi-arch guide's.
	Platform           []string `sep:"none" xor:"platform" help:"Such as linux/amd64,linux/arm64. RUN steps of others than this machine's want QEMU."`
	Driver             string   `enum:"local,ci,k8s" default:"local" help:"local builds here, k8s in a Job of Kubernetes for each platform; ci publishes the index of what jobs have built."`
	DigestsFrom        []string `sep:"none" help:"Directories with digest files, for --driver=ci."`
	PublishIndex       bool     `help:"Publish an index even for one platform; several always make one."`
	IndexAnnotations   []string `sep:"none" help:"NAME=VALUE of annotations of the index."`
	RequireNativeNodes bool     `default:"true" help:"Fail when a platform would need an emulator: with --driver=k8s, or given as true."`
	OCIMode            string   `name:"oci-mode" enum:"auto,oci,docker" default:"auto" help:"Media types of the index: auto or oci; docker with --driver=ci."`

	// Those of a fork, which would change what is built or who may be asked.
	AllowedRegistries  []string `hidden:""`
	AllowedRepos       []string `hidden:""`
	DeniedRegistries   []string `hidden:""`
	DeniedRepos        []string `hidden:""`
	DefaultUser        string   `hidden:""`
	GenerateProvenance bool     `hidden:""`
	LegacyManifestList bool     `hidden:""`
	RequireSignature   bool     `hidden:""`
	SignImages         bool     `hidden:""`

	// Ours.
	DigestsTo string `help:"Directory for digest records, one a platform."`
	Key       string `help:"Names what is built in the records."`
	Isolation string `enum:"auto,namespaces,inplace" default:"auto" help:"How steps are isolated."`
	StateDir  string `help:"Directory for base layers and cache mounts."`
	Profile   string `help:"Directory for profiles of the build: cpu.pprof, heap.pprof, timeline.json."`
	stepFlags

	registryFlags
	kubernetesFlags

	given, ignored []string
}

// runExecutor is Main for kaniko's command line.
func runExecutor(ctx context.Context, args []string, w World) int {
	if len(args) > 0 && args[0] == "version" {
		return report(w, versionCommand{}.Run(&w))
	}
	startIn("/", "/workspace")
	c := &executorCommand{}
	exited := -1
	parser, err := kong.New(c,
		kong.Name(executorName),
		kong.Description("Builds container images with kaniko's flags; see kaniko-multiarch --help for more."),
		kong.Writers(w.Stdout, w.Stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.KindMapper(boolKind, strictBool{}),
		kong.Bind(&w),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		return report(w, fmt.Errorf("setting up the command line: %w", err))
	}
	args, c.ignored, err = withoutMeaningless(kanikoSpelling(args))
	if err != nil {
		return report(w, err)
	}
	kctx, err := parser.Parse(args)
	switch {
	case exited >= 0:
		return exited
	case err != nil:
		return report(w, executorUsage(err))
	}
	for _, p := range kctx.Path {
		if p.Flag != nil {
			c.given = append(c.given, p.Flag.Name)
		}
	}
	return reportStep(w, c.Run(ctx, &w))
}

// startIn goes to the working directory of kaniko's image, where relative paths
// are meant to start, unless the container was given another one. Ours has none:
// it would be a directory of the image, which a build in place cannot move away.
func startIn(given, dir string) {
	if here, err := os.Getwd(); err == nil && here == given {
		_ = os.Chdir(dir) // not there, nothing relative to it either
	}
}

// reportStep is report, but the code of a failed step is its own.
func reportStep(w World, err error) int {
	code := report(w, err)
	if step, ok := stepCode(err); ok && code == exitStep {
		return step
	}
	return code
}

// Run builds, or merges with --driver=ci.
func (c *executorCommand) Run(ctx context.Context, w *World) error {
	if err := c.refuse(); err != nil {
		return err
	}
	if c.LogTimestamp && c.LogFormat != "json" { // whose events have it
		w.Stderr = &stamped{w: w.Stderr, now: time.Now}
	}
	c.Verbose = c.Verbose || c.Verbosity == "debug" || c.Verbosity == "trace"
	log := debugLog(w, c.Verbose)
	explain := func() {
		for _, name := range c.ignored {
			log.Debug("this flag has no meaning in this engine", "flag", "--"+name, "reason", meaningless()[name].reason)
		}
	}
	if c.Driver == driverCI {
		if err := c.kubernetesFlags.refuse(driverCI); err != nil {
			return err
		}
		explain()
		return c.runMerge(ctx, w)
	}
	b, err := c.build(w)
	if err != nil {
		return err
	}
	b.started = explain
	return b.Run(ctx, w)
}

// build is the same in our own words.
func (c *executorCommand) build(w *World) (*buildCommand, error) {
	noPush := c.noPush(w)
	if len(c.Destination) == 0 && !noPush && c.DigestsTo == "" {
		return nil, usagef("--destination is missing: give REPO:TAG, or --no-push")
	}
	b := &buildCommand{
		Context: c.Context, ContextSubPath: c.ContextSubPath, Git: c.Git, Dockerfile: c.Dockerfile, Platform: c.Platform, Destination: slices.Clone(c.Destination),
		NoPush: noPush, PublishIndex: c.PublishIndex, BuildArg: c.BuildArg, Label: c.Label,
		Annotation: slices.Clone(c.Annotation), Secret: c.Secret, Reproducible: c.Reproducible, OCIMode: c.OCIMode,
		DigestsTo: c.DigestsTo, Key: c.Key, DigestFile: c.DigestFile, NameDigestFile: c.NameDigest, NameTagDigestFile: c.NameTagDigest,
		Cache: c.Cache, CacheRepo: c.CacheRepo, CacheTTL: c.CacheTTL, NoPushCache: c.NoPushCache,
		Compression: c.Compression, CompressionLevel: max(0, c.CompressionLevel),
		OCILayoutPath: c.OCILayoutPath, TarPath: c.TarPath, Isolation: c.Isolation, Force: c.Force, StateDir: c.StateDir, Profile: c.Profile,
		Progress: "auto", IgnoreImmutable: c.IgnoreImmutable, SkipPushCheck: c.SkipPushCheck, stepFlags: c.stepFlags, registryFlags: c.registryFlags,
		Driver: c.Driver, kubernetesFlags: c.kubernetesFlags,
	}
	if c.Driver == driverKubernetes { // the fork's variable for its Jobs
		b.K8sRegistrySecret = orVariable(w, c.K8sRegistrySecret, "KANIKO_REGISTRY_SECRET")
	}
	if slices.Contains(c.given, "require-native-nodes") {
		b.RequireNativeNodes = &c.RequireNativeNodes
	}
	if c.DryRun {
		b.Call = requestPlan
	}
	b.PushRetry = max(b.PushRetry, c.DownloadRetry)
	if b.Compression == "" {
		b.Compression = "gzip"
	}
	if c.DisableCompress {
		b.CompressionLevel = 1 // registries want compressed layers; this is the fastest
	}
	if len(c.Target) > 0 {
		b.Target = c.Target[0]
	}
	if c.CustomPlatform != "" {
		b.Platform = []string{c.CustomPlatform}
	}
	for _, a := range c.IndexAnnotations {
		b.Annotation = append(b.Annotation, "index:"+strings.TrimPrefix(a, "index:"))
	}
	// kaniko publishes "latest" when the tag is left out.
	if c.DigestsTo == "" {
		for i, d := range b.Destination {
			b.Destination[i] = withTag(d)
		}
	}
	if c.LogFormat == "json" {
		b.Progress = "json"
	}
	switch c.Verbosity {
	case "warn", "error", "fatal", "panic":
		b.Progress = "quiet"
	}
	return b, nil
}

// withTag adds the default tag to a reference without one.
func withTag(ref string) string {
	if last := ref[strings.LastIndexByte(ref, '/')+1:]; strings.ContainsAny(last, ":@") {
		return ref
	}
	return ref + ":latest"
}
