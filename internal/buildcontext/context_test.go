package buildcontext

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

func TestOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "Dockerfile", "FROM scratch\n")
	for name, location := range map[string]string{
		"path":           dir,
		"trailing_slash": dir + "/",
		"dir_url":        "dir://" + dir,
		"file_url":       "file://" + dir,
		"file_localhost": "file://localhost" + dir,
		"upper_case":     "FILE://" + dir,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := open(t, location)
			data, err := c.ReadFile("Dockerfile")
			assert.NilError(t, err)
			assert.Equal(t, string(data), "FROM scratch\n")
		})
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "file", "")
	for name, tc := range map[string]struct {
		location, text string
		is             error
	}{
		"empty":        {"", "no context given", nil},
		"missing":      {dir + "/nope", dir + "/nope does not exist", fs.ErrNotExist},
		"file":         {dir + "/file", "is not a directory: give the directory that the file is in", syscall.ENOTDIR},
		"below_file":   {dir + "/file/x", "is not a directory", syscall.ENOTDIR},
		"stdin":        {"-", "standard input", ErrUnsupported},
		"git":          {"git://host/repo.git#main", "a git:// context is not supported in this version: clone", ErrUnsupported},
		"scp":          {"git@host:org/repo.git", "clone", ErrUnsupported},
		"https":        {"https://user:hunter2@host/x.tar.gz", "a https:// context is not supported", ErrUnsupported},
		"s3":           {"s3://bucket/key.tar.gz", "download and unpack it first", ErrUnsupported},
		"tar":          {"tar://ctx.tar.gz", "unpack the archive", ErrUnsupported},
		"file_host":    {"file://elsewhere/x", "file:///path/to/directory", nil},
		"file_no_path": {"file://", "file:///path/to/directory", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(tc.location)
			assert.ErrorContains(t, err, tc.text)
			if tc.is != nil {
				assert.ErrorIs(t, err, tc.is)
			}
		})
	}
	t.Run("password_stays_out", func(t *testing.T) {
		t.Parallel()
		_, err := Open("https://user:hunter2@host/x.tar.gz")
		assert.Assert(t, !strings.Contains(err.Error(), "hunter2"))
	})
}

func TestReadFile(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	write(t, outside, "secret", "outside")
	dir := t.TempDir()
	write(t, dir, "a/file", "inside")
	write(t, dir, "secret", "the context's own")
	link(t, dir, "a/file", "relative")
	link(t, dir, "/a/file", "absolute")
	link(t, dir, "../../../../../../../../../../secret", "climbs")
	link(t, dir, outside+"/secret", "escapes")
	link(t, dir, "loop", "loop")
	assert.NilError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	c := open(t, dir)

	for name, tc := range map[string]struct{ file, want, err string }{
		"plain":         {file: "a/file", want: "inside"},
		"leading_slash": {file: "/a/file", want: "inside"},
		"dots":          {file: "a/../../a/file", want: "inside"},
		"relative_link": {file: "relative", want: "inside"},
		"absolute_link": {file: "absolute", want: "inside"},
		"climbing_link": {file: "climbs", want: "the context's own"},
		"escaping_link": {file: "escapes", err: "open escapes: no such file"},
		"loop":          {file: "loop", err: "too many links"},
		"fifo":          {file: "fifo", err: "neither a file nor a directory"},
		"missing":       {file: "nope", err: "open nope: no such file or directory"},
		"directory":     {file: "a", err: "is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := c.ReadFile(tc.file)
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
				return
			}
			assert.NilError(t, err)
			assert.Equal(t, string(data), tc.want)
		})
	}
	t.Run("missing_is_not_exist", func(t *testing.T) {
		t.Parallel()
		_, err := c.ReadFile("a/nope")
		assert.ErrorIs(t, err, fs.ErrNotExist)
	})
}

func TestFSLists(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "sub/b", "")
	write(t, dir, "sub/a", "")
	link(t, dir, "/sub", "abs")
	c := open(t, dir)
	entries, err := fs.ReadDir(c.FS(), "abs")
	assert.NilError(t, err)
	assert.Equal(t, len(entries), 2)
	assert.Equal(t, entries[0].Name(), "a")
	info, err := fs.Stat(c.FS(), "abs")
	assert.NilError(t, err)
	assert.Assert(t, info.IsDir())
}

// An in-place build moves the directory that holds the context out of the way.
func TestContextSurvivesMove(t *testing.T) {
	needRoot(t)
	t.Parallel()
	parent := t.TempDir()
	dir := filepath.Join(parent, "ctx")
	write(t, dir, "sub/file", "data")
	c := open(t, dir)
	assert.NilError(t, os.Rename(dir, filepath.Join(parent, "moved")))

	data, err := c.ReadFile("sub/file")
	assert.NilError(t, err)
	assert.Equal(t, string(data), "data")
	dst := t.TempDir()
	assert.NilError(t, c.Materialize(t.Context(), dst, Selection{}))
	assert.Equal(t, read(t, dst, "sub/file"), "data")
}
