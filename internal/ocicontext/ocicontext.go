// Package ocicontext keeps build contexts in a registry, for builds on other
// machines: as an artifact that is named by its digest only, and whose parts are
// not sent again when they are there.
//
// It must not know what is built of a context, nor who asks for it.
//
// Format: an image manifest of OCI 1.1 with the empty config and two blobs. One is
// a tar of the files with all times 0, the other has the times, in nanoseconds
// since 1970, a line for each entry of the tar: every checkout has new times, and
// mostly the same files.
package ocicontext

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// Scheme begins the location of such a context; a reference with digest follows.
const Scheme = "oci://"

// Types of an artifact and its blobs.
const (
	ArtifactType = "application/vnd.kaniko-multiarch.context.v1"
	filesType    = "application/vnd.kaniko-multiarch.context.files.v1.tar+zstd"
	timesType    = "application/vnd.kaniko-multiarch.context.times.v1+zstd"
)

// maxTimes limits the compressed times, in bytes: some ten million files.
const maxTimes = 256 << 20

// Pushed is a context in a registry.
type Pushed struct {
	// Ref names it by its digest.
	Ref registry.Ref
	// Size is that of its blobs, Sent what of that was not there, in bytes.
	Size, Sent int64
}

// Location is what Fetch takes, with the scheme.
func (p Pushed) Location() string { return Scheme + p.Ref.String() }

// Push stores the selected files of a context in a repository, under no tag. Large
// contexts go through files in spoolDir; empty is that of the system.
func Push(ctx context.Context, client *registry.Client, repo registry.Ref, from *buildcontext.Context, sel buildcontext.Selection, spoolDir string) (_ Pushed, err error) {
	compression := layer.Compression{Algorithm: layer.Zstd}
	var times []int64
	files, err := compression.Compress(ctx, spoolDir, func(w io.Writer) error {
		return from.WriteTar(ctx, w, sel, func(mtime int64) { times = append(times, mtime) })
	})
	if err != nil {
		return Pushed{}, err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	mtimes, err := compression.Compress(ctx, spoolDir, func(w io.Writer) error { return writeTimes(w, times) })
	if err != nil {
		return Pushed{}, err
	}
	defer func() { err = errors.Join(err, mtimes.Close()) }()
	files.Descriptor.MediaType, mtimes.Descriptor.MediaType = filesType, timesType
	sent := []*watched{{ReaderAt: files}, {ReaderAt: mtimes}}
	desc, err := client.PushArtifact(ctx, repo.WithTag(""), ArtifactType, registry.Blob{Descriptor: files.Descriptor, Content: sent[0]}, registry.Blob{Descriptor: mtimes.Descriptor, Content: sent[1]})
	if err != nil {
		return Pushed{}, err
	}
	out := Pushed{Ref: repo.WithDigest(desc.Digest), Size: files.Descriptor.Size + mtimes.Descriptor.Size}
	if sent[0].read {
		out.Sent += files.Descriptor.Size
	}
	if sent[1].read {
		out.Sent += mtimes.Descriptor.Size
	}
	return out, nil
}

// watched knows whether anybody wanted its content: a blob that is there already is
// not read.
type watched struct {
	io.ReaderAt
	read bool
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	w.read = true
	return w.ReaderAt.ReadAt(p, off)
}

func writeTimes(w io.Writer, times []int64) error {
	b := bufio.NewWriter(w)
	for _, t := range times {
		if _, err := b.Write(append(strconv.AppendInt(b.AvailableBuffer(), t, 10), '\n')); err != nil {
			return err
		}
	}
	return b.Flush()
}

// Fetch unpacks a context into dir, which is empty. All of it is ours, as the files
// of an archive are. location has no scheme. dir must not be used after an error.
func Fetch(ctx context.Context, client *registry.Client, location, dir string) error {
	ref, err := registry.ParseRef(location)
	if err != nil {
		return err
	}
	if ref.Digest == "" {
		return fmt.Errorf("%s%s: want REPOSITORY@sha256:DIGEST, a context by its digest", Scheme, location)
	}
	_, data, err := client.Manifest(ctx, ref)
	if err != nil {
		return err
	}
	var m ocispecs.Manifest
	if err := json.Unmarshal(data, &m); err != nil || m.ArtifactType != ArtifactType || len(m.Layers) != 2 || m.Layers[0].MediaType != filesType || m.Layers[1].MediaType != timesType {
		return fmt.Errorf("%s%s is no build context, but %q: it takes what a build on Kubernetes stores; give a directory, a repository or an archive", Scheme, location, m.ArtifactType)
	}
	if m.Layers[1].Size > maxTimes {
		return fmt.Errorf("%s%s: its times take %d bytes, and %d are the limit", Scheme, location, m.Layers[1].Size, maxTimes)
	}
	var times []int64
	err = read(ctx, client, ref, m.Layers[1], func(r io.Reader) (err error) {
		times, err = readTimes(r)
		return err
	})
	if err != nil {
		return fmt.Errorf("reading the times of %s: %w", ref, err)
	}
	next := func() (time.Time, error) {
		if len(times) == 0 {
			return time.Time{}, errors.New("it has no time")
		}
		t := time.Unix(0, times[0])
		times = times[1:]
		return t, nil
	}
	us := &layer.Owner{UID: os.Geteuid(), GID: os.Getegid()}
	err = read(ctx, client, ref, m.Layers[0], func(r io.Reader) error {
		return layer.Unpack(ctx, r, dir, layer.UnpackOptions{BestEffortXattrs: true, Chown: us, Mtime: next})
	})
	if err == nil && len(times) > 0 {
		err = fmt.Errorf("it has %d times too many", len(times))
	}
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", ref, err)
	}
	return nil
}

// read gives a blob's decompressed content to use, and makes sure that all of it
// has the blob's digest.
func read(ctx context.Context, client *registry.Client, repo registry.Ref, desc ocispecs.Descriptor, use func(io.Reader) error) error {
	blob, err := client.Blob(ctx, repo, desc)
	if err != nil {
		return err
	}
	defer blob.Close()
	r, err := layer.Decompress(blob)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := use(r); err != nil {
		return err
	}
	// The digest is known at the very end, behind that of what is compressed.
	for _, rest := range []io.Reader{r, blob} {
		if _, err := io.Copy(io.Discard, rest); err != nil {
			return err
		}
	}
	return nil
}

func readTimes(r io.Reader) ([]int64, error) {
	var out []int64
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		t, err := strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, lines.Err()
}
