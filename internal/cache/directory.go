package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Directory is a cache in an OCI layout, which several builds may share. Besides
// what a layout has there are
//
//	keys/HEX   the manifest of the entry for a key
type Directory struct {
	Dir string
	// Ref is where the layers of this directory can be read.
	Ref string
	// TTL is how long after its creation an entry counts; 0 means for ever.
	TTL time.Duration
	Now func() time.Time
}

var _ Cache = (*Directory)(nil)

// Make makes an empty cache in dir unless there is one.
func Make(dir string) error {
	for _, name := range []string{"blobs/sha256", "keys"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return fmt.Errorf("making a cache directory: %w", err)
		}
	}
	layout, err := json.Marshal(ocispecs.ImageLayout{Version: ocispecs.ImageLayoutVersion})
	if err != nil {
		return err
	}
	index, err := json.Marshal(ocispecs.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex, Manifests: []ocispecs.Descriptor{},
	})
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{ocispecs.ImageLayoutFile: layout, ocispecs.ImageIndexFile: index} {
		file := filepath.Join(dir, name)
		if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := writeFile(file, reader(data), int64(len(data))); err != nil {
			return fmt.Errorf("making a cache directory: %w", err)
		}
	}
	return nil
}

// Get implements Cache. A layer that is not there, or not all of it, makes the
// entry a miss.
func (d *Directory) Get(_ context.Context, key digest.Digest) (*Entry, error) {
	name := d.key(key)
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrMiss
	}
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxEntry) {
		err = errors.New("it is no cache entry")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the entry %s cannot be used: %w", ErrMiss, name, err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMiss, err)
	}
	e, err := read(data, key, name, d.TTL, d.Now)
	if err != nil {
		return nil, err
	}
	blob := d.blob(e.Layer.Digest)
	if info, err := os.Stat(blob); err != nil || info.Size() != e.Layer.Size {
		return nil, fmt.Errorf("%w: the entry %s cannot be used: its layer %s is not complete", ErrMiss, name, blob)
	}
	e.Ref = d.Ref
	return e, nil
}

// Put implements Cache.
func (d *Directory) Put(_ context.Context, keys []digest.Digest, e Entry, content io.ReaderAt) error {
	manifest, conf, err := encode(keys, e)
	if err != nil {
		return err
	}
	if err := d.putBlob(e.Layer.Digest, content, e.Layer.Size); err != nil {
		return err
	}
	for _, data := range [][]byte{conf, manifest} {
		if err := d.putBlob(digest.FromBytes(data), reader(data), int64(len(data))); err != nil {
			return err
		}
	}
	for _, key := range keys {
		if err := writeFile(d.key(key), reader(manifest), int64(len(manifest))); err != nil {
			return err
		}
	}
	return nil
}

func (d *Directory) key(key digest.Digest) string { return filepath.Join(d.Dir, "keys", key.Encoded()) }

func (d *Directory) blob(of digest.Digest) string {
	return filepath.Join(d.Dir, "blobs", of.Algorithm().String(), of.Encoded())
}

func (d *Directory) putBlob(of digest.Digest, content io.ReaderAt, size int64) error {
	name := d.blob(of)
	if info, err := os.Stat(name); err == nil && info.Size() == size {
		return nil
	}
	return writeFile(name, content, size)
}

// writeFile writes a file, complete or not at all.
func writeFile(name string, content io.ReaderAt, size int64) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".part-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = io.Copy(f, io.NewSectionReader(content, 0, size))
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
