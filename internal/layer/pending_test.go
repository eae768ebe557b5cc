package layer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand"
	"testing"

	"gotest.tools/v3/assert"
)

func TestPending_is_read_while_it_is_made(t *testing.T) {
	t.Parallel()
	data := make([]byte, 8<<20) // what gzip cannot make smaller
	rand.New(rand.NewSource(1)).Read(data)
	p, began := NewPending(), make(chan []byte)
	go func() {
		defer close(began)
		if _, err := p.Reach(t.Context(), 1<<20); err != nil {
			return
		}
		start := make([]byte, 1<<20)
		if _, err := p.ReadAt(start, 0); err == nil {
			began <- start
		}
	}()
	var start []byte
	blob, err := Compression{}.Fill(t.Context(), p, t.TempDir(), func(w io.Writer) error {
		if _, err := w.Write(data); err != nil {
			return err
		}
		start = <-began // before the end
		assert.Check(t, p.Blob() == nil)
		_, err := w.Write(data)
		return err
	})
	assert.NilError(t, err)
	defer blob.Close()

	desc, err := p.Wait(t.Context())
	assert.NilError(t, err)
	assert.DeepEqual(t, desc, blob.Descriptor)
	assert.Equal(t, p.Blob(), blob)
	whole, err := io.ReadAll(io.NewSectionReader(p, 0, desc.Size))
	assert.NilError(t, err)
	assert.Equal(t, desc.Digest.Algorithm().FromBytes(whole), desc.Digest)
	assert.Assert(t, len(start) > 0 && bytes.Equal(start, whole[:len(start)]))
	_, err = p.ReadAt(make([]byte, 1), desc.Size)
	assert.Equal(t, err, io.EOF)
	larger, err := p.Reach(t.Context(), desc.Size)
	assert.NilError(t, err)
	assert.Assert(t, !larger)
}

func TestPending_of_a_layer_that_cannot_be_made(t *testing.T) {
	t.Parallel()
	p, broken := NewPending(), errors.New("the disk is broken")
	read := make(chan error)
	go func() {
		_, err := p.ReadAt(make([]byte, 1<<20), 0)
		read <- err
	}()
	_, err := Compression{}.Fill(t.Context(), p, t.TempDir(), func(io.Writer) error { return broken })
	assert.ErrorIs(t, err, broken)
	assert.ErrorIs(t, <-read, broken)
	_, err = p.Wait(t.Context())
	assert.ErrorIs(t, err, broken)
	_, err = p.Reach(t.Context(), 0)
	assert.ErrorIs(t, err, broken)
}

func TestPending_waiting_can_be_cancelled(t *testing.T) {
	t.Parallel()
	p := NewPending()
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("enough")
	go cancel(stop)
	_, err := p.Wait(ctx)
	assert.ErrorIs(t, err, stop)
	_, err = p.Reach(ctx, 0)
	assert.ErrorIs(t, err, stop)
}
