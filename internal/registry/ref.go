package registry

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Ref names a repository, or with a tag or digest something in it. Where both
// are set the digest says what is pulled and the tag where it is pushed.
type Ref struct {
	// Registry is HOST[:PORT] in lower case; docker.io is Docker Hub.
	Registry string
	// Repository is the name within the registry: library/alpine.
	Repository string
	Tag        string
	Digest     digest.Digest
}

// ParseRef reads what people write: alpine, ghcr.io/acme/app:1,
// localhost:5000/x@sha256:... Names without a registry are Docker Hub's, and
// names become lower case. A
// reference without tag and digest stays without; see DefaultTag.
func ParseRef(s string) (Ref, error) {
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		return Ref{}, fmt.Errorf("image reference %q: write it without %s://, as %q", s, scheme, rest)
	}
	named, err := reference.ParseNormalizedNamed(lowerName(s))
	if err != nil {
		return Ref{}, fmt.Errorf("image reference %q: %w", s, err)
	}
	r := Ref{Registry: strings.ToLower(reference.Domain(named)), Repository: reference.Path(named)}
	if t, ok := named.(reference.Tagged); ok {
		r.Tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		r.Digest = d.Digest()
	}
	return r, nil
}

// lowerName lowers the name of a reference, which has no upper case in a
// registry; names made of a GitHub owner often do. Tags keep theirs.
func lowerName(s string) string {
	end := len(s)
	if i := strings.IndexByte(s, '@'); i >= 0 {
		end = i
	}
	if i := strings.LastIndexByte(s[:end], ':'); i > strings.LastIndexByte(s[:end], '/') {
		end = i
	}
	return strings.ToLower(s[:end]) + s[end:]
}

// String is the full reference: registry/repository[:tag][@digest].
func (r Ref) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// Name is registry/repository.
func (r Ref) Name() string { return r.Registry + "/" + r.Repository }

// WithTag names the tag in the same repository, without digest.
func (r Ref) WithTag(tag string) Ref {
	r.Tag, r.Digest = tag, ""
	return r
}

// WithDigest names the digest in the same repository, without tag: pushing to
// it moves no tag.
func (r Ref) WithDigest(d digest.Digest) Ref {
	r.Tag, r.Digest = "", d
	return r
}

// DefaultTag is r, or its tag latest when r has neither tag nor digest.
func (r Ref) DefaultTag() Ref {
	if r.Tag == "" && r.Digest == "" {
		return r.WithTag("latest")
	}
	return r
}

// target is what stands for r in the path of a manifest. Pulls prefer the
// digest: it cannot move.
func (r Ref) target() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.DefaultTag().Tag
}
