// Package record is the digest record: what a build of one platform tells the
// merge that follows it, perhaps on another machine, through files.
//
// It knows the format and the files. It must not know how an image is built or
// how an index is made, and imports nothing of this module.
package record

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
)

// Schema is the version of the format that this package writes and reads.
const Schema = "kaniko-multiarch.record/v1"

// ErrInvalid is wrapped by every error about the content of a record, as
// opposed to one of the file system.
var ErrInvalid = errors.New("not a digest record")

// Record says that an image exists for one platform. Its JSON form is a public
// contract: fields are added, never renamed; readers ignore what they do not
// know.
type Record struct {
	// Schema is filled in by Write.
	Schema string `json:"schema"`
	// Key names what is built; see Key. It may be empty.
	Key string `json:"key"`
	// Image is the repository without tag that holds the image. It may be
	// empty for an image that was not pushed.
	Image string `json:"image"`
	// Target is the stage of the Dockerfile; empty for the last one.
	Target string `json:"target"`
	// Platform in canonical form: linux/arm64, linux/arm/v7.
	Platform string `json:"platform"`
	// Digest, Size (bytes) and MediaType are those of the image's manifest.
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
	MediaType string        `json:"mediaType"`
	// Pushed is set once the registry has confirmed the manifest.
	Pushed bool `json:"pushed"`
	// Revision is the git commit that was built and Committed its time.
	Revision  string    `json:"revision"`
	Committed time.Time `json:"committed,omitzero"`
	// Run identifies the CI run and is empty outside of CI. Attempt counts
	// from 1; Write makes a 1 of 0.
	Run      string    `json:"run"`
	Attempt  int       `json:"attempt"`
	Finished time.Time `json:"finished,omitzero"`
	// Annotations are meant for the image's descriptor in the index.
	Annotations map[string]string `json:"annotations"`
	// Emulated tells that steps ran under an emulator, Seconds how long the
	// build took, Cache how it used the layer cache.
	Emulated bool    `json:"emulated"`
	Seconds  float64 `json:"seconds"`
	Cache    Cache   `json:"cache"`
}

// Cache counts the vertices of a build that were found done and the others.
type Cache struct {
	Hits   int `json:"hits"`
	Misses int `json:"misses"`
}

// Slug is the platform as it appears in names of files: linux-arm-v7.
func (r Record) Slug() string {
	return strings.NewReplacer("/", "-", "(", "-", ")", "").Replace(r.Platform)
}

// Stem is the name of the record's files without extension: <slug>, or
// <key>.<slug> when there is a key.
func (r Record) Stem() string {
	if r.Key == "" {
		return r.Slug()
	}
	return r.Key + "." + r.Slug()
}

// Validate reports what keeps r from being a complete record.
func (r Record) Validate() error {
	var faults []string
	bad := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if r.Schema != Schema {
		bad("schema is %q, this version reads %q", r.Schema, Schema)
	}
	if r.Key != "" {
		if err := ValidKey(r.Key); err != nil {
			bad("%v", err)
		}
	}
	if p, err := platforms.Parse(r.Platform); err != nil || p.Architecture == "" || !strings.Contains(r.Platform, "/") {
		bad("platform %q is not of the form os/arch[/variant]", r.Platform)
	}
	if err := validDigest(r.Digest); err != nil {
		bad("%v", err)
	}
	if r.Size <= 0 {
		bad("size is %d, want that of the manifest in bytes", r.Size)
	}
	if r.MediaType == "" {
		bad("mediaType is empty")
	}
	if r.Pushed && r.Image == "" {
		bad("the image is pushed but its repository (image) is empty")
	}
	if r.Attempt < 0 {
		bad("attempt is %d, it counts from 1", r.Attempt)
	}
	if len(faults) > 0 {
		return fmt.Errorf("%w: %s", ErrInvalid, strings.Join(faults, "; "))
	}
	return nil
}

var keyForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// ValidKey refuses keys that cannot be part of a file name or of the name of a
// CI artifact.
func ValidKey(key string) error {
	if !keyForm.MatchString(key) {
		return fmt.Errorf("key %q: use letters, digits, '.', '_' and '-', and start with a letter or digit", key)
	}
	return nil
}

func validDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("digest %q is not sha256: followed by 64 hex digits", shorten(string(d)))
	}
	return nil
}

// shorten keeps a wrong file (a log, a binary) out of an error message.
func shorten(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
