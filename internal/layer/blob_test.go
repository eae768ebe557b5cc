package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
)

// someBytes are compressible, and the same for the same seed.
func someBytes(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(r.IntN(1 + i%40))
	}
	return out
}

func TestCompressRoundTrip(t *testing.T) {
	t.Parallel()
	data := someBytes(3<<20 + 17)
	for _, tc := range []struct {
		name string
		c    Compression
		data []byte
		want string
	}{
		{"gzip", Compression{}, data, ocispecs.MediaTypeImageLayerGzip},
		{"gzip_9", Compression{Level: 9}, data, ocispecs.MediaTypeImageLayerGzip},
		{"gzip_empty", Compression{}, nil, ocispecs.MediaTypeImageLayerGzip},
		{"zstd", Compression{Algorithm: Zstd}, data, ocispecs.MediaTypeImageLayerZstd},
		{"zstd_19", Compression{Algorithm: Zstd, Level: 19}, data, ocispecs.MediaTypeImageLayerZstd},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			blob, err := tc.c.Compress(t.Context(), dir, func(w io.Writer) error {
				_, err := w.Write(tc.data)
				return err
			})
			assert.NilError(t, err)
			assert.Equal(t, blob.Descriptor.MediaType, tc.want)
			assert.Equal(t, blob.DiffID, digest.FromBytes(tc.data))

			r, err := blob.Open()
			assert.NilError(t, err)
			raw, err := io.ReadAll(r)
			assert.NilError(t, err)
			assert.Equal(t, blob.Descriptor.Size, int64(len(raw)))
			assert.Equal(t, blob.Descriptor.Digest, digest.FromBytes(raw))
			tail := make([]byte, 5)
			_, err = blob.ReadAt(tail, blob.Descriptor.Size-5)
			assert.NilError(t, err)
			assert.DeepEqual(t, tail, raw[len(raw)-5:])

			z, err := Decompress(bytes.NewReader(raw))
			assert.NilError(t, err)
			defer z.Close()
			got, err := io.ReadAll(z)
			assert.NilError(t, err)
			assert.Assert(t, bytes.Equal(got, tc.data))

			left, err := os.ReadDir(dir)
			assert.NilError(t, err)
			assert.Equal(t, len(left), 0, "the spool file must have no name")
			assert.NilError(t, blob.Close())
		})
	}
}

func TestGzipBytesDependOnContentOnly(t *testing.T) {
	t.Parallel()
	data := someBytes(5<<20 + 333)
	pack := func(blocks, piece int) []byte {
		var out bytes.Buffer
		z, err := newGzip(&out, 6, blocks)
		assert.NilError(t, err)
		for rest := data; len(rest) > 0; {
			n := min(piece, len(rest))
			_, err := z.Write(rest[:n])
			assert.NilError(t, err)
			rest = rest[n:]
		}
		assert.NilError(t, z.Close())
		return out.Bytes()
	}
	want := pack(1, len(data))
	for _, tc := range []struct {
		name          string
		blocks, piece int
	}{
		{"two_cores", 2, len(data)},
		{"eight_cores", 8, len(data)},
		{"small_writes", 3, 512},
		{"odd_writes", 4, 70001},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			assert.Assert(t, bytes.Equal(pack(tc.blocks, tc.piece), want))
		})
	}
	// RFC 1952: no flags, no time, unknown system.
	assert.DeepEqual(t, want[:10], []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255})
	// Another digest means that every layer of every user changes: bump the
	// version in the cache keys when a library update asks for this.
	assert.Equal(t, digest.FromBytes(want).String(), gzipGolden)
}

func TestZstdGolden(t *testing.T) {
	t.Parallel()
	blob, err := Compression{Algorithm: Zstd}.Compress(t.Context(), t.TempDir(), func(w io.Writer) error {
		_, err := w.Write(someBytes(5<<20 + 333))
		return err
	})
	assert.NilError(t, err)
	assert.Equal(t, blob.Descriptor.Digest.String(), zstdGolden)
	assert.NilError(t, blob.Close())
}

const (
	gzipGolden = "sha256:6d71225be22eb7cd6c42d8a3065ebf86aa658d04f50f929caadc0a588fa8b418"
	zstdGolden = "sha256:2f2912ec50a41119e0e6bb8bfcf557c732d6ff9dd84dec97f660b09524418542"
)

func TestCompressFails(t *testing.T) {
	t.Parallel()
	why := errors.New("why")
	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	fill := func(w io.Writer) error {
		_, err := w.Write(make([]byte, 4<<20))
		return err
	}
	for _, tc := range []struct {
		name  string
		ctx   context.Context
		c     Compression
		dir   string
		write func(io.Writer) error
		want  string
	}{
		{"writer", t.Context(), Compression{}, t.TempDir(), func(w io.Writer) error { return errors.Join(fill(w), why) }, "why"},
		{"cancelled", cancelled, Compression{}, t.TempDir(), fill, "why"},
		{"gzip_level", t.Context(), Compression{Level: 10}, t.TempDir(), fill, "use 1 to 9"},
		{"zstd_level", t.Context(), Compression{Zstd, -1}, t.TempDir(), fill, "use 1 to 22"},
		{"algorithm", t.Context(), Compression{Algorithm: 7}, t.TempDir(), fill, "use gzip or zstd"},
		{"no_directory", t.Context(), Compression{}, filepath.Join(t.TempDir(), "x"), fill, "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := tc.c.Compress(tc.ctx, tc.dir, tc.write)
			assert.ErrorContains(t, err, tc.want)
			left, _ := os.ReadDir(tc.dir)
			assert.Equal(t, len(left), 0)
		})
	}
}

func TestDecompress(t *testing.T) {
	t.Parallel()
	skippable := []byte{0x53, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 'x'}
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 3, 0x19, 0, 0, 'a', 'b', 'c'}
	for _, tc := range []struct {
		name, in, want string
	}{
		{"empty", "", ""},
		{"short", "\x1f", "\x1f"},
		{"plain", "a tar, say", "a tar, say"},
		{"zstd", string(frame), "abc"},
		{"zstd_after_skippable_frame", string(skippable) + string(frame), "abc"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r, err := Decompress(bytes.NewReader([]byte(tc.in)))
			assert.NilError(t, err)
			defer r.Close()
			got, err := io.ReadAll(r)
			assert.NilError(t, err)
			assert.Equal(t, string(got), tc.want)
		})
	}
	_, err := Decompress(bytes.NewReader([]byte("\x1f\x8bnot gzip")))
	assert.ErrorContains(t, err, "decompressing a layer")
}

// TestMemory is not parallel: it looks at the heap of the whole process.
func TestMemory(t *testing.T) {
	root := t.TempDir()
	const size = 256 << 20
	assert.NilError(t, os.WriteFile(filepath.Join(root, "sparse"), nil, 0o644))
	assert.NilError(t, os.Truncate(filepath.Join(root, "sparse"), size))
	peak := &peakWriter{}
	blob, err := Compress(t.Context(), t.TempDir(), func(w io.Writer) error {
		return Write(t.Context(), io.MultiWriter(w, peak), root, []Change{{Path: "sparse"}}, WriteOptions{})
	})
	assert.NilError(t, err)
	assert.NilError(t, blob.Close())
	assert.Assert(t, peak.written > size)
	assert.Assert(t, peak.heap < 64<<20, "heap of %d MiB", peak.heap>>20)
	var empty [sha256.Size]byte
	assert.Assert(t, blob.DiffID != digest.NewDigestFromBytes(digest.SHA256, empty[:]))
}

// peakWriter looks at the heap every 16 MiB.
type peakWriter struct {
	written, next int64
	heap          uint64
}

func (p *peakWriter) Write(b []byte) (int, error) {
	p.written += int64(len(b))
	if p.written >= p.next {
		p.next += 16 << 20
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		p.heap = max(p.heap, m.HeapAlloc)
	}
	return len(b), nil
}
