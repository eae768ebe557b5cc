package buildcontext

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// Two checkouts of the same files are one archive, whatever their times and owners.
func TestWriteTar(t *testing.T) {
	t.Parallel()
	pack := func(hour int) ([]byte, []int64) {
		dir := t.TempDir()
		write(t, dir, "b", "text")
		write(t, dir, "a/x", "")
		link(t, dir, "b", "l")
		at := time.Unix(int64(hour)*3600, 5)
		for _, name := range []string{"b", "a/x", "a"} {
			assert.NilError(t, os.Chtimes(filepath.Join(dir, name), at, at))
		}
		if os.Geteuid() == 0 {
			assert.NilError(t, os.Chown(filepath.Join(dir, "b"), hour, hour))
		}
		var out bytes.Buffer
		var times []int64
		assert.NilError(t, open(t, dir).WriteTar(t.Context(), &out, Selection{Exclude: []string{"l"}}, func(at int64) { times = append(times, at) }))
		return out.Bytes(), times
	}
	first, times := pack(1)
	second, later := pack(2)
	assert.Check(t, bytes.Equal(first, second))
	assert.Check(t, is.DeepEqual(times, []int64{3600_000_000_005, 3600_000_000_005, 3600_000_000_005}))
	assert.Check(t, later[0] == 7200_000_000_005)
	var names []string
	for r := tar.NewReader(bytes.NewReader(first)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		assert.NilError(t, err)
		names = append(names, h.Name)
		assert.Check(t, h.ModTime.Unix() == 0 && h.Uid == 0 && h.Gid == 0, "%+v", h)
	}
	assert.Check(t, is.DeepEqual(names, []string{"a/", "a/x", "b"}))
}

// changing is a writer that changes a file when the first bytes of an archive come.
type changing struct{ change func() }

func (c *changing) Write(p []byte) (int, error) {
	if c.change != nil {
		c.change()
	}
	c.change = nil
	return len(p), nil
}

func TestWriteTar_changing(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		size int64
		want string
	}{
		{"grows", 10, ""},
		{"shrinks", 1, "log became shorter while the context was read"},
		{"empty", 0, "log became shorter while the context was read"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, "log", "four")
			w := &changing{func() { assert.Check(t, os.Truncate(filepath.Join(dir, "log"), tc.size)) }}
			err := open(t, dir).WriteTar(t.Context(), w, Selection{}, func(int64) {})
			if tc.want == "" {
				assert.NilError(t, err)
				return
			}
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

func TestContains(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	dir := filepath.Join(top, "context")
	write(t, dir, "file", "")
	write(t, dir, "sub/file", "")
	write(t, top, "outside", "")
	link(t, dir, "file", "link")
	link(t, dir, "../outside", "out")
	link(t, dir, "sub", "linked")
	link(t, top, "context", "other-name")
	for _, tc := range []struct {
		name, file, want string
	}{
		{"file", "context/file", "file"},
		{"below", "context/sub/file", "sub/file"},
		{"linked_directory", "context/linked/file", "sub/file"},
		{"other_name_of_the_context", "other-name/file", "file"},
		{"link", "context/link", ""},
		{"link_out", "context/out", ""},
		{"outside", "outside", ""},
		{"directory", "context/sub", ""},
		{"absent", "context/absent", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			name, ok := open(t, dir).Contains(filepath.Join(top, tc.file))
			assert.Check(t, is.Equal(ok, tc.want != ""))
			if ok {
				assert.Check(t, is.Equal(name, tc.want))
			}
		})
	}
}
