package fileop

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/graph"
)

// details is all that a layer would have of a tree but the times of what was made
// just now, and the inodes.
func details(t *testing.T, dir string) (list []string, inodes map[string]uint64) {
	t.Helper()
	inodes = map[string]uint64{}
	first := map[uint64]string{}
	assert.NilError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		fi, err := d.Info()
		assert.NilError(t, err)
		st := fi.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%s %s %d:%d", p[len(dir):], fi.Mode(), st.Uid, st.Gid)
		if fi.ModTime().Before(time.Now().Add(-time.Hour)) {
			line += " " + fi.ModTime().String()
		}
		if target, err := os.Readlink(p); err == nil {
			line += ">" + target
		}
		if fi.Mode().IsRegular() {
			data, err := os.ReadFile(p)
			assert.NilError(t, err)
			line += "=" + string(data)
			line += " " + first[st.Ino]
			first[st.Ino] = p[len(dir):]
		}
		value := make([]byte, 10)
		if n, err := unix.Lgetxattr(p, "user.a", value); err == nil {
			line += " a=" + string(value[:n])
		}
		inodes[p[len(dir):]] = st.Ino
		list = append(list, line)
		return nil
	}))
	return list, inodes
}

// randomTree makes the same tree for the same numbers.
func randomTree(t *testing.T, r *rand.Rand) string {
	t.Helper()
	dir := t.TempDir()
	var files []string
	for range 12 {
		name := filepath.Join(dir, string("abc"[r.IntN(3)]), string("abcd"[r.IntN(4)]), string("abcd"[r.IntN(4)]))
		if os.MkdirAll(filepath.Dir(name), 0o755) != nil {
			continue
		}
		switch r.IntN(6) {
		case 0:
			_ = os.Symlink("x", name)
		case 1:
			_ = os.Mkdir(name, 0o700)
		case 2:
			if len(files) > 0 && r.IntN(4) == 0 {
				_ = os.Link(files[0], name)
			}
		default:
			if os.WriteFile(name, []byte{byte('0' + r.IntN(10))}, 0o600+fs.FileMode(r.IntN(64))) == nil {
				files = append(files, name)
				_ = os.Lchown(name, r.IntN(3), 0)
				_ = unix.Lsetxattr(name, "user.a", []byte("1"), 0)
			}
		}
	}
	var all []string
	assert.NilError(t, filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		all = append([]string{p}, all...)
		return err
	}))
	for i, p := range all {
		setTime(t, longAgo.Add(time.Duration(i)*time.Hour), dir, p[len(dir):])
	}
	return dir
}

// TestMove_as_Copy shows that a move leaves what a copy does, and that it moves.
func TestMove_as_Copy(t *testing.T) {
	needRoot(t)
	t.Parallel()
	took := 0
	for seed := range uint64(60) {
		var got [2][]string
		for i, do := range []func(dst, src string, c *graph.Copy) error{
			func(dst, src string, c *graph.Copy) error { return Copy(t.Context(), dst, src, c, nil, nil) },
			func(dst, src string, c *graph.Copy) error { return Move(t.Context(), dst, src, c, nil, nil) },
		} {
			r := rand.New(rand.NewPCG(seed, 2))
			src, dst := randomTree(t, r), randomTree(t, r)
			_, before := details(t, src)
			from, to := []string{".", "a", "*", "a/b", "b/"}[r.IntN(5)], []string{"/", "/a", "/new/place", "/b/", "/d/"}[r.IntN(5)]
			c := dockerfile(from, to)
			c.ContentsOnly = r.IntN(4) > 0
			err := do(dst, src, c)
			list, after := details(t, dst)
			if err != nil {
				list = []string{"failed"}
			}
			got[i] = list
			there := map[uint64]bool{}
			for _, ino := range before {
				there[ino] = true
			}
			for _, ino := range after {
				if there[ino] {
					took++
					assert.Equal(t, i, 1)
				}
			}
		}
		assert.DeepEqual(t, got[1], got[0])
	}
	assert.Assert(t, took > 100, took)
}

func TestMove_leaves_what_a_copy_changes(t *testing.T) {
	needRoot(t)
	t.Parallel()
	mode := uint32(0o700)
	for name, tc := range map[string]struct {
		change func(*graph.Copy)
		owner  *ID
		acl    bool
		make   func(src string) error
	}{
		"mode":     {change: func(c *graph.Copy) { c.Mode = &mode }},
		"symbolic": {change: func(c *graph.Copy) { c.ModeString = "go+w" }},
		"time":     {change: func(c *graph.Copy) { c.Time = &epoch }},
		"exclude":  {change: exclude("sub/x")},
		"replace":  {change: func(c *graph.Copy) { c.Replace = true }},
		"owner":    {owner: &ID{1, 2}},
		"acl":      {acl: true},
		"link": {make: func(src string) error {
			return errors.Join(os.Mkdir(filepath.Join(src, "d/more"), 0o755), os.Link(filepath.Join(src, "d/z"), filepath.Join(src, "d/more/z")))
		}},
		"socket": {make: func(src string) error {
			return unix.Mknod(filepath.Join(src, "d/socket"), unix.S_IFSOCK|0o640, 0)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got [2][]string
			for i, do := range []func(dst, src string, c *graph.Copy) error{
				func(dst, src string, c *graph.Copy) error { return Copy(t.Context(), dst, src, c, tc.owner, nil) },
				func(dst, src string, c *graph.Copy) error { return Move(t.Context(), dst, src, c, tc.owner, nil) },
			} {
				src, dst := tree(t, "d/sub/x=1", "d/sub/y=2", "d/z=3"), tree(t, "to/new/more/z=old")
				if tc.make != nil {
					assert.NilError(t, tc.make(src))
				}
				if tc.acl {
					// user::rwx group::r-x other::r-x mask::rwx user:7:rwx
					acl := "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x07\x00\x07\x00\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff"
					assert.NilError(t, unix.Setxattr(filepath.Join(dst, "to/new"), "system.posix_acl_default", []byte(acl), 0))
				}
				c := dockerfile("d", "/to/new")
				if tc.change != nil {
					tc.change(c)
				}
				assert.NilError(t, do(dst, src, c))
				got[i], _ = details(t, dst)
				if tc.acl {
					_, err := unix.Getxattr(filepath.Join(dst, "to/new/sub"), "system.posix_acl_default", nil)
					assert.NilError(t, err)
				}
			}
			assert.DeepEqual(t, got[1], got[0])
		})
	}
}
