package fileop

import (
	"io/fs"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/graph"
)

func TestMkfile(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		tree            []string
		path, want, err string
	}{
		"new":                        {path: "/f", want: "f=new"},
		"relative":                   {path: "f", want: "f=new"},
		"over_a_file":                {tree: []string{"f:600=old"}, path: "/f", want: "f=new"},
		"through_a_link":             {tree: []string{"f>d/target", "d/target=old"}, path: "/f", want: "d/ d/target=new f>d/target"},
		"through_an_absolute_link":   {tree: []string{"f>/d/target", "d/"}, path: "/f", want: "d/ d/target=new f>/d/target"},
		"link_that_climbs":           {tree: []string{"f>../../../../tmp-target"}, path: "/f", want: "f>../../../../tmp-target tmp-target=new"},
		"below_a_linked_directory":   {tree: []string{"l>/d", "d/"}, path: "/l/f", want: "d/ d/f=new l>/d"},
		"dots_stay_inside":           {path: "/../../f", want: "f=new"},
		"missing_parent":             {path: "/nope/f", err: "making file /nope/f: open /nope/f: no such file or directory"},
		"link_into_a_missing_parent": {tree: []string{"f>/nope/x"}, path: "/f", err: "no such file or directory", want: "f>/nope/x"},
		"over_a_directory":           {tree: []string{"d/"}, path: "/d", err: "is a directory", want: "d/"},
		"the_root":                   {path: "/", err: "is a directory"},
		"the_root_by_dots":           {path: "/..", err: "is a directory"},
		"loop":                       {tree: []string{"f>f"}, path: "/f", err: "too many links", want: "f>f"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dst := tree(t, tc.tree...)
			err := Mkfile(dst, &graph.Mkfile{Path: tc.path, Mode: 0o666, Data: []byte("new")}, nil)
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
			} else {
				assert.NilError(t, err)
			}
			assert.Equal(t, show(t, dst), tc.want)
		})
	}
}

func TestMkfileMetadata(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dst := t.TempDir()
	assert.NilError(t, Mkfile(dst, &graph.Mkfile{Path: "/f", Mode: 0o666, Time: &epoch}, &ID{3, 4}))
	fi, _ := lstat(t, dst, "f")
	assert.Equal(t, fi.Mode(), fs.FileMode(0o666)) // the umask does not count
	assert.Assert(t, fi.ModTime().Equal(epoch))
	assert.Equal(t, owns(t, dst, "f"), "3:4")
}

func TestMkfileReplacesSpecialFiles(t *testing.T) {
	needRoot(t)
	t.Parallel()
	for name, mode := range map[string]uint32{
		"device": unix.S_IFCHR | 0o600,
		"fifo":   unix.S_IFIFO | 0o600,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dst := t.TempDir()
			assert.NilError(t, unix.Mknod(filepath.Join(dst, "f"), mode, int(unix.Mkdev(1, 3))))
			assert.NilError(t, Mkfile(dst, &graph.Mkfile{Path: "/f", Mode: 0o644, Data: []byte("new")}, nil))
			assert.Equal(t, show(t, dst), "f=new")
		})
	}
}

func TestMkdir(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		tree      []string
		do        graph.Mkdir
		want, err string
	}{
		"new":                    {do: graph.Mkdir{Path: "/d"}, want: "d/"},
		"existing":               {tree: []string{"d/x="}, do: graph.Mkdir{Path: "/d"}, want: "d/ d/x="},
		"existing_with_parents":  {tree: []string{"d/x="}, do: graph.Mkdir{Path: "/d", MakeParents: true}, want: "d/ d/x="},
		"parents":                {do: graph.Mkdir{Path: "/a/b/c", MakeParents: true}, want: "a/ a/b/ a/b/c/"},
		"missing_parent":         {do: graph.Mkdir{Path: "/a/b"}, err: "making directory /a/b: mkdir /a/b: no such file or directory"},
		"through_a_link":         {tree: []string{"l>/real", "real/"}, do: graph.Mkdir{Path: "/l/d"}, want: "l>/real real/ real/d/"},
		"dangling_link":          {tree: []string{"l>/real"}, do: graph.Mkdir{Path: "/l/d", MakeParents: true}, want: "l>/real real/ real/d/"},
		"link_that_climbs":       {tree: []string{"l>../../.."}, do: graph.Mkdir{Path: "/l/d"}, want: "d/ l>../../.."},
		"below_a_file":           {tree: []string{"f="}, do: graph.Mkdir{Path: "/f/d", MakeParents: true}, err: "not a directory", want: "f="},
		"over_a_file_as_parents": {tree: []string{"f="}, do: graph.Mkdir{Path: "/f", MakeParents: true}, err: "not a directory", want: "f="},
		"the_root":               {do: graph.Mkdir{Path: "/", MakeParents: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dst := tree(t, tc.tree...)
			tc.do.Mode = 0o755
			err := Mkdir(dst, &tc.do, nil)
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
			} else {
				assert.NilError(t, err)
			}
			assert.Equal(t, show(t, dst), tc.want)
		})
	}
}

func TestMkdirMetadata(t *testing.T) {
	needRoot(t)
	t.Parallel()
	for name, do := range map[string]graph.Mkdir{
		"alone":   {Path: "/old/a", Mode: 0o777, Time: &epoch},
		"parents": {Path: "/old/a/b", Mode: 0o777, Time: &epoch, MakeParents: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dst := tree(t, "old:700")
			assert.NilError(t, Mkdir(dst, &do, &ID{3, 4}))
			fi, _ := lstat(t, dst, do.Path)
			assert.Equal(t, fi.Mode(), 0o777|fs.ModeDir)
			assert.Assert(t, fi.ModTime().Equal(epoch))
			assert.Equal(t, owns(t, dst, "old/a"), "3:4")
			assert.Equal(t, owns(t, dst, "old"), "0:0")
			fi, _ = lstat(t, dst, "old")
			assert.Equal(t, fi.Mode().Perm(), fs.FileMode(0o700))
		})
	}
}

func TestSymlink(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dst := tree(t, "d/", "l>/d", "f=")
	assert.NilError(t, Symlink(dst, &graph.Symlink{Path: "/l/x", Target: "/any/../thing", Time: &epoch}, &ID{3, 4}))
	assert.Equal(t, show(t, dst), "d/ d/x>/any/../thing f= l>/d")
	assert.Equal(t, owns(t, dst, "d/x"), "3:4")
	fi, _ := lstat(t, dst, "d/x")
	assert.Assert(t, fi.ModTime().Equal(epoch))
	assert.ErrorContains(t, Symlink(dst, &graph.Symlink{Path: "/f", Target: "x"}, nil), "making symbolic link /f: symlink x /f: file exists")
	assert.ErrorIs(t, Symlink(dst, &graph.Symlink{Path: "/nope/x", Target: "x"}, nil), fs.ErrNotExist)
}

func TestRemove(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		do        graph.Remove
		want, err string
	}{
		"file":              {do: graph.Remove{Path: "/a.txt"}, want: "b.txt= d/ d/x= l>/d up>../.."},
		"directory":         {do: graph.Remove{Path: "/d"}, want: "a.txt= b.txt= l>/d up>../.."},
		"link_itself":       {do: graph.Remove{Path: "/l"}, want: "a.txt= b.txt= d/ d/x= up>../.."},
		"below_a_link":      {do: graph.Remove{Path: "/l/x"}, want: "a.txt= b.txt= d/ l>/d up>../.."},
		"below_climbing":    {do: graph.Remove{Path: "/up/a.txt"}, want: "b.txt= d/ d/x= l>/d up>../.."},
		"dots_stay_inside":  {do: graph.Remove{Path: "/../../a.txt"}, want: "b.txt= d/ d/x= l>/d up>../.."},
		"wildcard":          {do: graph.Remove{Path: "/*.txt", Wildcard: true}, want: "d/ d/x= l>/d up>../.."},
		"wildcard_none":     {do: graph.Remove{Path: "/*.md", Wildcard: true}, want: "a.txt= b.txt= d/ d/x= l>/d up>../.."},
		"missing":           {do: graph.Remove{Path: "/nope"}, err: "removing /nope: lstat /nope: no such file or directory", want: "a.txt= b.txt= d/ d/x= l>/d up>../.."},
		"missing_allowed":   {do: graph.Remove{Path: "/nope", AllowNotFound: true}, want: "a.txt= b.txt= d/ d/x= l>/d up>../.."},
		"the_root":          {do: graph.Remove{Path: "/"}, err: "the root cannot be removed", want: "a.txt= b.txt= d/ d/x= l>/d up>../.."},
		"the_root_by_dots":  {do: graph.Remove{Path: "/a/.."}, err: "the root cannot be removed", want: "a.txt= b.txt= d/ d/x= l>/d up>../.."},
		"no_wildcard_asked": {do: graph.Remove{Path: "/*.txt"}, err: "no such file", want: "a.txt= b.txt= d/ d/x= l>/d up>../.."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dst := tree(t, "a.txt=", "b.txt=", "d/x=", "l>/d", "up>../..")
			err := Remove(dst, &tc.do)
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
			} else {
				assert.NilError(t, err)
			}
			assert.Equal(t, show(t, dst), tc.want)
		})
	}
}
