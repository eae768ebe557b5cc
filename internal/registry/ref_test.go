package registry

import (
	"testing"

	"gotest.tools/v3/assert"
)

const someDigest = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"

func TestParseRef(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, in string
		want     Ref
		str      string
	}{
		{"familiar", "alpine", Ref{Registry: "docker.io", Repository: "library/alpine"}, "docker.io/library/alpine"},
		{"familiar_with_tag", "alpine:3.20", Ref{Registry: "docker.io", Repository: "library/alpine", Tag: "3.20"}, "docker.io/library/alpine:3.20"},
		{"hub_user", "acme/app:1", Ref{Registry: "docker.io", Repository: "acme/app", Tag: "1"}, "docker.io/acme/app:1"},
		{"old_hub_name", "index.docker.io/library/alpine", Ref{Registry: "docker.io", Repository: "library/alpine"}, "docker.io/library/alpine"},
		{"port", "localhost:5000/x", Ref{Registry: "localhost:5000", Repository: "x"}, "localhost:5000/x"},
		{"upper_case_host", "GHCR.io/acme/app:V1", Ref{Registry: "ghcr.io", Repository: "acme/app", Tag: "V1"}, "ghcr.io/acme/app:V1"},
		{"upper_case_repository", "ghcr.io/Acme/App:Tag", Ref{Registry: "ghcr.io", Repository: "acme/app", Tag: "Tag"}, "ghcr.io/acme/app:Tag"},
		{"upper_case_hub_user", "Acme/app", Ref{Registry: "docker.io", Repository: "acme/app"}, "docker.io/acme/app"},
		{"digest", "ghcr.io/acme/app@" + someDigest, Ref{Registry: "ghcr.io", Repository: "acme/app", Digest: someDigest}, "ghcr.io/acme/app@" + someDigest},
		{"tag_and_digest", "ghcr.io/acme/app:1@" + someDigest, Ref{Registry: "ghcr.io", Repository: "acme/app", Tag: "1", Digest: someDigest}, "ghcr.io/acme/app:1@" + someDigest},
		{"ipv6", "[::1]:5000/x:1", Ref{Registry: "[::1]:5000", Repository: "x", Tag: "1"}, "[::1]:5000/x:1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseRef(tc.in)
			assert.NilError(t, err)
			assert.Equal(t, got, tc.want)
			assert.Equal(t, got.String(), tc.str)
			again, err := ParseRef(got.String())
			assert.NilError(t, err)
			assert.Equal(t, again, got)
		})
	}
}

func TestParseRefErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, in, want string }{
		{"empty", "", `image reference ""`},
		{"scheme", "https://ghcr.io/acme/app", `as "ghcr.io/acme/app"`},
		{"bad_digest", "alpine@sha256:12", `image reference "alpine@sha256:12"`},
		{"space", "a b", `image reference "a b"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseRef(tc.in)
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

func TestRefNamesOneThing(t *testing.T) {
	t.Parallel()
	r := Ref{Registry: "ghcr.io", Repository: "acme/app", Tag: "1", Digest: someDigest}
	assert.Equal(t, r.Name(), "ghcr.io/acme/app")
	assert.Equal(t, r.WithTag("2").String(), "ghcr.io/acme/app:2")
	assert.Equal(t, r.WithDigest(someDigest).String(), "ghcr.io/acme/app@"+someDigest)
	assert.Equal(t, r.target(), someDigest)
	bare := Ref{Registry: "ghcr.io", Repository: "acme/app"}
	assert.Equal(t, bare.DefaultTag().Tag, "latest")
	assert.Equal(t, r.DefaultTag(), r)
	assert.Equal(t, bare.WithTag("2").DefaultTag().Tag, "2")
}
