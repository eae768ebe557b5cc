package fileop

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz"

	"github.com/org/kaniko-multiarch/internal/layer"
)

// xzError is a file that starts as xz does and that we cannot decompress.
type xzError struct{ err error }

func (e *xzError) Error() string {
	return fmt.Sprintf("decompressing xz: %v: use COPY or ADD --unpack=false to keep the file as it is, or compress it with gzip or zstd", e.err)
}

func (e *xzError) Unwrap() error { return e.err }

// onlyXZError drops all errors but an *xzError.
func onlyXZError(err error) error {
	if e, ok := errors.AsType[*xzError](err); ok {
		return e
	}
	return nil
}

// decompress undoes the compression that the first bytes of r show: gzip,
// bzip2, xz, zstd or none. Names do not count.
func decompress(r io.Reader) (io.ReadCloser, error) {
	buf := bufio.NewReader(r)
	head, err := buf.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(buf)), nil
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		z, err := xz.NewReader(buf)
		if err != nil {
			return nil, &xzError{err}
		}
		return &xzReader{r: z}, nil
	}
	return layer.Decompress(buf)
}

// xzReader remembers the error that reading ended with: a tar reader on top of
// it can hide that.
type xzReader struct {
	r   io.Reader
	err error
}

func (x *xzReader) Read(p []byte) (int, error) {
	n, err := x.r.Read(p)
	if err != nil && err != io.EOF {
		x.err = &xzError{err}
		return n, x.err
	}
	return n, err
}

func (x *xzReader) Close() error { return x.err }
