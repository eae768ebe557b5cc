package registry

import (
	"errors"
	"testing"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
)

func platform(t *testing.T, s string) ocispecs.Platform {
	t.Helper()
	if s == "" {
		return ocispecs.Platform{}
	}
	p, err := platforms.Parse(s)
	assert.NilError(t, err)
	return p
}

func TestImageFromIndex(t *testing.T) {
	t.Parallel()
	usual := []string{"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x"}
	for _, tc := range []struct {
		name string
		have []string
		want string
		// get is the platform of the image, empty for none.
		get string
	}{
		{"amd64", usual, "linux/amd64", "linux/amd64"},
		{"arm64", usual, "linux/arm64", "linux/arm64"},
		{"arm64_v8_is_arm64", usual, "linux/arm64/v8", "linux/arm64"},
		{"index_says_v8", []string{"linux/arm64/v8"}, "linux/arm64", "linux/arm64"},
		{"arm_is_v7", usual, "linux/arm", "linux/arm/v7"},
		{"v7_exact_before_v6", []string{"linux/arm/v6", "linux/arm/v7"}, "linux/arm/v7", "linux/arm/v7"},
		{"v7_takes_v6", []string{"linux/arm/v5", "linux/arm/v6"}, "linux/arm/v7", "linux/arm/v6"},
		{"v6_never_takes_v7", []string{"linux/arm/v7", "linux/arm64"}, "linux/arm/v6", ""},
		{"amd64_v3_best", []string{"linux/amd64", "linux/amd64/v2", "linux/amd64/v3"}, "linux/amd64/v3", "linux/amd64/v3"},
		{"amd64_v3_takes_v2", []string{"linux/amd64", "linux/amd64/v2"}, "linux/amd64/v3", "linux/amd64/v2"},
		{"amd64_takes_no_v3", []string{"linux/amd64/v3"}, "linux/amd64", ""},
		{"amd64_takes_386", []string{"linux/386"}, "linux/amd64", "linux/386"},
		{"other_os", []string{"windows/amd64"}, "linux/amd64", ""},
		{"missing", usual, "linux/riscv64", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, Options{})
			repo := serve(t, inMemory())
			attestation := pushImage(t, c, repo, ocispecs.Platform{OS: "unknown", Architecture: "unknown"})
			attestation.Platform = &ocispecs.Platform{OS: "unknown", Architecture: "unknown"}
			attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
			children := []ocispecs.Descriptor{attestation}
			want := map[string]ocispecs.Descriptor{}
			for _, h := range tc.have {
				p := platform(t, h)
				d := pushImage(t, c, repo, p)
				if h == "linux/arm64/v8" {
					p.Variant = "v8"
				}
				d.Platform = &p
				children = append(children, d)
				want[platforms.Format(platforms.Normalize(p))] = d
			}
			ref := repo.WithTag("1")
			root := pushIndex(t, c, ref, children...)

			img, err := c.Image(t.Context(), ref, platform(t, tc.want))
			if tc.get == "" {
				pe, ok := errors.AsType[*PlatformError](err)
				assert.Assert(t, ok, "%v", err)
				assert.Equal(t, len(pe.Have), len(tc.have))
				contains(t, err, ref.String(), "no image for "+tc.want, tc.have[0])
				return
			}
			assert.NilError(t, err)
			assert.Equal(t, platforms.Format(img.Platform), tc.get)
			assert.Equal(t, img.Ref, repo.WithDigest(want[tc.get].Digest))
			assert.Equal(t, img.Root, root.Digest)
			assert.Equal(t, img.Descriptor.Digest, want[tc.get].Digest)
			assert.Equal(t, len(img.Manifest.Layers), 1)
			assert.Assert(t, len(img.Config) > 0 && len(img.RawManifest) > 0)
		})
	}
}

func TestImageFromSingleManifest(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name         string
		config, want string
		get          string
	}{
		{"same", "linux/amd64", "linux/amd64", "linux/amd64"},
		{"arm_without_variant_may_be_v6", "linux/arm", "linux/arm/v6", "linux/arm/v6"},
		{"v7_is_not_v6", "linux/arm/v7", "linux/arm/v6", ""},
		{"v6_runs_on_v7", "linux/arm/v6", "linux/arm/v7", "linux/arm/v6"},
		{"arm64_v8", "linux/arm64", "linux/arm64/v8", "linux/arm64"},
		{"other", "linux/amd64", "linux/arm64", ""},
		{"says_nothing", "", "linux/s390x", "linux/s390x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, Options{})
			ref := serve(t, inMemory()).WithTag("1")
			p := platform(t, tc.config)
			if tc.config == "linux/arm" {
				p.Variant = ""
			}
			d := pushImage(t, c, ref, p)
			img, err := c.Image(t.Context(), ref, platform(t, tc.want))
			if tc.get == "" {
				pe, ok := errors.AsType[*PlatformError](err)
				assert.Assert(t, ok, "%v", err)
				assert.DeepEqual(t, pe.Have, []string{tc.config})
				return
			}
			assert.NilError(t, err)
			assert.Equal(t, platforms.Format(img.Platform), tc.get)
			assert.Equal(t, img.Root, d.Digest)
			assert.Equal(t, img.Ref, ref.WithDigest(d.Digest))
		})
	}
}

func TestImageFromUnusualIndexes(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{})
	repo := serve(t, inMemory())
	amd, arm := platform(t, "linux/amd64"), platform(t, "linux/arm64")

	t.Run("platforms_untold", func(t *testing.T) {
		ref := repo.WithTag("untold")
		pushIndex(t, c, ref, pushImage(t, c, repo, amd), pushImage(t, c, repo, arm))
		img, err := c.Image(t.Context(), ref, arm)
		assert.NilError(t, err)
		assert.Equal(t, img.Platform.Architecture, "arm64")
		_, err = c.Image(t.Context(), ref, platform(t, "linux/s390x"))
		contains(t, err, "it has linux/amd64, linux/arm64")
	})
	t.Run("nested", func(t *testing.T) {
		inner := pushIndex(t, c, repo.WithTag("inner"), pushImage(t, c, repo, amd), pushImage(t, c, repo, arm))
		pushIndex(t, c, repo.WithTag("nested"), inner)
		img, err := c.Image(t.Context(), repo.WithTag("nested"), arm)
		assert.NilError(t, err)
		assert.Equal(t, img.Platform.Architecture, "arm64")
	})
	t.Run("empty", func(t *testing.T) {
		pushIndex(t, c, repo.WithTag("empty"))
		_, err := c.Image(t.Context(), repo.WithTag("empty"), arm)
		contains(t, err, "it has none")
	})
	t.Run("no_container_image", func(t *testing.T) {
		m := ocispecs.Manifest{MediaType: ocispecs.MediaTypeImageManifest, Config: push(t, c, repo, []byte("{}"), "application/vnd.cncf.helm.config.v1+json")}
		m.SchemaVersion = 2
		_, err := c.PushManifest(t.Context(), repo.WithTag("chart"), m.MediaType, toJSON(t, m))
		assert.NilError(t, err)
		_, err = c.Image(t.Context(), repo.WithTag("chart"), arm)
		contains(t, err, "it is no container image", "helm")
	})
	t.Run("absent", func(t *testing.T) {
		_, err := c.Image(t.Context(), repo.WithTag("absent"), arm)
		assert.Assert(t, errors.Is(err, ErrNotFound), "%v", err)
		contains(t, err, repo.WithTag("absent").String())
	})
}
