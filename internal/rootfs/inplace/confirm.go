package inplace

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/layer"
)

// same confirms or refutes that a file changed, the last against the tar that
// it was made of. How many names a file has does not count: links are for the
// tar to find.
func (c *candidate) same(ctx context.Context, full string) (bool, error) {
	if c.old == nil {
		return false, nil
	}
	was, is := &c.old.is, &c.is
	if was.Mode != is.Mode || was.Uid != is.Uid || was.Gid != is.Gid || was.Mtim != is.Mtim {
		return false, nil
	}
	kind := is.Mode & unix.S_IFMT
	switch kind {
	case unix.S_IFREG, unix.S_IFLNK:
		if was.Size != is.Size {
			return false, nil
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		if was.Rdev != is.Rdev {
			return false, nil
		}
	}
	xattrs, err := layer.Xattrs(full, nil)
	if err != nil {
		return false, err
	}
	if !maps.Equal(xattrs, c.old.xattrs) {
		return false, nil
	}
	switch kind {
	case unix.S_IFLNK:
		target, err := os.Readlink(full)
		return target == c.old.node.Target, err
	case unix.S_IFREG:
		return c.sameContent(ctx, full)
	}
	return true, nil
}

func (c *candidate) sameContent(ctx context.Context, full string) (bool, error) {
	if c.old.from.tar == nil {
		// Nobody can tell, and nobody needs to: the tree has what the step left, and
		// is never made again.
		return true, nil
	}
	f, err := os.Open(full)
	if err != nil {
		return false, err
	}
	defer f.Close()
	was, err := c.old.node.Open(c.old.from.tar)
	if err != nil {
		return false, fmt.Errorf("reading the former content: %w", err)
	}
	a, b := make([]byte, 64<<10), make([]byte, 64<<10)
	for left := c.is.Size; left > 0; {
		if err := context.Cause(ctx); err != nil {
			return false, err
		}
		n := min(left, int64(len(a)))
		if _, err := io.ReadFull(f, a[:n]); err != nil {
			return false, err
		}
		if _, err := io.ReadFull(was, b[:n]); err != nil {
			return false, fmt.Errorf("reading the former content: %w", err)
		}
		if !bytes.Equal(a[:n], b[:n]) {
			return false, nil
		}
		left -= n
	}
	return true, nil
}
