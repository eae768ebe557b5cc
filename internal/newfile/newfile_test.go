package newfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	assert.NilError(t, err)
	return string(data)
}

// alone makes sure that nothing is left beside the files that are meant.
func alone(t *testing.T, dir string, files int) {
	t.Helper()
	list, err := os.ReadDir(dir)
	assert.NilError(t, err)
	assert.Equal(t, len(list), files)
}

func TestWrite(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "deep/er/file")
	for _, content := range []string{"a longer one", "short"} {
		assert.NilError(t, Write(name, text(content)))
		assert.Equal(t, read(t, name), content)
	}
	info, err := os.Stat(name)
	assert.NilError(t, err)
	assert.Equal(t, info.Mode(), os.FileMode(0o644))
	alone(t, filepath.Dir(name), 1)
}

func TestWrite_failure_leaves_what_was_there(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	half := func(w io.Writer) error { return errors.Join(text("half of it")(w), errors.New("the rest is missing")) }
	assert.ErrorContains(t, Write(name, half), "the rest is missing")
	alone(t, dir, 0)
	assert.NilError(t, Write(name, text("before")))
	assert.ErrorContains(t, Write(name, half), "the rest is missing")
	assert.Equal(t, read(t, name), "before")
	alone(t, dir, 1)
}

func TestWrite_links_stay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	link, target := filepath.Join(dir, "link"), filepath.Join(dir, "target")
	assert.NilError(t, os.Symlink("target", link))
	assert.NilError(t, Write(link, text("content")))
	assert.Equal(t, read(t, target), "content")
	to, err := os.Readlink(link)
	assert.NilError(t, err)
	assert.Equal(t, to, "target")
}

func TestPut(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "file")
	assert.NilError(t, Put(name, []byte("content")))
	assert.Equal(t, read(t, name), "content")
	assert.NilError(t, Put(os.DevNull, []byte("content")))
	assert.Assert(t, Put(filepath.Join(name, "below-a-file"), nil) != nil)
}

func TestWrite_pipe(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "pipe")
	assert.NilError(t, unix.Mkfifo(name, 0o600))
	written := make(chan error, 1)
	go func() { written <- Write(name, text("content")) }()
	assert.Equal(t, read(t, name), "content")
	assert.NilError(t, <-written)
}

// A file that is mounted cannot be replaced: /dev/termination-log.
func TestWrite_mounted_file(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name, source := filepath.Join(dir, "file"), filepath.Join(t.TempDir(), "source")
	for _, f := range []string{name, source} {
		assert.NilError(t, os.WriteFile(f, []byte("something longer"), 0o644))
	}
	if err := unix.Mount(source, name, "", unix.MS_BIND, ""); err != nil {
		t.Skip("needs root and its right to mount: ", err)
	}
	t.Cleanup(func() { assert.NilError(t, unix.Unmount(name, unix.MNT_DETACH)) })
	assert.NilError(t, Write(name, text("content")))
	assert.Equal(t, read(t, source), "content")
	alone(t, dir, 1)
}
