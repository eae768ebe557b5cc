package buildcontext

import (
	"context"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

func TestMaterializeSelects(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir := t.TempDir()
	for _, f := range []string{
		"Dockerfile", "main.go", "README.md", "docs/a.md", "docs/keep/b.md",
		"node_modules/x/index.js", "node_modules/x/keep.js", "src/app/app.go", "src/app/app_test.go", "real/target", "real/other",
	} {
		write(t, dir, f, f)
	}
	link(t, dir, "real/target", "rel")
	link(t, dir, "/real", "dirlink")
	link(t, dir, "nowhere", "dangling")
	c := open(t, dir)

	for name, tc := range map[string]struct {
		sel  Selection
		want string
	}{
		"exclude": {
			Selection{Exclude: []string{"**/*.md", "node_modules", "src", "real", "rel", "d*"}},
			"Dockerfile main.go",
		},
		"negation": {
			Selection{Exclude: []string{"*", "!docs", "docs/*", "!docs/keep"}},
			"docs/ docs/keep/ docs/keep/b.md",
		},
		"negation_of_a_file_below_an_excluded_directory": {
			Selection{Exclude: []string{"*", "!node_modules/x/keep.js"}},
			"node_modules/ node_modules/x/ node_modules/x/keep.js",
		},
		"negation_is_undone_by_a_later_pattern": {
			Selection{Exclude: []string{"*", "!docs/**", "**/b.md"}},
			"docs/ docs/a.md docs/keep/",
		},
		"include": {
			Selection{Include: []string{"src/app/*.go"}, Exclude: []string{"**/*_test.go"}},
			"src/ src/app/ src/app/app.go",
		},
		"follow_link_to_file": {
			Selection{FollowPaths: []string{"rel"}},
			"real/ real/target rel",
		},
		"follow_path_through_link": {
			Selection{FollowPaths: []string{"dirlink/other"}},
			"dirlink real/ real/other",
		},
		"follow_wildcard": {
			Selection{FollowPaths: []string{"re*"}},
			"real/ real/other real/target rel",
		},
		"follow_missing_and_dangling": {
			Selection{FollowPaths: []string{"nope/x", "dangling", "main.go"}},
			"dangling main.go",
		},
		"follow_below_a_file": {
			Selection{FollowPaths: []string{"main.go/x", "Dockerfile"}},
			"Dockerfile",
		},
		"follow_and_exclude": {
			Selection{FollowPaths: []string{"docs", "main.go"}, Exclude: []string{"docs/keep"}},
			"docs/ docs/a.md main.go",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dst := t.TempDir()
			assert.NilError(t, c.Materialize(t.Context(), dst, tc.sel))
			assert.Equal(t, list(t, dst), tc.want)
			for _, f := range strings.Fields(tc.want) {
				if fi, err := os.Lstat(filepath.Join(dst, f)); err == nil && fi.Mode().IsRegular() {
					assert.Equal(t, read(t, dst, f), f)
				}
			}
		})
	}
}

func TestMaterializeMetadata(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir := t.TempDir()
	when := time.Unix(1_600_000_000, 123_456_789)
	write(t, dir, "file", "0123456789")
	assert.NilError(t, os.Chmod(filepath.Join(dir, "file"), 0o666|fs.ModeSetuid))
	assert.NilError(t, os.Lchown(filepath.Join(dir, "file"), 12, 34))
	// chown clears it
	assert.NilError(t, os.Chmod(filepath.Join(dir, "file"), 0o666|fs.ModeSetuid))
	assert.NilError(t, unix.Setxattr(filepath.Join(dir, "file"), "user.note", []byte("hi"), 0))
	write(t, dir, "d/inner", "")
	assert.NilError(t, os.Chmod(filepath.Join(dir, "d"), 0o777|fs.ModeSticky))
	link(t, dir, "/absolute/../as is", "link")
	assert.NilError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o622))
	assert.NilError(t, os.Chmod(filepath.Join(dir, "fifo"), 0o622))
	assert.NilError(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))))
	assert.NilError(t, os.Chmod(filepath.Join(dir, "null"), 0o644))
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, "sock"))
	assert.NilError(t, err)
	t.Cleanup(func() { l.Close() })
	assert.NilError(t, os.Link(filepath.Join(dir, "file"), filepath.Join(dir, "hard")))
	for _, f := range []string{"file", "link", "d"} {
		ts := unix.NsecToTimespec(when.UnixNano())
		assert.NilError(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, f), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}

	dst := t.TempDir()
	assert.NilError(t, open(t, dir).Materialize(t.Context(), dst, Selection{}))
	assert.Equal(t, list(t, dst), "d/ d/inner fifo file hard link null")

	for name, mode := range map[string]fs.FileMode{
		"file": 0o666 | fs.ModeSetuid,
		"d":    0o777 | fs.ModeSticky | fs.ModeDir,
		"fifo": 0o622 | fs.ModeNamedPipe,
		"null": 0o644 | fs.ModeDevice | fs.ModeCharDevice,
	} {
		fi, err := os.Lstat(filepath.Join(dst, name))
		assert.NilError(t, err)
		assert.Equal(t, fi.Mode(), mode, name)
		st := fi.Sys().(*syscall.Stat_t)
		assert.Equal(t, st.Uid+st.Gid, uint32(0), name)
		if name == "null" {
			assert.Equal(t, uint64(st.Rdev), unix.Mkdev(1, 3))
		}
	}
	for _, name := range []string{"file", "link", "d"} {
		fi, err := os.Lstat(filepath.Join(dst, name))
		assert.NilError(t, err)
		assert.Assert(t, fi.ModTime().Equal(when), "%s: %s", name, fi.ModTime())
	}
	target, err := os.Readlink(filepath.Join(dst, "link"))
	assert.NilError(t, err)
	assert.Equal(t, target, "/absolute/../as is")
	buf := make([]byte, 16)
	n, err := unix.Getxattr(filepath.Join(dst, "file"), "user.note", buf)
	assert.NilError(t, err)
	assert.Equal(t, string(buf[:n]), "hi")
	one, err := os.Stat(filepath.Join(dst, "file"))
	assert.NilError(t, err)
	two, err := os.Stat(filepath.Join(dst, "hard"))
	assert.NilError(t, err)
	assert.Assert(t, os.SameFile(one, two))
}

func TestMaterializeHardLinkWithoutItsFirstName(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a", "shared")
	for _, f := range []string{"b", "c"} {
		assert.NilError(t, os.Link(filepath.Join(dir, "a"), filepath.Join(dir, f)))
	}
	dst := t.TempDir()
	assert.NilError(t, open(t, dir).Materialize(t.Context(), dst, Selection{Exclude: []string{"a"}}))
	assert.Equal(t, list(t, dst), "b c")
	assert.Equal(t, read(t, dst, "b"), "shared")
	assert.Equal(t, read(t, dst, "c"), "shared")
}

func TestVanishing(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ remove, want string }{
		"file":      {"b", "b disappeared while the context was read"},
		"directory": {"c", "c disappeared while the context was read"},
		"excluded":  {"x", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, f := range []string{"a", "b", "c/d", "x", "z"} {
				write(t, dir, f, "")
			}
			files, err := open(t, dir).selected(Selection{Exclude: []string{"x"}})
			assert.NilError(t, err)
			var seen []string
			err = files.Walk(t.Context(), "", func(p string, _ fs.DirEntry, err error) error {
				seen = append(seen, p)
				if p == "a" { // the directory has been listed by now
					assert.Check(t, os.RemoveAll(filepath.Join(dir, tc.remove)))
				}
				return err
			})
			if tc.want != "" {
				assert.ErrorContains(t, err, tc.want)
				return
			}
			assert.NilError(t, err)
			assert.DeepEqual(t, seen, []string{"a", "b", "c", "c/d", "z"})
		})
	}
	t.Run("before_its_content_is_read", func(t *testing.T) {
		t.Parallel()
		err := open(t, t.TempDir()).copyTo(t.Context(), "gone", nil)
		assert.ErrorContains(t, err, "gone disappeared")
	})
}

func TestMaterializeIntoItself(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "file", "")
	dst := filepath.Join(dir, "store", "tree")
	assert.NilError(t, os.MkdirAll(dst, 0o755))
	c := open(t, dir)
	assert.ErrorContains(t, c.Materialize(t.Context(), dst, Selection{}), "store/tree is where the build works")

	assert.NilError(t, os.RemoveAll(dst))
	assert.NilError(t, os.MkdirAll(dst, 0o755))
	assert.NilError(t, c.Materialize(t.Context(), dst, Selection{Exclude: []string{"store"}}))
	assert.Equal(t, list(t, dst), "file")
}

func TestMaterializeCancelled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "file", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, open(t, dir).Materialize(ctx, t.TempDir(), Selection{}), context.Canceled)
}

func TestMaterializeBadPattern(t *testing.T) {
	t.Parallel()
	err := open(t, t.TempDir()).Materialize(t.Context(), t.TempDir(), Selection{Exclude: []string{"[a"}})
	assert.ErrorContains(t, err, "syntax error in pattern")
}

func open(t *testing.T, location string) *Context {
	t.Helper()
	c, err := Open(location)
	assert.NilError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func write(t *testing.T, dir, name, data string) {
	t.Helper()
	p := filepath.Join(dir, name)
	assert.NilError(t, os.MkdirAll(filepath.Dir(p), 0o755))
	assert.NilError(t, os.WriteFile(p, []byte(data), 0o644))
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	assert.NilError(t, err)
	return string(data)
}

func link(t *testing.T, dir, target, name string) {
	t.Helper()
	assert.NilError(t, os.Symlink(target, filepath.Join(dir, name)))
}

// list names everything below dir, directories with a slash.
func list(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	assert.NilError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if d.IsDir() {
			name += "/"
		}
		names = append(names, name)
		return err
	}))
	slices.Sort(names)
	return strings.Join(names, " ")
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: what is copied belongs to 0:0")
	}
}

// What logs in to a registry is in no image, even where a job keeps it in its
// workspace.
func TestMaterializeHides(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir, dst := t.TempDir(), t.TempDir()
	write(t, dir, "docker/config.json", "secret")
	write(t, dir, "app/config.json", "public")
	c := open(t, dir)
	c.Hide(filepath.Join(dir, "docker", "config.json"))
	c.Hide(filepath.Join(dir, "missing"))
	assert.NilError(t, c.Materialize(t.Context(), dst, Selection{}))
	_, err := os.Stat(filepath.Join(dst, "docker", "config.json"))
	assert.ErrorIs(t, err, fs.ErrNotExist)
	data, err := os.ReadFile(filepath.Join(dst, "app", "config.json"))
	assert.NilError(t, err)
	assert.Equal(t, string(data), "public")
}
