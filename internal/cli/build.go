package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/registry"
)

type buildCommand struct {
	Context        string   `short:"c" default:"." help:"Directory of the build context, tar://FILE, tar://stdin, git://HOST/REPO[#REF], https://HOST/REPO.git[#REF[:DIR]], https://HOST/FILE.tar.gz."`
	ContextSubPath string   `help:"Directory in the context to use as the context."`
	Git            string   `help:"Options of a git context: branch=,single-branch=,depth=,recurse-submodules=,insecure-skip-tls=."`
	Dockerfile     string   `short:"f" help:"Path of the Dockerfile, tried in the working directory, then in the context."`
	Platform       []string `sep:"none" help:"Platforms to build for: linux/amd64,linux/arm64."`
	Destination    []string `short:"d" sep:"none" help:"Names to publish: REPO:TAG. Without a tag, push by digest."`
	Image          string   `help:"Repository to push to by digest, moving no tag."`
	PushByDigest   bool     `help:"Push to the destinations' repository by digest, moving no tag."`
	Push           *bool    `help:"Push what is built; without --output that is the default (--push=false is --no-push)."`
	NoPush         bool     `help:"Build everything, push nothing."`
	PublishIndex   bool     `help:"Publish an index even for one platform."`

	Target        string   `help:"Stage of the Dockerfile to build."`
	BuildArg      []string `sep:"none" help:"NAME=VALUE of an ARG; NAME alone takes the environment's."`
	Label         []string `sep:"none" help:"NAME=VALUE of a label."`
	Annotation    []string `sep:"none" help:"[PLACE:]NAME=VALUE of an annotation; PLACE is index, manifest or manifest-descriptor, with an optional [PLATFORM]."`
	Secret        []string `sep:"none" help:"id=NAME,src=FILE or id=NAME,env=VARIABLE."`
	BuildContext  []string `sep:"none" help:"NAME=DIRECTORY, a repository or archive as --context takes it, docker-image://REF or oci-layout://DIRECTORY[:TAG]."`
	NoCache       bool     `help:"Use no earlier result."`
	NoCacheFilter []string `sep:"none" help:"Stages that use no earlier result."`
	Reproducible  bool     `help:"Limit all times to SOURCE_DATE_EPOCH, or to 1970 without it."`
	OCIMode       string   `name:"oci-mode" enum:"auto,oci" default:"auto" help:"Media types of the index: auto or oci. What is built is always OCI."`

	Cache            bool          `help:"Use layers of earlier builds from a registry, and keep those of this one there."`
	CacheRepo        string        `help:"Repository of the layer cache (default: /cache below the first destination)."`
	CacheTTL         time.Duration `name:"cache-ttl" default:"336h" help:"How long a cached layer counts."`
	NoPushCache      bool          `help:"Keep nothing in the cache."`
	Compression      string        `enum:"gzip,zstd" default:"gzip" help:"gzip or zstd."`
	CompressionLevel int           `help:"1 to 9 for gzip, 1 to 22 for zstd; 0 is 6 and 3."`
	OCILayoutPath    string        `name:"oci-layout-path" help:"Directory for an OCI image layout of the result."`
	TarPath          string        `help:"File for a tar of the result, which docker load reads, too."`

	IgnoreImmutable    bool  `name:"push-ignore-immutable-tag-errors" help:"Take a tag that the registry does not let move for published."`
	SkipPushCheck      bool  `name:"skip-push-permission-check" help:"Do not ask before the build whether pushing is allowed."`
	RequireNativeNodes *bool `help:"Fail when a platform would need an emulator (default: with --driver=k8s, where it is about the cluster's nodes)."`

	Handover          string `enum:"files,artifact,registry," default:"files" help:"How records reach the job that merges: files (--digests-to), artifact (of the run in GitHub Actions) or registry (beside the image)."`
	DigestsTo         string `help:"Directory for digest records, one a platform."`
	Key               string `help:"Names what is built in the records; the matrix gives it."`
	NameDigestFile    string `name:"image-name-with-digest-file" help:"File for REPO@DIGEST, a line for each name."`
	NameTagDigestFile string `name:"image-name-tag-with-digest-file" help:"File for REPO:TAG@DIGEST, a line for each name."`
	DigestFile        string `help:"File for the digest of what was built."`
	MetadataFile      string `help:"File for a JSON description of what was built."`

	stepFlags
	buildxFlags
	checkFlags
	cacheFlags
	outputFlags
	registryFlags
	Driver string `enum:"local,k8s,ci" default:"local" help:"Who builds: local, this machine, or k8s, a Job of Kubernetes for each platform."`
	kubernetesFlags
	StateDir  string        `help:"Directory for base layers and cache mounts (default: the user's cache directory)."`
	StateSize string        `help:"Most that may be left in the state directory after the build, what was used last: 10g (default: no limit)."`
	Isolation string        `enum:"auto,namespaces,inplace" default:"auto" help:"How steps are isolated: namespaces, as root or in a user namespace, or inplace in a container without rights; auto takes what works."`
	Force     bool          `help:"Build in place even where that may replace files of somebody's."`
	Profile   string        `help:"Directory for profiles of the build: cpu.pprof, heap.pprof and the times of its steps, timeline.json."`
	Parallel  int           `help:"Most steps to run at once; with --driver=k8s, most Jobs."`
	Timeout   time.Duration `help:"End the build after this time: 30m."`
	Progress  string        `enum:"auto,plain,tty,json,quiet" default:"auto" help:"auto, plain, tty, json or quiet."`

	// started is called in the process that builds, which may be another one than
	// the first.
	started func()
}

// Run builds. It starts this program again in an isolated process first, so
// that nothing is left when it ends.
func (c *buildCommand) Run(ctx context.Context, w *World) error {
	request, asJSON, err := c.method()
	if err != nil {
		return err
	}
	switch {
	case c.Driver == driverCI:
		return usagef("--driver=ci: nothing is built: use kaniko-multiarch merge --digests-from DIR --destination REPO:TAG")
	case c.Driver != driverKubernetes:
		if err := c.kubernetesFlags.refuse(driverLocal); err != nil {
			return err
		}
	}
	if request != "" {
		return c.ask(ctx, w, request, asJSON)
	}
	o, err := c.options(w)
	if err != nil {
		return err
	}
	if err := checkStdout(o, w.Stdout); err != nil {
		return err
	}
	result, client, err := c.built(ctx, w, o)
	if err != nil {
		return err
	}
	if err := c.handOver(ctx, w, client, result); err != nil {
		return err
	}
	if err := tellGitHub(w, result); err != nil {
		return err
	}
	if toStdout(o) {
		return nil
	}
	return printResult(w, result)
}

// built has it built by the driver that is asked for.
func (c *buildCommand) built(ctx context.Context, w *World, o build.Options) (*local.Result, *registry.Client, error) {
	if c.Driver == driverKubernetes {
		return c.onKubernetes(ctx, w, o)
	}
	r := &running{options: o, namedState: c.StateDir != "", isolation: c.Isolation, force: c.Force, verbose: c.Verbose, progress: c.Progress, profile: c.Profile, started: c.started}
	result, err := r.build(ctx, w)
	return result, r.client, err
}

// printResult prints what a script wants: one name a line.
func printResult(w *World, r *local.Result) error {
	for _, line := range r.Names() {
		if _, err := fmt.Fprintln(w.Stdout, line); err != nil {
			return err
		}
	}
	return nil
}

func (c *buildCommand) options(w *World) (build.Options, error) {
	o := build.Options{
		Context: c.Context, ContextSubPath: c.ContextSubPath, Dockerfile: c.Dockerfile, Platforms: splitList(c.Platform), Target: c.Target,
		Destinations: splitList(c.Destination), Image: c.Image, PushByDigest: c.PushByDigest,
		NoPush: c.NoPush || c.Push != nil && !*c.Push, PublishIndex: c.PublishIndex, OCIMode: c.OCIMode,
		Annotations: splitLines(c.Annotation),
		NoCache:     c.NoCache, NoCacheFilter: splitList(c.NoCacheFilter), Reproducible: c.Reproducible,
		Cache: c.Cache, CacheRepo: c.CacheRepo, CacheTTL: c.CacheTTL, NoPushCache: c.NoPushCache,
		Compression: c.Compression, CompressionLevel: c.CompressionLevel, OCILayout: c.OCILayoutPath, Tar: c.TarPath,
		NameDigestFile: c.NameDigestFile, NameTagDigestFile: c.NameTagDigestFile,
		DigestsTo: c.DigestsTo, Key: c.Key, DigestFile: c.DigestFile, MetadataFile: c.MetadataFile,
		IgnoreImmutableTags: c.IgnoreImmutable, RequireNative: c.RequireNativeNodes != nil && *c.RequireNativeNodes, SkipPushCheck: c.SkipPushCheck,
		StateDir: c.StateDir, Parallel: c.Parallel, Timeout: c.Timeout,
	}
	if err := c.stepFlags.options(&o); err != nil {
		return o, err
	}
	if err := c.buildxFlags.options(w, &o); err != nil {
		return o, err
	}
	if err := c.cacheFlags.options(&o); err != nil {
		return o, err
	}
	if err := c.outputFlags.options(&o, c.Push != nil && *c.Push); err != nil {
		return o, err
	}
	for i, out := range o.Outputs {
		if out.Dest == "" || out.Dest == "-" {
			continue
		}
		var err error
		if o.Outputs[i].Dest, err = filepath.Abs(out.Dest); err != nil {
			return o, fmt.Errorf("--output: %w", err)
		}
	}
	if c.Parallel < 0 || c.Timeout < 0 {
		return o, usagef("--parallel and --timeout cannot be negative")
	}
	if sub := o.ContextSubPath; sub != "" && !filepath.IsLocal(sub) {
		return o, usagef("--context-sub-path %s: want a path below the context", sub)
	}
	if o.StateDir == "" {
		o.StateDir = stateDir(w.Getenv)
	}
	var err error
	if c.StateSize != "" {
		size, err := parseSize("state-size", c.StateSize)
		if err != nil {
			return o, err
		}
		o.StateSize = &size
	}
	if o.Git, err = parseGit(c.Git); err != nil {
		return o, err
	}
	if o.Registries, err = c.registries(w); err != nil {
		return o, err
	}
	if o.StateDir, err = filepath.Abs(o.StateDir); err != nil {
		return o, fmt.Errorf("--state-dir: %w", err)
	}
	if o.BuildArgs, err = pairs("build-arg", c.BuildArg, w.LookupEnv); err != nil {
		return o, err
	}
	if o.Labels, err = pairs("label", c.Label, nil); err != nil {
		return o, err
	}
	if o.BuildContexts, err = pairs("build-context", splitLines(c.BuildContext), nil); err != nil {
		return o, err
	}
	for _, s := range splitLines(c.Secret) {
		secret, err := parseSecret(s)
		if err != nil {
			return o, err
		}
		o.Secrets = append(o.Secrets, secret)
	}
	return o, sourceDateEpoch(&o, w.Getenv)
}

// sourceDateEpoch reads SOURCE_DATE_EPOCH as buildx does: from the build
// arguments, then from the environment, whose value becomes an argument.
func sourceDateEpoch(o *build.Options, getenv func(string) string) error {
	const name = "SOURCE_DATE_EPOCH"
	v, ok := o.BuildArgs[name]
	if !ok {
		if v = getenv(name); v != "" {
			o.BuildArgs[name] = v
		}
	}
	if v == "" {
		return nil
	}
	seconds, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		// The front end knows more forms: "context", a stage.
		if ok {
			return nil
		}
		return usagef("%s=%q: want seconds since 1970", name, v)
	}
	o.SourceDateEpoch = &seconds
	return nil
}

// parseGit reads kaniko's options of a clone.
func parseGit(s string) (build.Git, error) {
	var out build.Git
	for _, part := range splitList([]string{s}) {
		name, value, ok := strings.Cut(part, "=")
		var err error
		if !ok {
			name = "" // a name alone says nothing
		}
		switch name {
		case "branch":
			out.Branch = value
		case "single-branch":
			out.SingleBranch, err = strconv.ParseBool(value)
		case "depth":
			if out.Depth, err = strconv.Atoi(value); out.Depth < 0 {
				err = errors.New("a negative number")
			}
		case "recurse-submodules":
			out.RecurseSubmodules, err = strconv.ParseBool(value)
		case "insecure-skip-tls":
			out.InsecureSkipTLS, err = strconv.ParseBool(value)
		default:
			return out, usagef("--git %s: want branch=, single-branch=, depth=, recurse-submodules= or insecure-skip-tls=", part)
		}
		if err != nil && value != "" {
			return out, usagef("--git %s: %w", part, err)
		}
	}
	return out, nil
}

// parseSecret reads id=NAME,src=FILE and id=NAME,env=VARIABLE. Without either,
// the ID names a variable.
func parseSecret(s string) (build.Secret, error) {
	var out build.Secret
	kind := ""
	for part := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "id":
			out.ID = value
		case "src", "source":
			out.File = value
		case "env":
			out.Env = value
		case "type":
			if kind = value; kind != "file" && kind != "env" {
				return out, usagef("--secret: type %q is unknown: use file or env", value)
			}
		default:
			// The value is not printed: it may be the secret itself.
			return out, usagef("--secret: want id=NAME,src=FILE or id=NAME,env=VARIABLE")
		}
	}
	if kind == "env" && out.Env == "" {
		out.Env, out.File = out.File, "" // buildx's spelling
	}
	switch {
	case out.ID == "":
		return out, usagef("--secret: the id is missing: id=NAME,src=FILE or id=NAME,env=VARIABLE")
	case out.File != "" && out.Env != "":
		return out, usagef("--secret id=%s: give src or env, not both", out.ID)
	case out.File == "" && out.Env == "":
		out.Env = out.ID
	}
	return out, nil
}
