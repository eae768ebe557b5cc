package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"time"
)

// Replay copies a tar that Write made, as if Write had been given maxTime.
func Replay(ctx context.Context, w io.Writer, r io.Reader, maxTime int64) error {
	limit := time.Unix(maxTime, 0)
	from, to := tar.NewReader(r), tar.NewWriter(w)
	buf := make([]byte, 256<<10)
	for {
		hdr, err := from.Next()
		if err == io.EOF {
			return to.Close()
		}
		if err != nil {
			return fmt.Errorf("reading a layer: %w", err)
		}
		if hdr.ModTime.After(limit) {
			hdr.ModTime = limit
		}
		hdr.Format = tar.FormatPAX
		if err := to.WriteHeader(hdr); err != nil {
			return fmt.Errorf("copying %q to a layer: %w", hdr.Name, err)
		}
		if _, err := io.CopyBuffer(to, contextReader{ctx, from}, buf); err != nil {
			return fmt.Errorf("copying %q to a layer: %w", hdr.Name, err)
		}
	}
}
