package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/ci"
	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// From is the machine that sends a build away.
type From struct {
	Registry *registry.Client
	// LookupEnv finds what logs in to a git server.
	LookupEnv func(string) (string, bool)
	// Secrets are those of the build. A file of one may be a pipe: it is read once.
	Secrets local.Secrets
	// Stdin may have the context; nil is empty.
	Stdin io.Reader
	// SpoolDir takes large files for a while; empty is the system's directory for
	// them.
	SpoolDir string
	// Say tells the user about something that took a while; nil is nobody.
	Say func(string)
}

// maxSecret is what all values of a Secret take at most, in bytes; Kubernetes'
// MaxSecretSize.
const maxSecret = 1 << 20

// Prepare stores in the registry what a build needs of this machine, and says what
// to tell the pod of each platform. What cannot travel is a *local.InputError that
// names the fix. o is checked as the local driver does.
func Prepare(ctx context.Context, from From, o build.Options) (map[string]Payload, error) {
	if from.Say == nil {
		from.Say = func(string) {}
	}
	if err := refuse(o); err != nil {
		return nil, err
	}
	target, err := local.ParseTarget(o)
	if err != nil {
		return nil, err
	}
	p := &packer{
		From: from, local: &local.Driver{Registry: from.Registry, LookupEnv: from.LookupEnv, Stdin: from.Stdin},
		in: o, request: Request{Options: o, Files: map[string][]byte{}, Hidden: map[string]string{}, Variables: map[string]string{}},
		secret: map[string][]byte{},
	}
	p.secrets()
	for _, pack := range []func() error{p.agents, p.certificates} {
		if err := pack(); err != nil {
			return nil, err
		}
	}
	if err := p.contexts(ctx, target); err != nil {
		return nil, err
	}
	size := 0
	for _, value := range p.secret {
		size += len(value)
	}
	if size > maxSecret {
		return nil, inputf("the secrets, keys and certificates of the build have %d bytes, and a Secret of Kubernetes holds %d: give fewer, or smaller ones", size, maxSecret)
	}
	p.request.Run = ci.Run{ID: p.run.ID, Attempt: p.run.Attempt, Revision: p.run.Revision, Committed: p.run.Committed}

	out := make(map[string]Payload, len(target.Platforms))
	for _, each := range target.Platforms {
		r := p.request
		r.Options = forPlatform(r.Options, target, each)
		if _, err := r.Encode(); err != nil {
			return nil, &local.InputError{Err: err}
		}
		out[platform.Format(each)] = Payload{Request: r, Secret: p.secret}
	}
	return out, nil
}

func inputf(format string, args ...any) error {
	return &local.InputError{Err: fmt.Errorf(format, args...)}
}

// refuse is about what no other machine can have, or do.
func refuse(o build.Options) error {
	const away = "the build runs in a Job, which has no directory of this machine: "
	var errs []error
	no := func(on bool, format string, args ...any) {
		if on {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	no(o.OCILayout != "", "--oci-layout-path: %spush to a registry, and copy the image from there", away)
	no(o.Tar != "", "--tar-path: %spush to a registry, and pull the image from there", away)
	for _, out := range o.Outputs {
		no(true, "--output type=%s: %spush to a registry, and copy the image from there", out.Type, away)
	}
	no(o.Cache && directory(o.CacheRepo), "--cache-repo %s: %suse a repository", o.CacheRepo, away)
	for _, l := range o.CacheFrom {
		no(l.Dir != "", "--cache-from %s: %suse type=registry,ref=REPOSITORY", l.Dir, away)
	}
	for _, l := range o.CacheTo {
		no(l.Dir != "", "--cache-to %s: %suse type=registry,ref=REPOSITORY", l.Dir, away)
	}
	if err := errors.Join(errs...); err != nil {
		return &local.InputError{Err: err}
	}
	return nil
}

// forPlatform makes the options of one pod: it pushes its image by digest, and
// leaves names and files to the driver, who has all images.
func forPlatform(o build.Options, target *local.Target, p ocispecs.Platform) build.Options {
	o.Platforms = []string{platform.Format(p)}
	o.Destinations, o.Image, o.PushByDigest = nil, "", false
	if target.Repository.Repository != "" {
		o.Image, o.PushByDigest = target.Repository.Name(), true
	}
	o.PublishIndex, o.OCIMode, o.IgnoreImmutableTags = false, "", false
	o.DigestsTo, o.DigestFile, o.MetadataFile, o.NameDigestFile, o.NameTagDigestFile = "", "", "", "", ""
	annotations := target.ManifestAnnotations(p)
	o.Annotations = nil
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		o.Annotations = append(o.Annotations, "manifest:"+key+"="+annotations[key])
	}
	// The pod knows best where it may keep what.
	o.StateDir = ""
	return o
}

// packer collects what travels.
type packer struct {
	From
	local *local.Driver
	// in are the options as they came, request.Options as they travel.
	in      build.Options
	request Request
	secret  map[string][]byte
	run     ci.Run
}

// hide puts a value into the Secret, and returns the file that the pod has it in.
func (p *packer) hide(kind string, value []byte) string {
	// Names of secrets and hosts may have characters that keys cannot.
	key := fmt.Sprintf("%s-%d", kind, len(p.secret))
	p.secret[key] = value
	return path.Join(SecretsDir, key)
}
