package layer

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Decompress undoes the compression of a layer, which its first bytes tell:
// gzip, zstd or none. It checks nothing else. Closing the result does not close
// r.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	buf := bufio.NewReaderSize(r, 256<<10)
	magic, err := buf.Peek(4)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("reading the start of a layer: %w", err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(buf)
		if err != nil {
			return nil, fmt.Errorf("decompressing a layer: %w", err)
		}
		return z, nil
	case isZstd(magic):
		z, err := zstd.NewReader(buf, zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, fmt.Errorf("decompressing a layer: %w", err)
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(buf), nil
}

// isZstd knows data frames and skippable frames, RFC 8878 section 3.1.
func isZstd(magic []byte) bool {
	if len(magic) < 4 {
		return false
	}
	n := binary.LittleEndian.Uint32(magic)
	return n == 0xfd2fb528 || n&^0xf == 0x184d2a50
}
