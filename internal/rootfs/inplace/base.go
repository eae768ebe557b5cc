package inplace

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/rootfs"
	"github.com/org/kaniko-multiarch/internal/rootfs/state"
)

// Base implements rootfs.Store. The tar is kept: trees are made of it when they
// are needed, and it is what a file is compared with that a step may have
// changed.
func (s *Store) Base(ctx context.Context, diffID digest.Digest, open func(context.Context) (io.ReadCloser, error)) (rootfs.Layer, error) {
	if err := s.state.Base(ctx, diffID, func() error { return s.base(ctx, diffID, open) }); err != nil {
		return nil, err
	}
	return s.known(diffID), nil
}

func (s *Store) known(diffID digest.Digest) *change {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bases[diffID]
}

func (s *Store) base(ctx context.Context, diffID digest.Digest, open func(context.Context) (io.ReadCloser, error)) error {
	if s.known(diffID) != nil {
		return nil
	}
	name := diffID.Encoded()
	var root *layer.Node
	err := s.state.Make(ctx, name, func(part string) (err error) {
		root, err = download(ctx, part, diffID, open)
		return err
	})
	if err != nil {
		return err
	}
	f, err := os.Open(s.state.Thing(name))
	if err != nil {
		return err
	}
	s.keep(f)
	if root == nil {
		// An earlier build, or another one just now, checked it.
		if root, err = layer.Scan(ctx, f); err != nil {
			return fmt.Errorf("%s: %w: remove the file", f.Name(), err)
		}
	}
	if err := s.watchTar(f); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bases[diffID] = &change{store: s, tar: f, root: root}
	return nil
}

// download stores and checks a base layer's tar.
func download(ctx context.Context, name string, diffID digest.Digest, open func(context.Context) (io.ReadCloser, error)) (_ *layer.Node, err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	stored := newHoles(f)
	var root *layer.Node
	err = state.ReadBase(ctx, diffID, open, func(r io.Reader) (err error) {
		content := bufio.NewReaderSize(io.TeeReader(r, stored), 256<<10)
		if root, err = layer.Scan(ctx, content); err != nil {
			return err
		}
		// What follows the end of the tar is kept as well.
		if _, err := io.Copy(io.Discard, content); err != nil {
			return fmt.Errorf("reading to the end: %w", err)
		}
		return stored.Close()
	})
	return root, err
}

// holes writes a file and leaves a hole where it would write many zeros.
type holes struct {
	f     *os.File
	buf   *bufio.Writer
	zeros []byte
	off   int64
}

// holeSize is the least run of zeros that becomes a hole, and the size of
// writes.
const holeSize = 64 << 10

func newHoles(f *os.File) *holes {
	h := &holes{f: f, zeros: make([]byte, holeSize)}
	h.buf = bufio.NewWriterSize(direct{h}, 4*holeSize)
	return h
}

func (h *holes) Write(p []byte) (int, error) { return h.buf.Write(p) }

// Close writes what is left and sets the file's size. It does not close the
// file.
func (h *holes) Close() error {
	if err := h.buf.Flush(); err != nil {
		return err
	}
	return h.f.Truncate(h.off)
}

// direct writes without the buffer.
type direct struct{ *holes }

func (h direct) Write(p []byte) (n int, err error) {
	for n < len(p) {
		piece := p[n:min(n+holeSize, len(p))]
		if len(piece) < holeSize || string(piece) != string(h.zeros) {
			if _, err := h.f.WriteAt(piece, h.off); err != nil {
				return n, err
			}
		}
		n += len(piece)
		h.off += int64(len(piece))
	}
	return n, nil
}
