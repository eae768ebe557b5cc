package platform_test

import (
	"slices"
	"strings"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/platform"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"linux/amd64":              "linux/amd64",
		"linux/amd64/v1":           "linux/amd64",
		"linux/amd64/v3":           "linux/amd64/v3",
		"linux/x86_64":             "linux/amd64",
		"x86-64":                   "linux/amd64",
		"Linux/AMD64":              "linux/amd64",
		" linux/arm64 ":            "linux/arm64",
		"linux/arm64/v8":           "linux/arm64",
		"linux/arm64/8":            "linux/arm64",
		"linux/arm64/v8.0":         "linux/arm64",
		"linux/arm64/v9":           "linux/arm64/v9",
		"linux/aarch64":            "linux/arm64",
		"arm64v8":                  "linux/arm64",
		"arm64":                    "linux/arm64",
		"linux/arm":                "linux/arm/v7",
		"arm":                      "linux/arm/v7",
		"linux/arm/7":              "linux/arm/v7",
		"linux/arm/v6":             "linux/arm/v6",
		"linux/armhf":              "linux/arm/v7",
		"linux/armhf/v7":           "linux/arm/v7",
		"armv7l":                   "linux/arm/v7",
		"linux/armel":              "linux/arm/v6",
		"arm32v5":                  "linux/arm/v5",
		"linux/i386":               "linux/386",
		"linux/i686":               "linux/386",
		"linux/ppc64el":            "linux/ppc64le",
		"linux/riscv64":            "linux/riscv64",
		"linux/riscv64/rva22u64":   "linux/riscv64/rva22u64",
		"linux/s390x":              "linux/s390x",
		"windows/amd64":            "windows/amd64",
		"windows(10.0.1776)/amd64": "windows(10.0.1776)/amd64",
		"macos/arm64":              "darwin/arm64",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			p, err := platform.Parse(text)
			assert.NilError(t, err)
			assert.Equal(t, platform.Format(p), want)
			again, err := platform.Parse(platform.Format(p))
			assert.NilError(t, err)
			assert.DeepEqual(t, again, p)
		})
	}
}

func TestParse_refuses(t *testing.T) {
	t.Parallel()
	for text, why := range map[string]string{
		"":                    "a part of it is empty",
		"linux":               "names no architecture",
		"linux/":              "a part of it is empty",
		"/amd64":              "a part of it is empty",
		"linux//v7":           "a part of it is empty",
		"linux/amd46":         `the architecture "amd46" is not known`,
		"linux/linux":         `the architecture "linux" is not known`,
		"amd46":               `the architecture "amd46" is not known`,
		"lunix/amd64":         `the operating system "lunix" is not known`,
		"amd64/linux":         `the operating system "amd64" is not known`,
		"linux/arm/v7/x":      "more than three parts",
		"linux/arm/v9":        `arm has no variant "v9"`,
		"linux/amd64/v8":      `amd64 has no variant "v8"`,
		"linux/arm64/v7":      `arm64 has no variant "v7"`,
		"linux/386/v1":        `no variant`,
		"linux/s390x/a-b":     `s390x has no variant "a-b"`,
		"linux/armhf/v6":      "armhf means arm/v7",
		"linux/*":             "characters that no platform has",
		"linux/../etc":        "the architecture",
		"linux/am d64":        "characters that no platform has",
		"linux/amd64,arm64":   "characters that no platform has",
		"linux/amd64\nlinux":  "characters that no platform has",
		"linux(1)(2)/amd64":   "characters that no platform has",
		"linux/arm64/v8\x00x": "characters that no platform has",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			_, err := platform.Parse(text)
			assert.ErrorIs(t, err, platform.ErrInvalid)
			assert.ErrorContains(t, err, why)
			assert.ErrorContains(t, err, "linux/arm/v7")
		})
	}
}

func TestParseList(t *testing.T) {
	t.Parallel()
	list, err := platform.ParseList([]string{
		"linux/arm64,linux/amd64\r\n linux/arm/v7,,\n", "aarch64\n\n", "", "x86_64, armhf",
	})
	assert.NilError(t, err)
	assert.DeepEqual(t, names(list), []string{"linux/arm64", "linux/amd64", "linux/arm/v7"})

	list, err = platform.ParseList(nil)
	assert.NilError(t, err)
	assert.Check(t, is.Len(list, 0))

	_, err = platform.ParseList([]string{"linux/amd46,linux/amd64\nlunix/arm64"})
	assert.ErrorContains(t, err, `"linux/amd46"`)
	assert.ErrorContains(t, err, `"lunix/arm64"`)
}

func TestSlug(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"linux/arm64/v8":            "linux-arm64",
		"linux/arm":                 "linux-arm-v7",
		"windows(10.0.17763)/amd64": "windows-10.0.17763-amd64",
	} {
		p, err := platform.Parse(text)
		assert.NilError(t, err)
		assert.Equal(t, platform.Slug(p), want)
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	list, err := platform.ParseList([]string{"windows/amd64,linux/s390x,linux/arm64,linux/arm/v7,linux/arm/v6,linux/amd64/v3,linux/amd64,linux/386"})
	assert.NilError(t, err)
	slices.SortFunc(list, platform.Compare)
	assert.DeepEqual(t, names(list), []string{
		"linux/386", "linux/amd64", "linux/amd64/v3", "linux/arm/v6", "linux/arm/v7", "linux/arm64", "linux/s390x", "windows/amd64",
	})
	for _, a := range list {
		for _, b := range list {
			assert.Equal(t, platform.Compare(a, b) == 0, platform.Equal(a, b), "%v %v", a, b)
			assert.Equal(t, platform.Compare(a, b), -platform.Compare(b, a))
		}
	}
}

func TestEqual(t *testing.T) {
	t.Parallel()
	p := func(os, arch, variant string) ocispecs.Platform {
		return ocispecs.Platform{OS: os, Architecture: arch, Variant: variant}
	}
	for name, test := range map[string]struct {
		a, b ocispecs.Platform
		want bool
	}{
		"arm64_is_v8":             {p("linux", "arm64", ""), p("linux", "arm64", "v8"), true},
		"arm_is_v7":               {p("linux", "arm", ""), p("linux", "arm", "v7"), true},
		"arm_is_not_v6":           {p("linux", "arm", ""), p("linux", "arm", "v6"), false},
		"amd64_is_v1":             {p("linux", "amd64", "v1"), p("linux", "x86_64", ""), true},
		"amd64_is_not_v2":         {p("linux", "amd64", "v2"), p("linux", "amd64", ""), false},
		"os":                      {p("linux", "amd64", ""), p("windows", "amd64", ""), false},
		"empty_os_is_not_the_own": {p("linux", "amd64", ""), p("", "amd64", ""), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, platform.Equal(test.a, test.b), test.want)
			assert.Equal(t, platform.Equal(test.b, test.a), test.want)
		})
	}
}

func TestIsNative(t *testing.T) {
	t.Parallel()
	for pair, want := range map[string]bool{
		"linux/amd64 linux/amd64":    true,
		"linux/amd64 linux/amd64/v3": true,
		"linux/amd64 linux/386":      true,
		"linux/386 linux/amd64":      false,
		"linux/amd64 linux/arm64":    false,
		"linux/amd64 windows/amd64":  false,
		"linux/arm64 linux/arm64/v9": true,
		"linux/arm64 linux/arm/v7":   false,
		"linux/arm64 linux/arm/v6":   false,
		"linux/arm/v7 linux/arm/v6":  true,
		"linux/arm/v6 linux/arm/v7":  false,
		"linux/arm/v7 linux/arm64":   false,
	} {
		t.Run(pair, func(t *testing.T) {
			t.Parallel()
			host, p, _ := strings.Cut(pair, " ")
			list, err := platform.ParseList([]string{host})
			assert.NilError(t, err)
			target, err := platform.Parse(p)
			assert.NilError(t, err)
			assert.Equal(t, platform.IsNative(list[0], target), want)
		})
	}
}

func TestHost(t *testing.T) {
	t.Parallel()
	host := platform.Host()
	assert.Check(t, platform.IsNative(host, host))
	parsed, err := platform.Parse(platform.Format(host))
	assert.NilError(t, err)
	assert.Check(t, platform.Equal(parsed, host))
}

func names(list []ocispecs.Platform) []string {
	var out []string
	for _, p := range list {
		out = append(out, platform.Format(p))
	}
	return out
}
