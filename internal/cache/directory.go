package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"strconv"
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
	// Ref is where the layers of this directory can be read.
	Ref string
	// TTL is how long after its creation an entry counts; 0 means for ever.
	TTL time.Duration
	Now func() time.Time

	root *os.Root
}

var _ Cache = (*Directory)(nil)

// OpenDirectory opens the cache in dir. It stays open when dir is moved.
func OpenDirectory(dir string) (*Directory, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening a cache directory: %w", err)
	}
	return &Directory{root: root, Now: time.Now}, nil
}

// MakeDirectory is OpenDirectory for a directory that need not be there yet.
func MakeDirectory(dir string) (*Directory, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making a cache directory: %w", err)
	}
	d, err := OpenDirectory(dir)
	if err != nil {
		return nil, err
	}
	if err := d.fill(); err != nil {
		return nil, errors.Join(fmt.Errorf("making a cache directory: %w", err), d.Close())
	}
	return d, nil
}

// fill makes what a layout must have.
func (d *Directory) fill() error {
	for _, name := range []string{"blobs/sha256", "keys"} {
		if err := d.root.MkdirAll(name, 0o755); err != nil {
			return err
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
		if _, err := d.root.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := d.writeFile(name, reader(data), int64(len(data))); err != nil {
			return err
		}
	}
	return nil
}

// Close makes the cache unusable.
func (d *Directory) Close() error { return d.root.Close() }

// Get implements Cache. A layer that is not there, or not all of it, makes the
// entry a miss.
func (d *Directory) Get(_ context.Context, key digest.Digest) (*Entry, error) {
	name := keyFile(key)
	info, err := d.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrMiss
	}
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxEntry) {
		err = errors.New("it is no cache entry")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the entry %s cannot be used: %w", ErrMiss, name, err)
	}
	data, err := d.root.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMiss, err)
	}
	e, err := read(data, key, name, d.TTL, d.Now)
	if err != nil {
		return nil, err
	}
	blob := blobFile(e.Layer.Digest)
	if info, err := d.root.Stat(blob); err != nil || info.Size() != e.Layer.Size {
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
		if err := d.writeFile(keyFile(key), reader(manifest), int64(len(manifest))); err != nil {
			return err
		}
	}
	return nil
}

func keyFile(key digest.Digest) string { return path.Join("keys", key.Encoded()) }

func blobFile(of digest.Digest) string {
	return path.Join(ocispecs.ImageBlobsDir, of.Algorithm().String(), of.Encoded())
}

func (d *Directory) putBlob(of digest.Digest, content io.ReaderAt, size int64) error {
	name := blobFile(of)
	if info, err := d.root.Stat(name); err == nil && info.Size() == size {
		return nil
	}
	return d.writeFile(name, content, size)
}

// writeFile writes a file, complete or not at all.
func (d *Directory) writeFile(name string, content io.ReaderAt, size int64) (err error) {
	part := path.Join(path.Dir(name), ".part-"+strconv.FormatUint(rand.Uint64(), 36))
	f, err := d.root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.root.Remove(part))
		}
	}()
	_, err = io.Copy(f, io.NewSectionReader(content, 0, size))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return d.root.Rename(part, name)
}
