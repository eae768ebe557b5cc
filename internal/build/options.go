// Package build holds the one value that says what to build. The command line
// fills it in, a driver carries it out or sends it on, so that no option is lost
// on the way.
//
// It must not know how any of it is done.
package build

import "time"

// Options is everything a build can be asked for. All of it is plain data that
// survives JSON.
type Options struct {
	// Context is a directory, or the URL of one that is fetched: an archive or a
	// repository. ContextSubPath is a directory in it, Git is how to clone.
	Context        string
	ContextSubPath string
	Git            Git
	// Dockerfile is a URL, or a path, tried from the working directory, then from the
	// context; empty means Dockerfile in the context.
	Dockerfile string
	// BuildContexts are named contexts: what Context can be, docker-image://REF or
	// oci-layout://DIRECTORY[:TAG|@DIGEST].
	BuildContexts map[string]string
	// Platforms are canonical; empty means this machine's.
	Platforms []string
	Target    string
	// BuildArgs and Labels have a value each.
	BuildArgs map[string]string
	Labels    map[string]string
	Secrets   []Secret
	// SSH are agents that steps and git may use.
	SSH []SSH
	// AddHosts are HOST=IP.
	AddHosts []string
	// Network is that of steps that name none: default, host or none.
	Network string
	// Ulimits are NAME=SOFT[:HARD].
	Ulimits []string
	// ShmSize is that of /dev/shm in bytes; 0 is the default.
	ShmSize int64
	// AllowInsecure lets steps ask for --security=insecure.
	AllowInsecure bool
	// NoCache forbids the use of earlier results for all stages, NoCacheFilter
	// for those that it names.
	NoCache       bool
	NoCacheFilter []string

	// Destinations are REPO:TAG names to publish. An entry without a tag is
	// pushed to by digest.
	Destinations []string
	// Image is a repository to push to by digest.
	Image string
	// PushByDigest moves no tag even if Destinations have one.
	PushByDigest bool
	// NoPush builds everything and sends nothing.
	NoPush bool
	// PublishIndex makes an index even of a single image.
	PublishIndex bool
	// Annotations are key=value, with a prefix for other places than the
	// manifests of the images.
	Annotations []string
	OCIMode     string

	// Reproducible limits all times to SOURCE_DATE_EPOCH, or to 0 without it.
	Reproducible bool
	// RewriteTimestamp limits all times to SOURCE_DATE_EPOCH, if that is set.
	RewriteTimestamp bool
	// SourceDateEpoch is in seconds since 1970; nil when it is not set.
	SourceDateEpoch *int64

	// Cache uses and keeps layers in CacheRepo, or in /cache below the first
	// destination's repository. An entry older than CacheTTL does not count; 0
	// is for ever. NoPushCache keeps nothing.
	Cache       bool
	CacheRepo   string
	CacheTTL    time.Duration
	NoPushCache bool
	// CacheFrom and CacheTo are further caches to read and to write.
	CacheFrom, CacheTo []CacheLocation
	// Compression is gzip or zstd, empty for gzip; level 0 is its default.
	Compression      string
	CompressionLevel int

	// OCILayout is a directory for an OCI image layout of the result, Tar a file
	// for one that `docker load` reads.
	OCILayout, Tar string
	// Outputs are further places for the result.
	Outputs []Output
	// NameDigestFile and NameTagDigestFile get a line for each destination:
	// repo@digest, repo:tag@digest.
	NameDigestFile, NameTagDigestFile string
	// DigestsTo is a directory for digest records, Key what they are of.
	DigestsTo string
	Key       string
	// DigestFile and MetadataFile are written when all is published.
	DigestFile   string
	MetadataFile string

	// IgnoreImmutableTags takes a tag that the registry does not let move for
	// published.
	IgnoreImmutableTags bool
	// SkipPushCheck does not ask before the build whether pushing is allowed.
	SkipPushCheck bool
	// RequireNative refuses platforms that would need an emulator.
	RequireNative bool

	Registries Registries
	// StateDir keeps base layers and cache mounts between builds.
	StateDir string
	// StateSize is how many bytes may be left there after the build; nil is no
	// limit.
	StateSize *int64
	// Parallel limits the steps that run at once; 0 means a default.
	Parallel int
	// Timeout ends the build; 0 means never.
	Timeout time.Duration
}

// Git says how a repository is cloned. Depth is in commits; 0 is all of them.
type Git struct {
	Branch            string
	SingleBranch      bool
	Depth             int
	RecurseSubmodules bool
	InsecureSkipTLS   bool
}

// Registries say how registries are reached. They name files of certificates
// and keys; credentials are no part of them: every machine finds its own.
type Registries struct {
	// Mirrors are asked for images of Docker Hub first, Maps are mirrors by the
	// registry that they stand for. MirrorsOnly leaves out the registry itself.
	Mirrors     []string
	Maps        map[string][]string
	MirrorsOnly bool
	// Certificates are files of authorities, ClientCerts what is shown, by
	// registry.
	Certificates map[string]string
	ClientCerts  map[string]ClientCert
	// Insecure are registries for plain http and any certificate, SkipVerify for
	// https with any certificate. Pull and Push say the same of all registries.
	Insecure                       []string
	InsecurePull, InsecurePush     bool
	SkipVerify                     []string
	SkipVerifyPull, SkipVerifyPush bool
	// CredentialHelpers are the built-in sources of credentials; nil is all of
	// them, empty none.
	CredentialHelpers []string
	Retry             Retry
}

// ClientCert are the files of a certificate and its key.
type ClientCert struct{ Cert, Key string }

// Output is a place for the result besides a registry.
type Output struct {
	// Type is oci, docker, tar (the files of the image) or local (the same in a
	// directory).
	Type string
	// Dest is a file or a directory, "-" standard output. Empty, with docker, is
	// the Docker engine.
	Dest string
	// Names are what the image is called there; empty means as the destinations.
	Names []string
	// Directory makes a directory of type oci, not a tar.
	Directory bool
	// Split puts each platform into a directory of its own; nil does so where
	// there are several.
	Split *bool
}

// CacheLocation is a cache of layers: the repository Ref, whose tag begins those of
// the entries, or the directory Dir.
type CacheLocation struct{ Ref, Dir string }

// Secret is where the value of a secret comes from: a file or a variable.
type Secret struct{ ID, File, Env string }

// SSH is an agent: the socket of one, or files of keys. Without paths it is the
// one that SSH_AUTH_SOCK names.
type SSH struct {
	ID    string
	Paths []string
}

// Retry says how often and how patiently a request is tried again. Zero values
// mean the defaults, a negative Count not at all.
type Retry struct {
	Count                  int
	InitialDelay, MaxDelay time.Duration
}
