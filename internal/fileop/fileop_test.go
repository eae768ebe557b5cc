package fileop

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/graph"
)

// tree makes a directory tree. A spec is "name=content" for a file, "name/" for
// a directory, "name>target" for a symbolic link. ":mode" may follow a name.
func tree(t *testing.T, specs ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, spec := range specs {
		i := strings.IndexAny(spec, "=>")
		name, rest := spec, ""
		if i >= 0 {
			name, rest = spec[:i], spec[i+1:]
		}
		name, mode, hasMode := strings.Cut(name, ":")
		p := filepath.Join(root, name)
		assert.NilError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		switch {
		case i < 0:
			assert.NilError(t, os.MkdirAll(p, 0o755))
		case spec[i] == '>':
			assert.NilError(t, os.Symlink(rest, p))
		default:
			assert.NilError(t, os.WriteFile(p, []byte(rest), 0o644))
		}
		if hasMode {
			var m uint32
			_, err := fmt.Sscanf(mode, "%o", &m)
			assert.NilError(t, err)
			assert.NilError(t, unix.Chmod(p, m))
		}
	}
	return root
}

// show lists a tree in the syntax of tree, without modes.
func show(t *testing.T, root string) string {
	t.Helper()
	var out []string
	assert.NilError(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		name := strings.TrimPrefix(p, root+"/")
		switch {
		case d.IsDir():
			name += "/"
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			assert.NilError(t, err)
			name += ">" + target
		case d.Type().IsRegular():
			data, err := os.ReadFile(p)
			assert.NilError(t, err)
			name += "=" + string(data)
		default:
			name += "!" + d.Type().String()
		}
		out = append(out, name)
		return nil
	}))
	slices.Sort(out)
	return strings.Join(out, " ")
}

func lstat(t *testing.T, parts ...string) (fs.FileInfo, *syscall.Stat_t) {
	t.Helper()
	fi, err := os.Lstat(filepath.Join(parts...))
	assert.NilError(t, err)
	return fi, fi.Sys().(*syscall.Stat_t)
}

// owns is "uid:gid".
func owns(t *testing.T, parts ...string) string {
	t.Helper()
	_, st := lstat(t, parts...)
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}

func setTime(t *testing.T, when time.Time, parts ...string) {
	t.Helper()
	ts := unix.NsecToTimespec(when.UnixNano())
	assert.NilError(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(parts...), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes devices and foreign owners")
	}
}

var (
	longAgo = time.Unix(1_000_000_000, 5)
	epoch   = time.Unix(1_600_000_000, 0)
)

func TestApplyResolvesOwners(t *testing.T) {
	needRoot(t)
	t.Parallel()
	base := tree(t, "etc/passwd=app:x:12:34::/:/bin/sh\n")
	src := tree(t, "f=data")
	owner := &graph.Owner{User: &graph.Identity{Name: "app", Input: 7}}
	inputs := func(input int) (string, error) {
		assert.Equal(t, input, 7)
		return base, nil
	}
	dst := t.TempDir()
	for _, change := range []graph.FileChange{
		&graph.Copy{Src: "f", Dest: "/copy", Owner: owner},
		&graph.Mkfile{Path: "/file", Mode: 0o600, Owner: owner},
		&graph.Mkdir{Path: "/dir", Mode: 0o700, Owner: owner},
		&graph.Symlink{Path: "/link", Target: "x", Owner: owner},
	} {
		assert.NilError(t, Apply(t.Context(), dst, Source{Dir: src}, change, inputs, nil))
	}
	for _, name := range []string{"copy", "file", "dir", "link"} {
		assert.Equal(t, owns(t, dst, name), "12:34", name)
	}
	assert.NilError(t, Apply(t.Context(), dst, Source{}, &graph.Remove{Path: "/dir"}, nil, nil))
	assert.Equal(t, show(t, dst), "copy=data file= link>x")

	nobody := &graph.Owner{User: &graph.Identity{Name: "nobody", Input: graph.None}}
	for _, change := range []graph.FileChange{
		&graph.Copy{Src: "f", Dest: "/new", Owner: nobody},
		&graph.Mkfile{Path: "/new", Owner: nobody},
		&graph.Mkdir{Path: "/new", Owner: nobody},
		&graph.Symlink{Path: "/new", Target: "x", Owner: nobody},
	} {
		assert.ErrorContains(t, Apply(t.Context(), dst, Source{Dir: src}, change, inputs, nil), `user "nobody": the image has no files`)
	}
	assert.Equal(t, show(t, dst), "copy=data file= link>x")
}

func TestErrorsHideWhereTreesAre(t *testing.T) {
	t.Parallel()
	dst := tree(t, "file=", "dir/")
	src := tree(t, "d/x=")
	for name, err := range map[string]error{
		"copy":    Copy(context.Background(), dst, src, &graph.Copy{Src: "/d", Dest: "/file", ContentsOnly: true}, nil, nil),
		"mkfile":  Mkfile(dst, &graph.Mkfile{Path: "/nope/x"}, nil),
		"mkdir":   Mkdir(dst, &graph.Mkdir{Path: "/nope/x"}, nil),
		"symlink": Symlink(dst, &graph.Symlink{Path: "/file", Target: "x"}, nil),
		"remove":  Remove(dst, &graph.Remove{Path: "/nope"}),
	} {
		assert.Assert(t, err != nil, name)
		assert.Assert(t, !strings.Contains(err.Error(), dst) && !strings.Contains(err.Error(), src), "%s: %v", name, err)
	}
}
