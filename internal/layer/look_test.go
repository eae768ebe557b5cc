package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

// Files that are read before their turn are in the tar like others, in order.
func TestWrite_many(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	var changes []Change
	sizes := []int{0, 1, 511, 512, smallSize - 1, smallSize, smallSize + 1}
	want := map[string][]byte{}
	for i := range 5*batchSize + 1 {
		name := fmt.Sprintf("f%04d", i)
		data := bytes.Repeat([]byte{byte(i)}, sizes[i%len(sizes)])
		assert.NilError(t, os.WriteFile(filepath.Join(root, name), data, 0o644))
		want[name] = data
		changes = append(changes, Change{Path: name}, Change{Path: "gone-" + name, Kind: Delete})
	}
	assert.NilError(t, os.Link(filepath.Join(root, "f0001"), filepath.Join(root, "linked")))
	changes = append(changes, Change{Path: "linked"})
	var first bytes.Buffer
	for range 5 {
		var buf bytes.Buffer
		assert.NilError(t, Write(t.Context(), &buf, root, changes, WriteOptions{}))
		if first.Len() == 0 {
			first = buf
		}
		assert.Assert(t, bytes.Equal(buf.Bytes(), first.Bytes()))
	}
	last, files := "", 0
	for r := tar.NewReader(&first); ; {
		hdr, err := r.Next()
		if err == io.EOF {
			break
		}
		assert.NilError(t, err)
		assert.Assert(t, hdr.Name > last || hdr.Name[:4] == ".wh.", hdr.Name)
		if hdr.Typeflag == tar.TypeLink {
			assert.Equal(t, hdr.Linkname, "f0001")
			continue
		}
		if data, ok := want[hdr.Name]; ok {
			last = hdr.Name
			files++
			got, err := io.ReadAll(r)
			assert.NilError(t, err)
			assert.Assert(t, bytes.Equal(got, data), hdr.Name)
		}
	}
	assert.Equal(t, files, len(want))
}

func TestWrite_many_ends_early(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	var changes []Change
	for i := range 20 * batchSize {
		name := fmt.Sprintf("f%04d", i)
		assert.NilError(t, os.WriteFile(filepath.Join(root, name), []byte(name), 0o644))
		changes = append(changes, Change{Path: name})
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	assert.ErrorIs(t, Write(ctx, writeFunc(func(p []byte) (int, error) {
		cancel(why)
		return len(p), nil
	}), root, changes, WriteOptions{}), why)
	assert.ErrorIs(t, Write(t.Context(), writeFunc(func([]byte) (int, error) { return 0, why }), root, changes, WriteOptions{}), why)
	assert.NilError(t, os.Remove(filepath.Join(root, changes[300].Path)))
	err := Write(t.Context(), io.Discard, root, changes, WriteOptions{})
	assert.ErrorIs(t, err, os.ErrNotExist)
	assert.ErrorContains(t, err, `adding "f0300" to the layer`)
}

type writeFunc func([]byte) (int, error)

func (w writeFunc) Write(p []byte) (int, error) { return w(p) }
