package platform

import (
	"cmp"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Compare orders platforms by operating system, architecture, variant and
// version of the operating system, for slices.SortFunc. Equal platforms, and
// only they, compare as 0.
func Compare(a, b ocispecs.Platform) int {
	a, b = Normalize(a), Normalize(b)
	return cmp.Or(
		cmp.Compare(a.OS, b.OS),
		cmp.Compare(a.Architecture, b.Architecture),
		cmp.Compare(a.Variant, b.Variant),
		cmp.Compare(a.OSVersion, b.OSVersion),
		cmp.Compare(Format(a), Format(b)),
	)
}

// Equal reports whether a and b are the same platform however they are
// written: linux/arm64 and linux/arm64/v8, linux/arm and linux/arm/v7.
func Equal(a, b ocispecs.Platform) bool {
	return Format(a) == Format(b)
}

// IsNative reports whether the kernel of host runs programs of p without an
// emulator.
//
// 64-bit x86 runs 32-bit x86, and a 32-bit ARM runs older ones. 64-bit ARM is
// never assumed to run 32-bit ARM: newer cores (Neoverse N2 and V2, Apple's)
// cannot, so whoever wants to know has to try. Variants of amd64 and arm64 are
// native on every host of the architecture: no emulator is chosen by variant.
func IsNative(host, p ocispecs.Platform) bool {
	host, p = Normalize(host), Normalize(p)
	if host.OS != p.OS {
		return false
	}
	if host.Architecture == "amd64" && p.Architecture == "386" {
		return true
	}
	if host.Architecture != p.Architecture {
		return false
	}
	if p.Architecture == "arm" {
		return p.Variant <= host.Variant
	}
	return true
}
