package fileop

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/filetree"
	"github.com/org/kaniko-multiarch/internal/graph"
)

// chance makes trees and copies.
type chance struct{ *rand.Rand }

func (r chance) of(list ...string) string { return list[r.IntN(len(list))] }

func (r chance) one(in int) bool { return r.IntN(in) == 0 }

// name is clean and has no slash in front.
func (r chance) name() string {
	s := r.of("a", "b", "c")
	for range r.IntN(3) {
		s += "/" + r.of("a", "b", "c")
	}
	return s
}

// tree fills a directory. It does so from the inside: links in it lead anywhere.
func (r chance) tree(t *testing.T, dir string) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	assert.NilError(t, err)
	defer root.Close()
	files := []string{"none"}
	for i := range 12 {
		at := r.name()
		_ = root.MkdirAll(path.Dir(at), 0o755)
		switch r.IntN(8) {
		case 0, 1:
			_ = root.MkdirAll(at, 0o700+fs.FileMode(r.IntN(0o100)))
		case 2, 3:
			if root.WriteFile(at, fmt.Append(nil, i), 0o600+fs.FileMode(r.IntN(0o100))) == nil {
				files = append(files, at)
			}
		case 4, 5:
			_ = root.Link(files[len(files)-1], at)
		case 6, 7:
			// Most lead onwards: a loop is slow for the copier.
			to := r.name()
			if to[0] > at[0] || r.one(10) {
				_ = root.Symlink(r.of("/", strings.Repeat("../", strings.Count(at, "/")))+to, at)
			}
		}
	}
}

func (r chance) copy() *graph.Copy {
	c := &graph.Copy{
		Src:           r.of("/", "/a", "/b", "/"+r.name(), "/"+r.name(), "/"+r.name()+"/", r.name()+"/."),
		Dest:          r.of("/", "/a", "/b/", "/"+r.name(), "/"+r.name()+"/", r.name()+"/."),
		FollowSymlink: r.one(2),
		ContentsOnly:  r.one(2),
		MakeDest:      !r.one(4),
	}
	if r.one(3) {
		c.Wildcard, c.AllowEmpty = true, r.one(2)
		c.Src = r.of("/*", "/?", "/*/b", "/a/*", "/[ab]/*", "/"+r.name()+"/*")
	}
	if r.one(4) {
		c.Include = []string{r.of("**/a", "b", "*/c", "a/b")}
		if r.one(2) {
			c.Required = []string{"/" + r.name()}
		}
	}
	if r.one(4) {
		c.Exclude = append(c.Exclude, r.of("a", "**/b", "*/c"))
		if r.one(2) {
			c.Exclude = append(c.Exclude, "!"+r.of("a/b", "**/c", "b/b"))
		}
	}
	return c
}

func (r chance) change() graph.FileChange {
	switch r.IntN(12) {
	case 0:
		return &graph.Mkdir{Path: "/" + r.name(), Mode: 0o711, MakeParents: r.one(2)}
	case 1:
		return &graph.Mkfile{Path: "/" + r.name(), Mode: 0o611, Data: []byte("new")}
	case 2:
		return &graph.Symlink{Path: "/" + r.name(), Target: "new"}
	}
	return r.copy()
}

// only makes a tree of some names of another.
func only(t *testing.T, dst, src string, names []string) {
	t.Helper()
	links := map[any]string{}
	for _, name := range names {
		st, err := filetree.Dir(src).Lstat(name)
		assert.NilError(t, err, name)
		to := dst + name
		first, linked := links[st.Links]
		switch {
		case linked:
			assert.NilError(t, os.Link(first, to))
			continue
		case st.IsDir():
			assert.NilError(t, os.Mkdir(to, 0o755))
		case st.IsLink():
			assert.NilError(t, os.Symlink(st.Target, to))
		default:
			data, err := os.ReadFile(src + name)
			assert.NilError(t, err)
			assert.NilError(t, os.WriteFile(to, data, 0o644))
		}
		if st.Links != nil {
			links[st.Links] = to
		}
		if !st.IsLink() {
			assert.NilError(t, unix.Chmod(to, st.Mode&0o7777))
		}
	}
}

// state is all that is in a tree; which names are of one file only with links.
func state(t *testing.T, root string, links bool) map[string]string {
	t.Helper()
	out, first := map[string]string{}, map[any]string{}
	assert.NilError(t, filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		name := strings.TrimPrefix(p, root)
		st, err := filetree.Dir(root).Lstat(name)
		if err != nil {
			return err
		}
		text := fmt.Sprintf("%o %d %d %s", st.Mode, st.UID, st.GID, st.Target)
		if st.IsRegular() {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text += "=" + string(data)
		}
		if other, ok := first[st.Links]; ok && links {
			text += " is " + other
		} else if st.Links != nil {
			first[st.Links] = name
		}
		out[name] = text
		return nil
	}))
	return out
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A copy from what it reads alone is that from the whole tree.
func TestReads_are_all_that_is_copied(t *testing.T) {
	t.Parallel()
	r := chance{rand.New(rand.NewPCG(3, 4))}
	copied, failed, partial, linked := 0, 0, 0, 0
	for range 15 {
		whole := t.TempDir()
		r.tree(t, whole)
		all := state(t, whole, true)
		for range 6 {
			c := r.copy()
			c.MakeDest = true
			names, err := Reads(t.Context(), filetree.Dir(whole), c)
			want := t.TempDir()
			wantErr := Copy(t.Context(), want, whole, c, nil, nil)
			if err != nil {
				failed++
				assert.Check(t, wantErr != nil, "%+v: %v", c, err)
				_, missing := errors.AsType[*NotFoundError](err)
				_, wantMissing := errors.AsType[*NotFoundError](wantErr)
				assert.Check(t, missing == wantMissing && (!missing || text(err) == text(wantErr)), "%+v: %v, not %v", c, err, wantErr)
				continue
			}
			assert.Check(t, slices.IsSorted(names) && len(slices.Compact(slices.Clone(names))) == len(names), "%q", names)
			part, got := t.TempDir(), t.TempDir()
			only(t, part, whole, names)
			gotErr := Copy(t.Context(), got, part, c, nil, nil)
			assert.Check(t, is.Equal(text(gotErr), text(wantErr)), "%+v with %q of %v", c, names, all)
			assert.Check(t, is.DeepEqual(state(t, got, true), state(t, want, true)), "%+v with %q of %v", c, names, all)
			if result := state(t, got, true); len(result) > 0 {
				copied++
				if len(names) < len(all) {
					partial++
				}
				if strings.Contains(fmt.Sprint(result), " is /") {
					linked++
				}
			}
		}
	}
	t.Logf("%d copied, %d failed, %d of a part, %d with hard links", copied, failed, partial, linked)
	assert.Check(t, copied > 40 && failed > 10 && partial > 30 && linked > 3)
}

// A change to what it touches alone is that to the whole tree.
func TestTouches_are_all_that_is_changed(t *testing.T) {
	t.Parallel()
	r := chance{rand.New(rand.NewPCG(5, 6))}
	changed, failed, partial, replaced := 0, 0, 0, 0
	for range 100 {
		src, before := t.TempDir(), t.TempDir()
		r.tree(t, src)
		r.tree(t, before)
		change := r.change()
		names, ok, err := Touches(t.Context(), filetree.Dir(before), filetree.Dir(src), change)
		if err != nil || !ok {
			failed++
			continue
		}
		old := state(t, before, false)
		part := t.TempDir()
		only(t, part, before, names)
		had := state(t, part, false)
		gotErr := Apply(t.Context(), part, Source{Dir: src}, change, nil, nil)
		got := state(t, part, false)
		// The tree before becomes that after.
		wantErr := Apply(t.Context(), before, Source{Dir: src}, change, nil, nil)
		want := state(t, before, false)
		about := fmt.Sprintf("%+v with %q of %v", change, names, old)
		assert.Check(t, is.Equal(text(gotErr), text(wantErr)), about)
		for name, is := range got {
			_, existed := old[name]
			_, made := had[name]
			assert.Check(t, want[name] == is, "%s is %s, not %s: %s", name, is, want[name], about)
			assert.Check(t, made || !existed, "%s was not made: %s", name, about)
			if made && had[name] != is {
				replaced++
			}
		}
		for name := range maps.Keys(want) {
			_, known := got[name]
			assert.Check(t, known || want[name] == old[name], "%s changed: %s", name, about)
		}
		if fmt.Sprint(got) != fmt.Sprint(had) {
			changed++
		}
		if len(names) < len(old) {
			partial++
		}
	}
	t.Logf("%d changed, %d failed, %d in a part, %d replaced", changed, failed, partial, replaced)
	assert.Check(t, changed > 25 && failed > 10 && partial > 30 && replaced > 8)
}

func TestReads(t *testing.T) {
	t.Parallel()
	root := tree(t, "real/d/f=", "real/d/g=", "real/l>d/f", "link>/real", "archive>real/d/g", "other=")
	for name, tt := range map[string]struct {
		copy *graph.Copy
		want []string
	}{
		"file":             {&graph.Copy{Src: "/real/d/f"}, []string{"/real", "/real/d", "/real/d/f"}},
		"through_link":     {&graph.Copy{Src: "/link/d"}, []string{"/link", "/real", "/real/d", "/real/d/f", "/real/d/g"}},
		"link":             {&graph.Copy{Src: "/real/l"}, []string{"/real", "/real/l"}},
		"link_followed":    {&graph.Copy{Src: "/real/l", FollowSymlink: true}, []string{"/real", "/real/d", "/real/d/f", "/real/l"}},
		"link_to_archive":  {&graph.Copy{Src: "/archive", Unpack: true}, []string{"/archive", "/real", "/real/d", "/real/d/g"}},
		"wildcard":         {&graph.Copy{Src: "/link/*/g", Wildcard: true, FollowSymlink: true}, []string{"/link", "/real", "/real/d", "/real/d/g"}},
		"wildcard_nothing": {&graph.Copy{Src: "/real/d/x*", Wildcard: true, AllowEmpty: true}, []string{"/real", "/real/d"}},
		"include":          {&graph.Copy{Src: "/", Include: []string{"**/g"}}, []string{"/real", "/real/d", "/real/d/g"}},
		"include_later":    {&graph.Copy{Src: "/", Include: []string{"real/l"}}, []string{"/real", "/real/l"}},
		"exclude":          {&graph.Copy{Src: "/", Exclude: []string{"real", "link"}}, []string{"/archive", "/other"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Reads(t.Context(), filetree.Dir(root), tt.copy)
			assert.NilError(t, err)
			assert.Check(t, is.DeepEqual(got, tt.want))
		})
	}
	_, err := Reads(t.Context(), filetree.Dir(root), &graph.Copy{Src: "/none/*", Wildcard: true, AllowEmpty: true})
	assert.Check(t, is.ErrorType(err, &NotFoundError{}))
	_, err = Reads(t.Context(), filetree.Dir(root), &graph.Copy{Src: "/", Include: []string{"x"}, Required: []string{"/x"}})
	assert.NilError(t, err)
	_, err = Reads(t.Context(), filetree.Dir(root), &graph.Copy{Src: "/none", Include: []string{"x"}, Required: []string{"/none/x"}})
	assert.Check(t, is.ErrorType(err, &NotFoundError{}))
	assert.Check(t, is.Error(err, `"/none/x": not found`))
}

func TestTouches(t *testing.T) {
	t.Parallel()
	src := tree(t, "d/f=", "d/sub/g=", "d/new/h=", "l>d")
	dst := tree(t, "app>/srv/app", "srv/app/f=", "srv/app/g=", "srv/app/sub/g>x", "srv/app/sub/x=", "etc/f=", "file=", "sub>file")
	for name, tt := range map[string]struct {
		change graph.FileChange
		want   []string
		whole  bool
	}{
		"contents":         {change: &graph.Copy{Src: "/d", Dest: "/app", ContentsOnly: true}, want: []string{"/app", "/srv", "/srv/app", "/srv/app/f", "/srv/app/sub", "/srv/app/sub/g"}},
		"directory":        {change: &graph.Copy{Src: "/d", Dest: "/app/"}, want: []string{"/app", "/srv", "/srv/app"}},
		"new_destination":  {change: &graph.Copy{Src: "/d", Dest: "/srv/new/"}, want: []string{"/srv"}},
		"file_to_dir":      {change: &graph.Copy{Src: "/d/f", Dest: "/etc"}, want: []string{"/etc", "/etc/f"}},
		"file_to_file":     {change: &graph.Copy{Src: "/d/f", Dest: "/file"}, want: []string{"/file"}},
		"link_and_more":    {change: &graph.Copy{Src: "/*", Dest: "/new", Wildcard: true}, whole: true},
		"link_and_more_in": {change: &graph.Copy{Src: "/*", Dest: "/new/", Wildcard: true}, want: nil},
		"link_in_the_way":  {change: &graph.Copy{Src: "/d", Dest: "/", ContentsOnly: true, Include: []string{"sub/none"}}, want: []string{"/file", "/sub"}},
		"mkdir":            {change: &graph.Mkdir{Path: "/app/sub/a/b"}, want: []string{"/app", "/srv", "/srv/app", "/srv/app/sub"}},
		"mkfile":           {change: &graph.Mkfile{Path: "app/sub/g"}, want: []string{"/app", "/srv", "/srv/app", "/srv/app/sub", "/srv/app/sub/g", "/srv/app/sub/x"}},
		"symlink":          {change: &graph.Symlink{Path: "/app/x"}, want: []string{"/app", "/srv", "/srv/app"}},
		"replace":          {change: &graph.Copy{Src: "/d", Dest: "/", Replace: true}, whole: true},
		"unpack":           {change: &graph.Copy{Src: "/d", Dest: "/", Unpack: true}, whole: true},
		"remove":           {change: &graph.Remove{Path: "/file"}, whole: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, ok, err := Touches(t.Context(), filetree.Dir(dst), filetree.Dir(src), tt.change)
			assert.NilError(t, err)
			assert.Check(t, is.Equal(ok, !tt.whole))
			assert.Check(t, is.Equal(strings.Join(got, " "), strings.Join(tt.want, " ")))
		})
	}
	_, _, err := Touches(t.Context(), filetree.Dir(dst), filetree.Dir(src), &graph.Copy{Src: "/none", Dest: "/"})
	assert.Check(t, is.ErrorType(err, &NotFoundError{}))
}

// counted is a tree that counts looks at it, and at which they fail.
type counted struct {
	filetree.Tree
	looks int
	err   error
}

func (c *counted) Lstat(name string) (*filetree.Stat, error) {
	c.looks++
	if c.err != nil {
		return nil, c.err
	}
	return c.Tree.Lstat(name)
}

// The size of the source does not count where nothing is.
func TestTouches_does_not_look_below_what_is_missing(t *testing.T) {
	t.Parallel()
	specs := []string{"have/"}
	for i := range 100 {
		specs = append(specs, fmt.Sprintf("d/f%d=", i))
	}
	src, dst := tree(t, specs...), tree(t, "have/")
	for _, dest := range []string{"/new", "/have", "/"} {
		to, from := &counted{Tree: filetree.Dir(dst)}, &counted{Tree: filetree.Dir(src)}
		_, ok, err := Touches(t.Context(), to, from, &graph.Copy{Src: "/", Dest: dest, ContentsOnly: true})
		assert.NilError(t, err)
		assert.Check(t, ok && to.looks < 30 && from.looks < 10, "%s: %d and %d looks", dest, to.looks, from.looks)
	}
}

func TestNames_of_a_tree_that_cannot_be_read(t *testing.T) {
	t.Parallel()
	good, bad := filetree.Dir(tree(t, "a=")), &counted{err: syscall.EIO}
	c := &graph.Copy{Src: "/a", Dest: "/"}
	_, err := Reads(t.Context(), bad, c)
	assert.Check(t, is.ErrorIs(err, syscall.EIO))
	_, ok, err := Touches(t.Context(), bad, good, c)
	assert.Check(t, is.ErrorIs(err, syscall.EIO))
	assert.Check(t, !ok)
	_, _, err = Touches(t.Context(), good, bad, c)
	assert.Check(t, is.ErrorIs(err, syscall.EIO))
}

func TestOwnerNames(t *testing.T) {
	t.Parallel()
	root := filetree.Dir(tree(t, "etc/passwd>/data/users", "data/users=", "etc/group="))
	user, group, number := &graph.Identity{Name: "u"}, &graph.Identity{Name: "g"}, &graph.Identity{ID: 7}
	for name, tt := range map[string]struct {
		owner *graph.Owner
		want  []string
	}{
		"none":    {nil, []string{}},
		"numbers": {&graph.Owner{User: number, Group: number}, []string{}},
		"user":    {&graph.Owner{User: user}, []string{"/data", "/data/users", "/etc", "/etc/passwd"}},
		"group":   {&graph.Owner{User: number, Group: group}, []string{"/etc", "/etc/group"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Check(t, is.Equal(strings.Join(OwnerNames(root, tt.owner), " "), strings.Join(tt.want, " ")))
		})
	}
}
