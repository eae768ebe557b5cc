package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// filler is what a base has beside the small Debian of test/bases: the size and
// the number of files of larger ones.
type filler struct{ files, size int }

// Debian as mmdebstrap makes it has 126 MB and 6,083 entries in one layer.
var (
	debianFiller = filler{files: 5600, size: 99_000_000}
	largeFillers = []filler{{files: 4000, size: 87_000_000}, {files: 4000, size: 87_000_000}}
)

// pushBases pushes the two bases that are not test/bases', and returns the names
// that Dockerfiles have for all of them. The first layer's tar stays in dir.
func pushBases(ctx context.Context, registry, bases, dir string) (images map[string]string, err error) {
	images = map[string]string{
		"BASE": bases, "DEBIAN": registry + "/bench/base:debian", "LARGE": registry + "/bench/base:large",
	}
	ref, err := name.ParseReference(bases + "/debian:12")
	if err != nil {
		return nil, err
	}
	small, err := remote.Image(ref, remote.WithContext(ctx), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}))
	if err != nil {
		return nil, err
	}
	b := newBytes()
	whole := mutate.Extract(small)
	defer whole.Close()
	first, err := makeLayer(filepath.Join(dir, baseTar), "usr/share/filler", debianFiller, b, whole)
	if err != nil {
		return nil, err
	}
	config, err := small.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.History, config.RootFS.DiffIDs = nil, nil
	img, err := mutate.ConfigFile(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), config)
	if err != nil {
		return nil, err
	}
	if img, err = appended(img, first); err != nil {
		return nil, err
	}
	if err := push(ctx, images["DEBIAN"], img); err != nil {
		return nil, err
	}
	for i, f := range largeFillers {
		layer, err := makeLayer(filepath.Join(dir, fmt.Sprintf("large-%d.tar", i)), fmt.Sprintf("usr/lib/filler-%d", i), f, b, nil)
		if err != nil {
			return nil, err
		}
		if img, err = appended(img, layer); err != nil {
			return nil, err
		}
	}
	return images, push(ctx, images["LARGE"], img)
}

// baseTar is the uncompressed layer of the Debian base.
const baseTar = "debian.tar"

func appended(img v1.Image, layer v1.Layer) (v1.Image, error) {
	return mutate.Append(img, mutate.Addendum{Layer: layer, MediaType: types.OCILayer, History: v1.History{CreatedBy: "bench"}})
}

func push(ctx context.Context, reference string, img v1.Image) error {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return err
	}
	if err := remote.Write(ref, img, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("pushing %s: %w", reference, err)
	}
	return nil
}

// makeLayer writes a layer's tar to file: what is in the tar first, if there is
// one, then the filler below dir.
func makeLayer(file, dir string, f filler, b *bytesOf, first io.Reader) (v1.Layer, error) {
	out, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	if first != nil {
		if err := copyTar(w, tar.NewReader(first)); err != nil {
			return nil, err
		}
	}
	if err := f.write(w, dir, b); err != nil {
		return nil, err
	}
	if err := errors.Join(w.Close(), out.Close()); err != nil {
		return nil, err
	}
	return tarball.LayerFromFile(file, tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching, tarball.WithMediaType(types.OCILayer))
}

func copyTar(w *tar.Writer, r *tar.Reader) error {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
	}
}

// write adds the files, a fifth of them noise as programs' code nearly is.
func (f filler) write(w *tar.Writer, dir string, b *bytesOf) error {
	const inDir = 40
	for i := range f.files {
		in := fmt.Sprintf("%s/%d", dir, i/inDir)
		if i%inDir == 0 {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: in + "/", Mode: 0o755, ModTime: contextTime}); err != nil {
				return err
			}
		}
		data := b.words
		if i%5 == 0 {
			data = b.noise
		}
		// From next to nothing to twice the mean.
		size := 2 * f.size / f.files * (i % inDir) / (inDir - 1)
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("%s/%d", in, i), Mode: 0o644, Size: int64(size), ModTime: contextTime}); err != nil {
			return err
		}
		if _, err := w.Write(data(size)); err != nil {
			return err
		}
	}
	return nil
}
