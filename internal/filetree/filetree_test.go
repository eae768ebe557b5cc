package filetree

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cfs "github.com/containerd/continuity/fs"
	fscopy "github.com/tonistiigi/fsutil/copy"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// Names lead where they lead the copier, whatever the links are.
func TestResolve_as_the_copier(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	part := func() string { return pick("a", "b", "c", "a", "b", "c", "..", ".") }
	name := func() string {
		s := part()
		for range random.IntN(3) {
			s += "/" + part()
		}
		return s
	}
	links, found, all := 0, 0, t.TempDir()
	for n := range 60 {
		root := filepath.Join(all, fmt.Sprint(n))
		assert.NilError(t, os.Mkdir(root, 0o755))
		// What is made must stay in the tree, wherever the links in it lead.
		inside, err := os.OpenRoot(root)
		assert.NilError(t, err)
		for range 10 {
			at := filepath.Clean("./" + strings.TrimLeft(filepath.Clean("/"+name()), "/"))
			switch random.IntN(4) {
			case 0, 1:
				_ = inside.MkdirAll(at, 0o755)
			case 2:
				_ = inside.WriteFile(at, nil, 0o644)
			case 3:
				// Behind a link out of the tree, the copier looks at the machine's
				// files on its way. There are none of these names.
				target := name()
				if random.IntN(4) == 0 {
					target = "/" + target
				}
				if err := inside.Symlink(target, at); err == nil {
					links++
				}
			}
		}
		assert.NilError(t, inside.Close())
		trees := []Tree{Dir(root), newMemory(t, root)}
		for range 10 {
			asked := "/" + name()
			want, err := cfs.RootPath(root, asked)
			for _, tree := range trees {
				got, gotErr := Resolve(tree, asked)
				assert.Check(t, is.Equal(gotErr != nil, err != nil), "%s: %v, got %v", asked, err, gotErr)
				if err == nil {
					assert.Check(t, is.Equal(filepath.Join(root, got), filepath.Clean(want)), asked)
				}
			}
		}
		for _, pattern := range []string{"/*", "/a*", "/*/b", "/[ab]/*", "/a/*", "/b/c/?", "/c/../*", "/\\a", "/[", "/a/\\*"} {
			for _, follow := range []bool{false, true} {
				want, err := fscopy.ResolveWildcards(root, pattern, follow)
				for _, tree := range trees {
					got, gotErr := Glob(tree, pattern, follow)
					assert.Check(t, is.Equal(gotErr != nil, err != nil), "%s: %v, got %v", pattern, err, gotErr)
					assert.Check(t, is.DeepEqual(got, want), "%s in tree %d, follow %v", pattern, n, follow)
					found += len(got)
				}
			}
		}
	}
	assert.Check(t, links > 30 && found > 30, "%d links, %d found", links, found)
}

// On a disk, nothing of the tree is behind a link that leads out of it.
func TestFollow_out_of_the_tree(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, dir := range []string{"opt/x", "opt/shared", "none-of-the-machine/srv", "none-of-the-machine/shared", "x"} {
		assert.NilError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	for at, target := range map[string]string{
		"opt/app": "current", "opt/current": "/none-of-the-machine/srv", "none-of-the-machine/srv/bin": "../shared",
		"opt/up": "climb", "opt/climb": "../../x", "x/bin": "../opt/x",
	} {
		assert.NilError(t, os.Symlink(target, filepath.Join(root, at)))
	}
	for asked, want := range map[string]string{
		"/opt/app/bin": "/none-of-the-machine/shared",
		"/opt/up/bin":  "/opt/x",
	} {
		for _, tree := range []Tree{Dir(root), newMemory(t, root)} {
			got, err := Resolve(tree, asked)
			assert.NilError(t, err)
			assert.Check(t, is.Equal(got, want), "%s in %T", asked, tree)
		}
	}
	for _, name := range []string{"/opt/current/bin", "/opt/climb/bin"} {
		_, err := newMemory(t, root).Lstat(name)
		assert.Check(t, is.ErrorIs(err, fs.ErrNotExist), name)
	}
}

func TestResolve_cycle(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	assert.NilError(t, os.Symlink("b", root+"/a"))
	assert.NilError(t, os.Symlink("a", root+"/b"))
	_, err := Resolve(Dir(root), "/a")
	assert.Check(t, is.ErrorIs(err, errLinks))
}

// memory is a tree whose files are known by their real names only.
type memory struct {
	Dir
	files map[string]*Stat
}

func newMemory(t *testing.T, root string) *memory {
	t.Helper()
	m := &memory{Dir: Dir(root), files: map[string]*Stat{}}
	assert.NilError(t, filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		name := filepath.Join("/", strings.TrimPrefix(p, root))
		if err == nil {
			m.files[name], err = m.Dir.Lstat(name)
		}
		return err
	}))
	return m
}

func (m *memory) Lstat(name string) (*Stat, error) {
	return Follow(name, func(name string) (*Stat, bool) {
		st, ok := m.files[name]
		return st, ok
	})
}
