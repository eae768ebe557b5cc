package buildcontext

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/filetree"
)

// tree has every kind of file that a context can have.
func listingTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"d", "d/sub", "d/empty", "sub-x", "ignored"} {
		assert.NilError(t, os.Mkdir(at(d), 0o755))
	}
	for name, text := range map[string]string{"a": "a", "d/b": "b", "d/sub/c": "c", "d/sub.x": "x", "sub-x/f": "", "ignored/y": "y", "é è": "?"} {
		assert.NilError(t, os.WriteFile(at(name), []byte(text), 0o600))
	}
	assert.NilError(t, os.Chmod(at("d/sub"), 0o750|os.ModeSetgid))
	assert.NilError(t, os.Chmod(at("a"), 0o755|os.ModeSetuid))
	assert.NilError(t, os.Link(at("ignored/y"), at("z1")))
	assert.NilError(t, os.Link(at("ignored/y"), at("z2")))
	assert.NilError(t, os.Symlink("d/sub", at("link")))
	assert.NilError(t, os.Symlink("/none", at("d/dangling")))
	assert.NilError(t, unix.Mkfifo(at("pipe"), 0o640))
	l, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	assert.NilError(t, err)
	defer syscall.Close(l)
	assert.NilError(t, syscall.Bind(l, &syscall.SockaddrUnix{Name: at("socket")}))
	return dir
}

// What is listed is what a copy has.
func TestList_is_as_the_copy(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root: a copy belongs to root")
	}
	for name, sel := range map[string]Selection{
		"all":      {},
		"excluded": {Exclude: []string{"ignored", "d/*", "!d/sub"}},
		"included": {Include: []string{"d/sub/c", "z2"}},
		"followed": {FollowPaths: []string{"link", "z1", "none"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := Open(listingTree(t))
			assert.NilError(t, err)
			t.Cleanup(func() { _ = c.Close() })
			dst := t.TempDir()
			assert.NilError(t, os.Chmod(dst, 0o755))
			assert.NilError(t, c.Materialize(t.Context(), dst, sel))
			l, err := c.List(t.Context(), dst, sel)
			assert.NilError(t, err)
			want, got := map[string]filetree.Stat{}, map[string]filetree.Stat{}
			same(t, filetree.Dir(dst), "/", want)
			same(t, l, "/", got)
			assert.Check(t, is.DeepEqual(got, want))
			assert.Check(t, len(got) > 3, got)
		})
	}
}

// same collects all files below name, in place of what identifies hard links
// whether there are any, and in place of the target of a file its content.
func same(t *testing.T, tree filetree.Tree, name string, all map[string]filetree.Stat) {
	t.Helper()
	st, err := tree.Lstat(name)
	assert.NilError(t, err)
	s := *st
	if s.Links != nil {
		s.Links = true
	}
	if s.IsRegular() {
		f, err := tree.Open(name)
		assert.NilError(t, err)
		buf := make([]byte, 10)
		n, _ := f.Read(buf)
		assert.NilError(t, f.Close())
		s.Target = string(buf[:n])
	}
	all[name] = s
	if !s.IsDir() {
		return
	}
	names, err := tree.ReadDir(name)
	assert.NilError(t, err)
	for _, n := range names {
		same(t, tree, filepath.Join(name, n), all)
	}
}

func TestList_notices_changes(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(dir string) error{
		"content_with_old_times": func(dir string) error {
			fi, err := os.Stat(dir + "/a")
			if err == nil {
				err = os.WriteFile(dir+"/a", []byte("b"), 0o644)
			}
			if err == nil {
				err = os.Chtimes(dir+"/a", fi.ModTime(), fi.ModTime())
			}
			return err
		},
		"new":      func(dir string) error { return os.WriteFile(dir+"/new", nil, 0o644) },
		"removed":  func(dir string) error { return os.Remove(dir + "/d/b") },
		"replaced": func(dir string) error { return os.Rename(dir+"/d/b", dir+"/a") },
		"mode":     func(dir string) error { return os.Chmod(dir+"/d", 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, work := listingTree(t), t.TempDir()
			c, err := Open(dir)
			assert.NilError(t, err)
			t.Cleanup(func() { _ = c.Close() })
			l, err := c.List(t.Context(), work, Selection{Exclude: []string{"ignored"}})
			assert.NilError(t, err)
			assert.NilError(t, os.WriteFile(dir+"/ignored/new", nil, 0o644))
			ok, err := l.Unchanged(t.Context(), work)
			assert.NilError(t, err)
			assert.Check(t, ok)
			assert.NilError(t, change(dir))
			ok, err = l.Unchanged(t.Context(), work)
			assert.NilError(t, err)
			assert.Check(t, !ok)
		})
	}
}

// What only a copy can tell is not listed, and where the build works neither.
func TestList_refuses(t *testing.T) {
	t.Parallel()
	dir, work := listingTree(t), t.TempDir()
	c, err := Open(dir)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	_, err = c.List(t.Context(), dir+"/d/sub", Selection{})
	assert.Check(t, is.ErrorContains(err, "where the build works"))
	if err := unix.Setxattr(dir+"/a", "user.x", []byte("1"), 0); err == nil {
		l, err := c.List(t.Context(), work, Selection{})
		assert.NilError(t, err)
		assert.Check(t, l == nil)
		l, err = c.List(t.Context(), work, Selection{Exclude: []string{"a"}})
		assert.NilError(t, err)
		assert.Check(t, l != nil)
	}
}

// A file that was written just now could be written again at the same time.
func TestList_waits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(dir+"/a", nil, 0o644))
	c, err := Open(dir)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	l, err := c.List(t.Context(), t.TempDir(), Selection{})
	assert.NilError(t, err)
	assert.Check(t, time.Since(l.newest) >= tick)
}
