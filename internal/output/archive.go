package output

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// dockerManifest is an entry of manifest.json, which `docker load` reads.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// TarOCI writes the layout as one tar.
func (l *Layout) TarOCI(w io.Writer, f Final) error { return l.tar(w, f, false) }

// TarDocker writes the layout as one tar, with what every `docker load` needs
// beside it when there is a single image. Several images are for an engine with
// containerd's image store, or for containerd.
func (l *Layout) TarDocker(w io.Writer, f Final) error { return l.tar(w, f, len(l.sorted()) == 1) }

func (l *Layout) tar(w io.Writer, f Final, docker bool) error {
	made, err := l.index(f)
	if err != nil {
		return err
	}
	if f.Index != nil {
		made[blobName(digest.FromBytes(f.Index))] = f.Index
	}
	var blobs []string
	for _, img := range l.sorted() {
		var manifest ocispecs.Manifest
		if err := json.Unmarshal(img.Manifest, &manifest); err != nil {
			return err
		}
		d := dockerManifest{Config: blobName(manifest.Config.Digest), RepoTags: f.Names, Layers: []string{}}
		for _, layer := range manifest.Layers {
			d.Layers = append(d.Layers, blobName(layer.Digest))
		}
		blobs = append(append(blobs, blobName(img.Descriptor.Digest), d.Config), d.Layers...)
		if docker {
			if made["manifest.json"], err = json.Marshal([]dockerManifest{d}); err != nil {
				return err
			}
		}
	}
	slices.Sort(blobs)
	tw := tar.NewWriter(w)
	for _, name := range slices.Compact(blobs) { // equal layers are one blob
		if err := addFile(tw, l.dir, name); err != nil {
			return fmt.Errorf("adding %s: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(made)) {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(made[name]))}); err != nil {
			return err
		}
		if _, err := tw.Write(made[name]); err != nil {
			return err
		}
	}
	return tw.Close()
}

func blobName(d digest.Digest) string {
	return ocispecs.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
}

// addFile gives every file the same mode and time: the bytes depend on the
// image alone.
func addFile(tw *tar.Writer, dir, name string) error {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}
