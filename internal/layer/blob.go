package layer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Blob is a compressed layer in a file that has no name: it is gone when the
// process is, or at Close.
type Blob struct {
	// DiffID is the digest of the uncompressed tar.
	DiffID digest.Digest
	// Descriptor is of the compressed bytes.
	Descriptor ocispecs.Descriptor

	file *os.File
}

var _ io.ReaderAt = (*Blob)(nil)

// ReadAt implements io.ReaderAt. Many readers may read at once.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) { return b.file.ReadAt(p, off) }

// Open returns a reader of the whole blob, which also is an io.Seeker and
// io.ReaderAt. Readers are independent of each other, and end with the Blob.
func (b *Blob) Open() (io.ReadCloser, error) {
	return blobReader{io.NewSectionReader(b.file, 0, b.Descriptor.Size)}, nil
}

// Close frees the disk space of the blob.
func (b *Blob) Close() error { return b.file.Close() }

type blobReader struct{ *io.SectionReader }

func (blobReader) Close() error { return nil }

// Algorithm is a way to compress.
type Algorithm int

const (
	Gzip Algorithm = iota
	Zstd
)

// Compression says how to compress. The zero value is gzip at its default
// level.
type Compression struct {
	Algorithm Algorithm
	// Level is 1 (fast) to 9 for gzip and 1 to 22 for zstd; 0 stands for the
	// defaults, 6 and 3.
	Level int
}

// Compress is Compression{}.Compress.
func Compress(ctx context.Context, dir string, write func(io.Writer) error) (*Blob, error) {
	return Compression{}.Compress(ctx, dir, write)
}

// Compress compresses what write writes, a layer's tar, into a file in the
// directory dir; "" stands for os.TempDir. The bytes depend on the tar and c
// only, not on the machine.
func (c Compression) Compress(ctx context.Context, dir string, write func(io.Writer) error) (*Blob, error) {
	return c.Fill(ctx, NewPending(), dir, write)
}

// Fill is Compress for a layer that others read while it is made. It is called
// once for p.
func (c Compression) Fill(ctx context.Context, p *Pending, dir string, write func(io.Writer) error) (_ *Blob, err error) {
	defer func() {
		if err != nil {
			p.end(nil, err)
		}
	}()
	if err := p.open(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.file.Close()
		}
	}()

	compressed := &hashed{w: p, hash: sha256.New()}
	z, mediaType, err := c.writer(compressed)
	if err != nil {
		return nil, err
	}
	diff := &hashed{w: z, hash: sha256.New()}
	err = write(contextWriter{ctx, diff})
	// Close also ends the goroutines of the compressor.
	if cerr := z.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("compressing: %w", cerr)
	}
	if err != nil {
		return nil, err
	}
	blob := &Blob{
		DiffID: diff.digest(),
		Descriptor: ocispecs.Descriptor{
			MediaType: mediaType,
			Digest:    compressed.digest(),
			Size:      compressed.size,
		},
		file: p.file,
	}
	p.end(blob, nil)
	return blob, nil
}

// blockSize is the unit of parallel gzip. The bytes depend on it: another size
// gives every layer another digest.
const blockSize = 1 << 20

// maxBlocks bounds the memory that parallel gzip takes on large machines. spareBlocks
// are those that wait while no core is to.
const (
	maxBlocks   = 8
	spareBlocks = 2
)

func (c Compression) writer(w io.Writer) (io.WriteCloser, string, error) {
	switch c.Algorithm {
	case Gzip:
		level := c.Level
		if level == 0 {
			level = 6
		}
		if level < pgzip.BestSpeed || level > pgzip.BestCompression {
			return nil, "", fmt.Errorf("gzip has no compression level %d: use 1 to 9", level)
		}
		z, err := newGzip(w, level, min(runtime.GOMAXPROCS(0)+spareBlocks, maxBlocks))
		return z, ocispecs.MediaTypeImageLayerGzip, err
	case Zstd:
		level := c.Level
		if level == 0 {
			level = 3
		}
		if level < 1 || level > 22 {
			return nil, "", fmt.Errorf("zstd has no compression level %d: use 1 to 22", level)
		}
		// One goroutine gives the same bytes everywhere, and is faster than
		// what feeds it. A window of this size takes little memory of those who
		// pull, too.
		z, err := zstd.NewWriter(w,
			zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
			zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(4<<20))
		return z, ocispecs.MediaTypeImageLayerZstd, err
	}
	return nil, "", fmt.Errorf("unknown compression %d: use gzip or zstd", c.Algorithm)
}

func newGzip(w io.Writer, level, blocks int) (*pgzip.Writer, error) {
	z, err := pgzip.NewWriterLevel(w, level)
	if err != nil {
		return nil, err
	}
	if err := z.SetConcurrency(blockSize, blocks); err != nil {
		return nil, err
	}
	// The zero time.Time is no zero in a gzip header.
	z.ModTime = time.Unix(0, 0)
	return z, nil
}

// hashed counts and hashes what goes through it.
type hashed struct {
	w    io.Writer
	hash hash.Hash
	size int64
}

func (h *hashed) Write(p []byte) (int, error) {
	n, err := h.w.Write(p)
	h.hash.Write(p[:n])
	h.size += int64(n)
	return n, err
}

func (h *hashed) digest() digest.Digest { return digest.NewDigest(digest.SHA256, h.hash) }

type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}
