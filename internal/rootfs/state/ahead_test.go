package state

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"testing"
	"testing/iotest"

	"gotest.tools/v3/assert"
)

func TestReadAhead(t *testing.T) {
	t.Parallel()
	broken := errors.New("the network is broken")
	for _, tc := range []struct {
		name string
		size int
		end  error
	}{
		{"nothing", 0, io.EOF},
		{"one_byte", 1, io.EOF},
		{"one_piece", aheadSize, io.EOF},
		{"many_pieces", 11*aheadSize + 17, io.EOF},
		{"broken_at_once", 0, broken},
		{"broken_between", 3 * aheadSize, broken},
		{"broken_within", 9*aheadSize + 3, broken},
		{"cut_short", 5, io.ErrUnexpectedEOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			want := make([]byte, tc.size)
			rand.New(rand.NewSource(1)).Read(want)
			from := io.Reader(bytes.NewReader(want))
			if tc.end != io.EOF {
				from = io.MultiReader(from, iotest.ErrReader(tc.end))
			}
			r, stop := readAhead(iotest.HalfReader(from))
			defer stop()
			var got bytes.Buffer
			_, err := io.CopyBuffer(&got, struct{ io.Reader }{r}, make([]byte, 1000))
			if tc.end == io.EOF {
				assert.NilError(t, err)
			} else {
				assert.ErrorIs(t, err, tc.end)
			}
			assert.Assert(t, bytes.Equal(got.Bytes(), want))
		})
	}
}

func TestReadAhead_stops(t *testing.T) {
	t.Parallel()
	r, stop := readAhead(rand.New(rand.NewSource(1)))
	_, err := io.ReadFull(r, make([]byte, 3*aheadSize))
	assert.NilError(t, err)
	stop()
}
