package cli

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// executorName is the name under which the program takes kaniko's flags.
const executorName = "executor"

// executorCommand is kaniko's command line: the flags of kaniko 1.24 and of its
// living fork, and those of its multi-arch guide. What each one means here is
// decided by options; what has no meaning in this engine is listed in
// meaningless, what cannot be honoured in refused.
type executorCommand struct {
	Annotation       []string `sep:"none"`
	Bucket           string   `hidden:""`
	BuildArg         []string `sep:"none"`
	Cache            bool
	CacheCopyLayers  bool
	CacheDir         string `default:"/cache"`
	CacheRepo        string
	CacheRunLayers   bool          `default:"true"`
	CacheTTL         time.Duration `name:"cache-ttl" default:"336h"`
	Cleanup          bool
	CompressedCache  bool   `name:"compressed-caching" default:"true"`
	Compression      string `enum:"gzip,zstd," default:""`
	CompressionLevel int    `default:"-1"`
	Context          string `short:"c" default:"/workspace/"`
	ContextSubPath   string
	CustomPlatform   string   `xor:"platform"`
	Destination      []string `short:"d" sep:"none"`
	DigestFile       string
	Dockerfile       string `short:"f" default:"Dockerfile"`
	Force            bool
	ForceBuildMeta   bool `name:"force-build-metadata"`
	IgnorePath       []string
	IgnoreVarRun     bool     `default:"true"`
	ImageFormat      string   `enum:"oci,docker," default:""`
	FSExtractRetry   int      `name:"image-fs-extract-retry"`
	DownloadRetry    int      `name:"image-download-retry"`
	NameTagDigest    string   `name:"image-name-tag-with-digest-file"`
	NameDigest       string   `name:"image-name-with-digest-file"`
	InsecureRegistry []string `sep:"none"`
	Insecure         bool
	InsecurePull     bool
	SkipTLSVerify    bool     `name:"skip-tls-verify"`
	SkipTLSPull      bool     `name:"skip-tls-verify-pull"`
	SkipTLSRegistry  []string `name:"skip-tls-verify-registry" sep:"none"`
	RegistryMirror   []string `sep:"none"`
	RegistryMap      []string `sep:"none"`
	NoFallback       bool     `name:"skip-default-registry-fallback"`
	RegistryCert     []string `name:"registry-certificate" sep:"none"`
	RegistryClient   []string `name:"registry-client-cert" sep:"none"`
	Helpers          *string  `name:"credential-helpers"`
	KanikoDir        string   `default:"/kaniko"`
	Label            []string `sep:"none"`
	LogFormat        string   `enum:"color,text,json" default:"color"`
	LogTimestamp     bool
	Materialize      bool
	NoPush           bool
	NoPushCache      bool
	OCILayoutPath    string `name:"oci-layout-path"`
	PreCleanup       bool
	PreserveContext  bool
	PushRetry        int
	Reproducible     bool
	Secret           []string `sep:"none"`
	SingleSnapshot   bool
	SkipPushCheck    bool `name:"skip-push-permission-check"`
	SkipUnusedStages bool
	SnapshotMode     string `enum:"full,redo,time" default:"full"`
	TarPath          string
	Target           string
	UseNewRun        bool
	Verbosity        string `short:"v" enum:"trace,debug,info,warn,error,fatal,panic" default:"info"`

	// The multi-arch guide's.
	Platform              []string `sep:"none" xor:"platform"`
	Driver                string   `enum:"local,ci" default:"local"`
	DigestsFrom           []string `sep:"none"`
	PublishIndex          bool
	IndexAnnotations      []string `sep:"none"`
	RequireNativeNodes    bool     `default:"true"`
	OCIMode               string   `name:"oci-mode" enum:"auto,oci,docker" default:"auto"`
	PushRetryInitialDelay int64    `default:"1000"`
	PushRetryMaxDelay     int64    `default:"30000"`

	// Ours.
	DigestsTo string
	Key       string
	Isolation string `enum:"auto,namespaces,inplace" default:"auto"`
	StateDir  string

	given []string
}

// runExecutor is Main for kaniko's command line.
func runExecutor(ctx context.Context, args []string, w World) int {
	if len(args) > 0 && args[0] == "version" {
		return report(w, versionCommand{}.Run(&w))
	}
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
	kctx, err := parser.Parse(kanikoSpelling(args))
	switch {
	case exited >= 0:
		return exited
	case err != nil:
		return report(w, usageError(err))
	}
	for _, p := range kctx.Path {
		if p.Flag != nil {
			c.given = append(c.given, p.Flag.Name)
		}
	}
	return reportStep(w, c.Run(ctx, &w))
}

// reportStep is report, but the code of a failed step is its own.
func reportStep(w World, err error) int {
	code := report(w, err)
	if step, ok := stepCode(err); ok && code == exitStep {
		return step
	}
	return code
}

// kanikoSpelling replaces the spellings that kaniko deprecated.
func kanikoSpelling(args []string) []string {
	old := map[string]string{
		"--customPlatform": "--custom-platform", "--snapshotMode": "--snapshot-mode",
		"--tarPath": "--tar-path", "--whitelist-var-run": "--ignore-var-run", "--multi-platform": "--platform",
	}
	out := make([]string, len(args))
	for i, a := range args {
		name, value, hasValue := strings.Cut(a, "=")
		out[i] = a
		if now, ok := old[name]; ok {
			out[i] = now
			if hasValue {
				out[i] += "=" + value
			}
		}
	}
	return out
}

// meaningless flags steer what kaniko's engine does and ours does not do: it
// takes no snapshots, holds no layer in memory, and leaves "/" as it was.
var meaningless = []string{
	"cache-copy-layers", "cache-run-layers", "cleanup", "compressed-caching", "force-build-metadata", "ignore-var-run",
	"image-download-retry", "image-fs-extract-retry", "log-timestamp", "materialize", "pre-cleanup",
	"preserve-context", "skip-push-permission-check", "skip-unused-stages", "snapshot-mode", "use-new-run", "cache-dir",
	"kaniko-dir", "require-native-nodes",
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
	case c.Bucket != "":
		return usagef("--bucket: a context in a bucket is not supported: download it first and give the directory with --context")
	case slices.Contains(c.given, "cache-run-layers") && !c.CacheRunLayers && c.Cache:
		return usagef("--cache-run-layers=false: the cache keeps every layer: leave out --cache")
	}
	return nil
}

// Run builds, or merges with --driver=ci.
func (c *executorCommand) Run(ctx context.Context, w *World) error {
	if err := c.refuse(); err != nil {
		return err
	}
	log := debugLog(w, c.Verbosity == "debug" || c.Verbosity == "trace")
	for _, name := range c.given {
		if slices.Contains(meaningless, name) {
			log.Debug("this flag has no meaning in this engine", "flag", "--"+name)
		}
	}
	if c.Driver == "ci" {
		return c.merge().Run(ctx, w)
	}
	b, err := c.build(w)
	if err != nil {
		return err
	}
	return b.Run(ctx, w)
}

// build is the same in our own words.
func (c *executorCommand) build(w *World) (*buildCommand, error) {
	noPush := c.NoPush || w.Getenv("KANIKO_NO_PUSH") == "true"
	if len(c.Destination) == 0 && !noPush && c.DigestsTo == "" {
		return nil, usagef("--destination is missing: give REPO:TAG, or --no-push")
	}
	b := &buildCommand{
		Context: c.Context, Dockerfile: c.Dockerfile, Platform: c.Platform, Destination: slices.Clone(c.Destination),
		Push: true, NoPush: noPush, PublishIndex: c.PublishIndex, Target: c.Target, BuildArg: c.BuildArg, Label: c.Label,
		Annotation: slices.Clone(c.Annotation), Secret: c.Secret, Reproducible: c.Reproducible, OCIMode: c.OCIMode,
		DigestsTo: c.DigestsTo, Key: c.Key, DigestFile: c.DigestFile, NameDigestFile: c.NameDigest, NameTagDigestFile: c.NameTagDigest,
		Cache: c.Cache, CacheRepo: c.CacheRepo, CacheTTL: c.CacheTTL, NoPushCache: c.NoPushCache,
		Compression: c.Compression, CompressionLevel: max(0, c.CompressionLevel),
		OCILayoutPath: c.OCILayoutPath, TarPath: c.TarPath, Isolation: c.Isolation, Force: c.Force, StateDir: c.StateDir,
		Progress: "auto", registryFlags: c.registry(),
	}
	if b.Compression == "" {
		b.Compression = "gzip"
	}
	if c.OCIMode == "docker" {
		return nil, usagef("--oci-mode=docker: images are OCI images: use auto or oci")
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
	if sub := c.ContextSubPath; sub != "" {
		if path.IsAbs(sub) || !filepath.IsLocal(sub) {
			return nil, usagef("--context-sub-path %s: want a path below the context", sub)
		}
		b.Context = strings.TrimSuffix(b.Context, "/") + "/" + sub
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

func (c *executorCommand) registry() registryFlags {
	return registryFlags{
		InsecureRegistry: c.InsecureRegistry, PushRetry: c.PushRetry,
		PushRetryInitialDelay: c.PushRetryInitialDelay, PushRetryMaxDelay: c.PushRetryMaxDelay,
		Verbose:        c.Verbosity == "debug" || c.Verbosity == "trace",
		RegistryMirror: c.RegistryMirror, RegistryMap: c.RegistryMap, SkipDefaultRegistryFallback: c.NoFallback,
		RegistryCertificate: c.RegistryCert, RegistryClientCert: c.RegistryClient,
		kanikoRegistry: kanikoRegistry{
			insecurePull: c.InsecurePull, insecurePush: c.Insecure,
			skipVerifyPull: c.SkipTLSPull, skipVerifyPush: c.SkipTLSVerify, skipVerify: c.SkipTLSRegistry, helpers: c.helpers(),
		},
	}
}

// helpers are the sources of credentials; nil is all of them, which is kaniko's
// default, too.
func (c *executorCommand) helpers() []string {
	if c.Helpers == nil {
		return nil
	}
	out := []string{}
	for _, name := range splitList([]string{*c.Helpers}) {
		if name == "default" {
			return nil
		}
		out = append(out, name)
	}
	return out
}

// merge is the guide's --driver=ci: nothing is built.
func (c *executorCommand) merge() *mergeCommand {
	return &mergeCommand{
		DigestsFrom: c.DigestsFrom, Destination: c.Destination, Platform: c.Platform, Key: c.Key,
		IndexAnnotations: c.IndexAnnotations, OCIMode: c.OCIMode, DryRun: c.NoPush, registryFlags: c.registry(),
	}
}
