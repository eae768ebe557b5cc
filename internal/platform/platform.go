// Package platform parses, normalises, names and orders platforms.
//
// It works on the OCI platform type and must not know what is built for a
// platform, nor how; it imports nothing of this module.
package platform

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrInvalid is what Parse and ParseList answer for text that names no
// platform.
var ErrInvalid = errors.New("write it like linux/amd64, linux/arm64 or linux/arm/v7")

// Parse reads <os>/<arch>[/<variant>], or an architecture alone, which stands
// for Linux whatever the machine that parses it. The names of uname, Debian and
// Docker's own repositories (x86_64, armhf, arm32v7) are understood. The result
// is normalised: linux/arm64/v8 is linux/arm64, linux/arm is linux/arm/v7.
//
// Unlike containerd's parser it refuses what is not known, so that a typing
// error does not become a platform that nobody can pull. Every error wraps
// ErrInvalid.
func Parse(s string) (ocispecs.Platform, error) {
	parts := strings.Split(strings.ToLower(strings.TrimSpace(s)), "/")
	if len(parts) == 1 {
		if knownOS(parts[0]) {
			return ocispecs.Platform{}, invalid(s, "it names no architecture")
		}
		parts = append([]string{"linux"}, parts...)
	}
	if len(parts) > 3 {
		return ocispecs.Platform{}, invalid(s, "it has more than three parts")
	}
	for _, part := range parts {
		if part == "" {
			return ocispecs.Platform{}, invalid(s, "a part of it is empty")
		}
	}
	variant := ""
	if len(parts) == 3 {
		variant = parts[2]
	}
	arch, implied := alias(parts[1])
	if implied != "" {
		if variant != "" && variant != implied {
			return ocispecs.Platform{}, invalid(s, fmt.Sprintf("%s means %s/%s", parts[1], arch, implied))
		}
		variant = implied
	}

	parts = append(parts[:1:1], arch)
	if variant != "" {
		parts = append(parts, variant)
	}
	p, err := platforms.Parse(strings.Join(parts, "/"))
	if err != nil {
		return ocispecs.Platform{}, invalid(s, "it contains characters that no platform has")
	}
	p = platforms.Normalize(p)
	if !knownOS(p.OS) {
		return ocispecs.Platform{}, invalid(s, fmt.Sprintf("the operating system %q is not known", p.OS))
	}
	if !knownArch(p.Architecture) {
		return ocispecs.Platform{}, invalid(s, fmt.Sprintf("the architecture %q is not known", parts[1]))
	}
	if !knownVariant(p.Architecture, p.Variant) {
		return ocispecs.Platform{}, invalid(s, fmt.Sprintf("%s has no variant %q", p.Architecture, p.Variant))
	}
	return p, nil
}

// ParseList reads platforms separated by newlines or commas. Repeated ones
// (linux/arm64 and linux/arm64/v8 are the same) count once, at their first
// place. The error names every bad value, not only the first.
func ParseList(values []string) ([]ocispecs.Platform, error) {
	var list []ocispecs.Platform
	var errs []error
	seen := map[string]bool{}
	for _, value := range values {
		for _, s := range strings.FieldsFunc(value, isSeparator) {
			if strings.TrimSpace(s) == "" {
				continue
			}
			p, err := Parse(s)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if name := Format(p); !seen[name] {
				seen[name] = true
				list = append(list, p)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return list, nil
}

// Normalize returns the canonical form of p. An empty operating system is left
// empty, not replaced by that of this machine.
func Normalize(p ocispecs.Platform) ocispecs.Platform {
	if p.OS == "" {
		return p
	}
	return platforms.Normalize(p)
}

// Format is the canonical text of p: linux/arm64, linux/arm/v7. It is what
// Parse reads. A version of the operating system is part of it:
// windows(10.0.17763)/amd64.
func Format(p ocispecs.Platform) string {
	return platforms.FormatAll(Normalize(p))
}

// Slug is Format for names of files and artifacts: linux-arm-v7. It cannot be
// read back: the platform travels in the record, not in a name.
func Slug(p ocispecs.Platform) string {
	return strings.NewReplacer("/", "-", "(", "-", ")", "").Replace(Format(p))
}

// Host is the platform of the machine that this process runs on.
func Host() ocispecs.Platform {
	return Normalize(platforms.DefaultSpec())
}

func invalid(s, why string) error {
	return fmt.Errorf("platform %q: %s; %w", strings.TrimSpace(s), why, ErrInvalid)
}

func isSeparator(r rune) bool { return r == '\n' || r == '\r' || r == ',' }

// alias translates names that containerd/platforms does not know, or knows only
// by dropping the variant that the user wrote beside them.
func alias(arch string) (name, variant string) {
	switch arch {
	case "x86_64", "x86-64":
		return "amd64", ""
	case "i386", "i686", "x86":
		return "386", ""
	case "aarch64":
		return "arm64", ""
	case "arm64v8":
		return "arm64", "v8"
	case "armhf", "armv7", "armv7l", "arm32v7":
		return "arm", "v7"
	case "armel", "armv6", "armv6l", "arm32v6":
		return "arm", "v6"
	case "armv5", "arm32v5":
		return "arm", "v5"
	case "ppc64el":
		return "ppc64le", ""
	}
	return arch, ""
}

// containerd keeps its lists to itself but looks single words up in them: a
// word is either an operating system or an architecture.
func knownOS(name string) bool {
	p, err := platforms.Parse(name)
	return err == nil && p.OS == strings.ToLower(name)
}

func knownArch(name string) bool {
	p, err := platforms.Parse(name)
	return err == nil && p.Architecture == name && p.OS != name
}

var (
	amd64Variant = regexp.MustCompile(`^v[1-4]$`)
	armVariant   = regexp.MustCompile(`^v[5-8]$`)
	arm64Variant = regexp.MustCompile(`^v[89](\.[0-9])?$`)
	// No hyphen, so that two platforms never share a slug.
	otherVariant = regexp.MustCompile(`^[a-z0-9][a-z0-9_.]*$`)
)

func knownVariant(arch, variant string) bool {
	switch {
	case variant == "":
		return true
	case arch == "386":
		return false
	case arch == "amd64":
		return amd64Variant.MatchString(variant)
	case arch == "arm":
		return armVariant.MatchString(variant)
	case arch == "arm64":
		return arm64Variant.MatchString(variant)
	}
	return otherVariant.MatchString(variant)
}
