package record

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"path"
	"slices"
	"strings"
)

// Identity is everything that tells one build of a pipeline from another. The
// platform is not part of it: all platforms of an image share a key.
type Identity struct {
	// Image is the normalised repository; a tag or digest on it counts too.
	Image string
	// Tags are the names that will be published, in any order: app:3.11 and
	// app:3.12 are two things even when nothing else differs.
	Tags   []string
	Target string
	// Dockerfile and Context as the user wrote them; empty means the defaults
	// (Dockerfile, the working directory).
	Dockerfile string
	Context    string
	// BuildArgs are NAME=VALUE, in any order.
	BuildArgs []string
}

// Key is the default key of id: <last path part of the image>[-<target>]-<6 hex
// digits of the whole identity>. It depends on nothing else, so that every leg
// of a matrix finds the same one.
func Key(id Identity) string {
	name := path.Base(id.Image)
	name, _, _ = strings.Cut(name, "@")
	name, _, _ = strings.Cut(name, ":")
	if name == "." || name == "/" {
		name = "image"
	}
	if id.Target != "" {
		name += "-" + id.Target
	}
	name = strings.TrimLeft(strings.Map(keyRune, strings.ToLower(name)), "-._")
	if name == "" {
		name = "image"
	}

	h := sha256.New()
	part := func(values ...string) {
		var count [8]byte
		binary.BigEndian.PutUint64(count[:], uint64(len(values)))
		h.Write(count[:])
		for _, value := range values {
			binary.BigEndian.PutUint64(count[:], uint64(len(value)))
			h.Write(count[:])
			h.Write([]byte(value))
		}
	}
	part(Schema)
	part(id.Image)
	part(sorted(id.Tags)...)
	part(id.Target)
	part(location(id.Dockerfile, "Dockerfile"))
	part(location(id.Context, "."))
	part(sorted(id.BuildArgs)...)
	return name + "-" + hex.EncodeToString(h.Sum(nil))[:6]
}

func sorted(values []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(values)))
}

// location makes one of "./app/" and "app", and leaves addresses alone.
func location(s, byDefault string) string {
	if s == "" {
		return byDefault
	}
	if strings.Contains(s, "://") {
		return s
	}
	return path.Clean(s)
}

func keyRune(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
		return r
	}
	return '-'
}
