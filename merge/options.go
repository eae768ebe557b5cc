package merge

import (
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/record"
)

// Mode decides what becomes of images of Docker's media types.
type Mode string

const (
	// ModeAuto, also the empty mode, follows the images: only Docker images
	// make a Docker manifest list, all else an OCI index.
	ModeAuto Mode = "auto"
	// ModeOCI makes an OCI index and rewrites Docker images to OCI ones. Their
	// digests change; the report has both.
	ModeOCI Mode = "oci"
	// ModeDocker makes a Docker manifest list and refuses OCI images.
	ModeDocker Mode = "docker"
)

// Attestations decides about BuildKit's provenance and SBOM manifests, which
// lie beside the images in an index that is merged.
type Attestations string

const (
	// KeepAttestations, also the empty value, takes them over byte by byte.
	// They must be about an image that is in the index, unchanged.
	KeepAttestations Attestations = "keep"
	// DropAttestations leaves them out, with a notice.
	DropAttestations Attestations = "drop"
	// RefuseAttestations makes them an error.
	RefuseAttestations Attestations = "error"
)

// Options say what to merge and where to publish it.
type Options struct {
	// Records, one for each platform; see record.Read.
	Records []record.Found
	// From are further sources: references of images or indexes, with a tag or
	// a digest. PLATFORM=REF takes the image of that platform from an index,
	// and enters a single image as that platform.
	From []string
	// Append adds to the index that the first tag names now, if there is one.
	// What is merged replaces its images of the same platforms.
	Append bool
	// Remove leaves out images that an index brings.
	Remove []ocispecs.Platform
	// Destinations are references with a tag; one without tag publishes by
	// digest only. The images are looked for in the first one's repository
	// first, and copied to every other. There may be none with a Layout.
	Destinations []string
	// Platforms that the index must have, neither more nor less. Empty takes
	// what the records name. Indexes among From may have more, which is left out.
	Platforms []ocispecs.Platform
	// Key picks the records of one image. Empty means that all have one key.
	Key string
	// Annotations are [PREFIX:]KEY=VALUE. Without prefix, and with "index:",
	// they belong to the index; with "manifest-descriptor:" to every entry of
	// it, with "manifest-descriptor[linux/arm64]:" to one. With "manifest:" they
	// change the images themselves, and with them their digests.
	// "index-descriptor:" is for the entry of the index in a Layout.
	Annotations []string
	// Standard are annotations of the index that follow from the CI run. They
	// give way to those of the user, and to what the records say about the
	// revision. They are left out where no record is merged, and where a Docker
	// list cannot hold them.
	Standard     map[string]string
	OCIMode      Mode
	Attestations Attestations
	// SkipReferrers does not copy what refers to an image (signatures) along
	// with it.
	SkipReferrers bool
	// Subject is a tag or digest in the first destination's repository that the
	// index refers to. ArtifactType is that of the index.
	Subject, ArtifactType string
	// SingleManifest publishes a single image as it is, without an index.
	SingleManifest bool
	// Layout is a directory for an OCI image layout of the result.
	Layout string
	// Immutable are patterns of tags that must not move from one digest to
	// another; the last that matches decides, and "!" in front takes back.
	Immutable []string
	// DryRun verifies and assembles but writes nothing to any registry.
	DryRun bool
	// ExplicitPush is set when the user demanded a push: records of images
	// that were not pushed are then an error, not a reason for a dry run.
	ExplicitPush bool
	// IgnoreImmutableTags leaves a tag out, with a warning, that the registry does
	// not let move.
	IgnoreImmutableTags bool
	// Wait is how long to sleep before an image that was not found is looked
	// for again; an entry for each time. Some registries take a moment to show
	// on one connection what was pushed on another.
	Wait []time.Duration
}

// Report is the result. Its JSON form is the report file.
type Report struct {
	Digest digest.Digest `json:"digest"`
	// Image is name@digest in the first destination's repository, or empty
	// without destinations.
	Image string `json:"image"`
	// Tags are the full references that name the index now, or would.
	Tags []string `json:"tags"`
	// Unchanged are those of them that named it before.
	Unchanged []string `json:"unchanged"`
	// Platforms in canonical form, in the order of the index.
	Platforms []string `json:"platforms"`
	MediaType string   `json:"mediaType"`
	Size      int64    `json:"size"`
	// Published is false after a dry run.
	Published bool    `json:"published"`
	Images    []Image `json:"images"`
	// Attached are entries of the index that are no images.
	Attached []Attached `json:"attached"`
	// Annotations of the index.
	Annotations map[string]string `json:"annotations"`
	// Layout is the directory that was written, if one was asked for.
	Layout string `json:"layout,omitempty"`
	// Index holds the exact bytes of the index.
	Index json.RawMessage `json:"index"`
	// Notices are worth a line in the log, Warnings a coloured one.
	Notices  []string `json:"notices"`
	Warnings []string `json:"warnings"`
}

// Image is one entry of the index.
type Image struct {
	Platform  string        `json:"platform"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
	MediaType string        `json:"mediaType"`
	// Source is the digest that was built, which differs from Digest when the
	// image was converted or annotated.
	Source digest.Digest `json:"source"`
	// CopiedFrom is the repository that the image was copied from, if it was
	// not in the destination's.
	CopiedFrom string `json:"copiedFrom,omitempty"`
	// Record is the file or reference that named the image.
	Record string `json:"record,omitempty"`
}

// Attached is an entry of the index that is no image: an attestation.
type Attached struct {
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	// About is the image that it belongs to, if it says so.
	About digest.Digest `json:"about,omitempty"`
}
