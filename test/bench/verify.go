package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// verify looks at what an engine pushed, so that none wins by doing less: the image
// of every platform is there, its layers have the files that w asks for. Without
// deep its manifests alone are read. layers is the size of all layers, compressed.
func verify(ctx context.Context, image string, w workload, deep bool) (layers int64, err error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return 0, err
	}
	got, err := remote.Get(ref, remote.WithContext(ctx))
	if err != nil {
		return 0, fmt.Errorf("what was pushed: %w", err)
	}
	platforms := w.platforms
	if len(platforms) == 0 {
		platforms = []string{""}
	}
	for _, p := range platforms {
		img, err := imageOf(got, p)
		if err != nil {
			return layers, fmt.Errorf("what was pushed for %s: %w", p, err)
		}
		manifest, err := img.Manifest()
		if err != nil {
			return layers, err
		}
		if len(manifest.Layers) == 0 {
			return layers, fmt.Errorf("%s %s has no layer", image, p)
		}
		for _, l := range manifest.Layers {
			layers += l.Size
		}
		if !deep {
			continue
		}
		if err := haveFiles(img, w.files); err != nil {
			return layers, fmt.Errorf("%s %s: %w", image, p, err)
		}
	}
	return layers, nil
}

// imageOf is the image of a platform, without one the only image.
func imageOf(got *remote.Descriptor, platform string) (v1.Image, error) {
	if !got.MediaType.IsIndex() {
		if platform != "" {
			return nil, errors.New("it is no index")
		}
		return got.Image()
	}
	index, err := got.ImageIndex()
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, m := range manifest.Manifests {
		if platform == "" || m.Platform != nil && strings.HasPrefix(m.Platform.String(), platform) {
			return index.Image(m.Digest)
		}
	}
	return nil, errors.New("it is not in the index")
}

// haveFiles counts the regular files below directories of the image's root.
func haveFiles(img v1.Image, want map[string]int) error {
	if t, err := img.MediaType(); err != nil || t == types.OCIManifestSchema1 && len(want) == 0 {
		return err
	}
	root := mutate.Extract(img)
	defer root.Close()
	got := map[string]int{}
	for r := tar.NewReader(root); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeLink {
			top, _, _ := strings.Cut(strings.TrimPrefix(path.Clean("/"+h.Name), "/"), "/")
			got[top]++
		}
	}
	for dir, n := range want {
		if got[dir] != n {
			return fmt.Errorf("%d files in /%s, not %d", got[dir], dir, n)
		}
	}
	return nil
}
