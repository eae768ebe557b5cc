package fileop

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/graph"
)

// dockerfile is what the front end asks for when it sees COPY src dest.
func dockerfile(src, dest string, change ...func(*graph.Copy)) *graph.Copy {
	c := &graph.Copy{
		Src: src, Dest: dest,
		FollowSymlink: true, ContentsOnly: true, MakeDest: true, Wildcard: true, AllowEmpty: true,
	}
	for _, f := range change {
		f(c)
	}
	return c
}

// parents is COPY --parents, as the front end splits it.
func parents(src string) func(*graph.Copy) {
	return func(c *graph.Copy) {
		pivot, pattern, ok := strings.Cut(src, "/./")
		if !ok {
			pivot, pattern = "/", src
		}
		c.Src = filepath.Join("/", pivot)
		c.Include = []string{pattern}
		if !strings.ContainsAny(src, "*?[") {
			c.Required = []string{filepath.Join("/", pivot, pattern)}
		}
	}
}

func exclude(patterns ...string) func(*graph.Copy) {
	return func(c *graph.Copy) { c.Exclude = patterns }
}

var exactly = func(c *graph.Copy) { c.Wildcard, c.AllowEmpty = false, false }

func TestCopy(t *testing.T) {
	t.Parallel()
	source := []string{
		"a.txt=a", "b.txt=b", "c.md=c",
		"dir/x=x", "dir/sub/y=y", "dir/link>x", "dir/out>/etc/hostname", "empty/",
		"rel>a.txt", "abs>/dir", "climb>../../../a.txt", "chain>rel", "loop>loop", "dangling>nowhere", "up/in>../dir/x",
		"w/1/f=1", "w/2/f=2", "w/2/g=g",
	}
	for name, tc := range map[string]struct {
		c         *graph.Copy
		dst       []string
		want, err string
	}{
		"file_to_new_name":              {c: dockerfile("a.txt", "/f"), want: "f=a"},
		"file_to_directory":             {c: dockerfile("a.txt", "/d/"), want: "d/ d/a.txt=a"},
		"file_to_existing_directory":    {c: dockerfile("a.txt", "/d"), dst: []string{"d/"}, want: "d/ d/a.txt=a"},
		"file_to_the_root":              {c: dockerfile("a.txt", "/"), want: "a.txt=a"},
		"file_to_dot":                   {c: dockerfile("a.txt", "/d/."), want: "d/ d/a.txt=a"},
		"file_makes_parents":            {c: dockerfile("a.txt", "/p/q/f"), want: "p/ p/q/ p/q/f=a"},
		"file_over_file":                {c: dockerfile("a.txt", "/f"), dst: []string{"f=a much longer one"}, want: "f=a"},
		"file_over_directory_of_name":   {c: dockerfile("a.txt", "/d/"), dst: []string{"d/a.txt/"}, want: "d/ d/a.txt/", err: "cannot replace to directory /d/a.txt with file"},
		"file_below_a_file":             {c: dockerfile("a.txt", "/f/"), dst: []string{"f=old"}, want: "f=old", err: "mkdir /f: not a directory"},
		"directory_contents":            {c: dockerfile("dir", "/d"), want: "d/ d/link>x d/out>/etc/hostname d/sub/ d/sub/y=y d/x=x"},
		"directory_contents_slash":      {c: dockerfile("dir/", "/d/"), want: "d/ d/link>x d/out>/etc/hostname d/sub/ d/sub/y=y d/x=x"},
		"directory_contents_dot":        {c: dockerfile("dir/.", "/d"), want: "d/ d/link>x d/out>/etc/hostname d/sub/ d/sub/y=y d/x=x"},
		"directory_merges":              {c: dockerfile("dir/sub", "/d"), dst: []string{"d/y=old", "d/z=kept"}, want: "d/ d/y=y d/z=kept"},
		"directory_itself":              {c: &graph.Copy{Src: "dir/sub", Dest: "/d", MakeDest: true}, dst: []string{"d/"}, want: "d/ d/sub/ d/sub/y=y"},
		"empty_directory":               {c: dockerfile("empty", "/d"), want: "d/"},
		"directory_over_file":           {c: dockerfile("dir", "/f"), dst: []string{"f=old"}, want: "f=old", err: "cannot copy to non-directory: /f"},
		"sub_directory_over_file":       {c: dockerfile("w", "/d"), dst: []string{"d/1=old"}, want: "d/ d/1=old", err: "cannot copy to non-directory: /d/1"},
		"replace_follows_dest_itself":   {c: dockerfile("w/1", "/d", func(c *graph.Copy) { c.Replace = true }), dst: []string{"d>elsewhere"}, want: "d>elsewhere elsewhere/ elsewhere/f=1"},
		"replace":                       {c: dockerfile("w", "/d", func(c *graph.Copy) { c.Replace = true }), dst: []string{"d/1=old", "d/2>gone"}, want: "d/ d/1/ d/1/f=1 d/2/ d/2/f=2 d/2/g=g"},
		"missing":                       {c: dockerfile("nope", "/d"), err: `"/nope": not found`},
		"missing_exactly":               {c: dockerfile("/sub/../nope/", "/d", exactly), err: `"/nope": not found`},
		"missing_below_a_file":          {c: dockerfile("a.txt/x", "/d"), err: `"/a.txt/x": not found`},
		"missing_with_exclude":          {c: dockerfile("nope", "/d", exclude("x")), err: `"/nope": not found`},
		"dots_stay_inside":              {c: dockerfile("../../a.txt", "/../../f"), want: "f=a"},
		"wildcard_many":                 {c: dockerfile("*.txt", "/d/"), want: "d/ d/a.txt=a d/b.txt=b"},
		"wildcard_one":                  {c: dockerfile("?.md", "/d/"), want: "d/ d/c.md=c"},
		"wildcard_none":                 {c: dockerfile("*.nope", "/d/"), want: ""},
		"wildcard_none_not_allowed":     {c: dockerfile("*.nope", "/d/", func(c *graph.Copy) { c.AllowEmpty = false }), err: `"/*.nope": not found`},
		"wildcard_in_the_middle":        {c: dockerfile("w/*/f", "/d/"), want: "d/ d/f=2"},
		"wildcard_directories_merge":    {c: dockerfile("w/*", "/d/"), want: "d/ d/f=2 d/g=g"},
		"wildcard_below_missing":        {c: dockerfile("nope/*", "/d/"), err: `"/nope/*": not found`},
		"wildcard_below_a_link":         {c: dockerfile("abs/s*", "/d/"), want: "d/ d/y=y"},
		"wildcard_quoted":               {c: dockerfile("[a].txt", "/f"), want: "f=a"},
		"no_wildcard_asked":             {c: dockerfile("*.txt", "/d/", exactly), err: `"/*.txt": not found`},
		"source_link_relative":          {c: dockerfile("rel", "/f"), want: "f=a"},
		"source_link_absolute":          {c: dockerfile("abs", "/d"), want: "d/ d/link>x d/out>/etc/hostname d/sub/ d/sub/y=y d/x=x"},
		"source_link_climbs":            {c: dockerfile("climb", "/f"), want: "f=a"},
		"source_link_chain":             {c: dockerfile("chain", "/f"), want: "f=a"},
		"source_link_keeps_its_name":    {c: dockerfile("rel", "/d/"), want: "d/ d/rel=a"},
		"source_below_a_link":           {c: dockerfile("abs/sub/y", "/f"), want: "f=y"},
		"source_link_dangling":          {c: dockerfile("dangling", "/f"), err: `"/dangling": not found`},
		"source_link_loop":              {c: dockerfile("loop", "/f"), err: "too many links"},
		"source_link_as_such":           {c: &graph.Copy{Src: "abs", Dest: "/l", MakeDest: true}, want: "l>/dir"},
		"source_link_dangling_as_such":  {c: &graph.Copy{Src: "dangling", Dest: "/l"}, want: "l>nowhere"},
		"links_inside_stay":             {c: dockerfile("up", "/d"), want: "d/ d/in>../dir/x"},
		"dest_link_to_directory":        {c: dockerfile("a.txt", "/l"), dst: []string{"l>/real", "real/"}, want: "l>/real real/ real/a.txt=a"},
		"dest_link_to_directory_slash":  {c: dockerfile("a.txt", "/l/"), dst: []string{"l>real", "real/"}, want: "l>real real/ real/a.txt=a"},
		"dest_link_for_a_directory":     {c: dockerfile("dir/sub", "/l"), dst: []string{"l>real", "real/"}, want: "l>real real/ real/y=y"},
		"dest_link_to_file":             {c: dockerfile("a.txt", "/l"), dst: []string{"l>real", "real=old"}, want: "l>real real=a"},
		"dest_link_dangling":            {c: dockerfile("a.txt", "/l/"), dst: []string{"l>/new/place"}, want: "l>/new/place new/ new/place/ new/place/a.txt=a"},
		"dest_link_climbs":              {c: dockerfile("a.txt", "/l/"), dst: []string{"l>../../../x"}, want: "l>../../../x x/ x/a.txt=a"},
		"dest_link_loop":                {c: dockerfile("a.txt", "/l/"), dst: []string{"l>l"}, want: "l>l", err: "too many links"},
		"dest_below_a_linked_parent":    {c: dockerfile("a.txt", "/l/p/f"), dst: []string{"l>/real", "real/"}, want: "l>/real real/ real/p/ real/p/f=a"},
		"dest_file_of_a_directory_link": {c: dockerfile("dir/sub", "/d"), dst: []string{"d/y>../kept", "kept=old"}, want: "d/ d/y=y kept=old"},
		"dest_directory_is_a_link":      {c: dockerfile("w", "/d"), dst: []string{"d/1>/kept", "kept/"}, want: "d/ d/1>/kept kept/", err: "cannot copy to non-directory: /d/1"},
		"dest_parent_missing":           {c: &graph.Copy{Src: "a.txt", Dest: "/p/f"}, err: "copying a.txt to /p/f: lstat /p: no such file or directory"},
		"exclude_file":                  {c: dockerfile("dir", "/d", exclude("x")), want: "d/ d/link>x d/out>/etc/hostname d/sub/ d/sub/y=y"},
		"exclude_deep":                  {c: dockerfile("dir", "/d", exclude("**/y", "link", "out")), want: "d/ d/sub/ d/x=x"},
		"exclude_directory":             {c: dockerfile("dir", "/d", exclude("sub", "*i*", "out")), want: "d/ d/x=x"},
		"exclude_with_exception":        {c: dockerfile("dir", "/d", exclude("*", "!sub/y")), want: "d/ d/sub/ d/sub/y=y"},
		"parents_file":                  {c: dockerfile("", "/d", parents("dir/sub/y")), want: "d/ d/dir/ d/dir/sub/ d/dir/sub/y=y"},
		"parents_directory":             {c: dockerfile("", "/d/", parents("w/2")), want: "d/ d/w/ d/w/2/ d/w/2/f=2 d/w/2/g=g"},
		"parents_wildcard":              {c: dockerfile("", "/d/", parents("w/*/f")), want: "d/ d/w/ d/w/1/ d/w/1/f=1 d/w/2/ d/w/2/f=2"},
		"parents_wildcard_none":         {c: dockerfile("", "/d/", parents("w/*/nope")), want: "d/"},
		"parents_double_star":           {c: dockerfile("", "/d/", parents("**/f")), want: "d/ d/w/ d/w/1/ d/w/1/f=1 d/w/2/ d/w/2/f=2"},
		"parents_pivot":                 {c: dockerfile("", "/d/", parents("dir/./sub/y")), want: "d/ d/sub/ d/sub/y=y"},
		"parents_pivot_wildcard":        {c: dockerfile("", "/d/", parents("w/./*/g")), want: "d/ d/2/ d/2/g=g"},
		"parents_pivot_is_a_wildcard":   {c: dockerfile("", "/d/", parents("w/*/./f")), want: "d/ d/f=2"},
		"parents_pivot_below_a_link":    {c: dockerfile("", "/d/", parents("abs/./sub/y")), want: "d/ d/sub/ d/sub/y=y"},
		"parents_missing":               {c: dockerfile("", "/d/", parents("dir/nope")), want: "d/", err: `"/dir/nope": not found`},
		"parents_missing_pivot":         {c: dockerfile("", "/d/", parents("nope/./x")), err: `"/nope/x": not found`},
		"parents_pivot_missing_pattern": {c: dockerfile("", "/d/", parents("dir/./nope")), want: "d/", err: `"/dir/nope": not found`},
		"parents_excluded":              {c: dockerfile("", "/d/", parents("dir/x"), exclude("dir/x")), want: "d/", err: `"/dir/x": not found`},
		"parents_exclude":               {c: dockerfile("", "/d/", parents("w"), exclude("**/f")), want: "d/ d/w/ d/w/1/ d/w/2/ d/w/2/g=g"},
		"parents_empty_directory":       {c: dockerfile("", "/d/", parents("empty")), want: "d/ d/empty/"},
		"parents_into_a_link":           {c: dockerfile("", "/l/", parents("dir/x")), dst: []string{"l>/real", "real/dir/"}, want: "l>/real real/ real/dir/ real/dir/x=x"},
		"required_of_directory_itself":  {c: &graph.Copy{Src: "/dir", Dest: "/d", MakeDest: true, Include: []string{"sub"}, Required: []string{"/dir/sub"}}, dst: []string{"d/"}, want: "d/ d/dir/ d/dir/sub/ d/dir/sub/y=y"},
		"required_without_include":      {c: dockerfile("dir/sub", "/d", func(c *graph.Copy) { c.Required = []string{"/nope"} }), want: "d/ d/y=y"},
		"required_through_a_link":       {c: dockerfile("", "/d/", parents("abs/x")), want: "d/", err: `"/abs/x": not found`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for how, do := range map[string]func(context.Context, string, string, *graph.Copy, *ID, Warn) error{"copy": Copy, "move": Move} {
				src, dst := tree(t, source...), tree(t, tc.dst...)
				err := do(t.Context(), dst, src, tc.c, nil, nil)
				if tc.err != "" {
					assert.ErrorContains(t, err, tc.err, how)
					missing, ok := errors.AsType[*NotFoundError](err)
					assert.Equal(t, ok, strings.Contains(tc.err, "not found"), how)
					if ok {
						assert.Equal(t, missing.Error(), tc.err, how)
					}
				} else {
					assert.NilError(t, err, how)
				}
				if tc.err == "" || how == "copy" {
					assert.Equal(t, show(t, dst), tc.want, how)
				}
			}
		})
	}
}

func TestCopyMode(t *testing.T) {
	t.Parallel()
	const special = fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	octal := func(m uint32) func(*graph.Copy) { return func(c *graph.Copy) { c.Mode = &m } }
	symbolic := func(m string) func(*graph.Copy) { return func(c *graph.Copy) { c.ModeString = m } }
	// What a directory's contents go to does not get the directory's own mode.
	for name, tc := range map[string]struct {
		change               func(*graph.Copy)
		made, dir, file, run fs.FileMode
	}{
		"kept":           {func(*graph.Copy) {}, 0o755, 0o750, 0o640, 0o755 | fs.ModeSetuid},
		"octal":          {octal(0o604), 0o604, 0o604, 0o604, 0o604},
		"octal_special":  {octal(0o7711), 0o711, 0o711 | special, 0o711 | special, 0o711 | special},
		"octal_none":     {octal(0), 0, 0, 0, 0},
		"symbolic_x":     {symbolic("u=rwX,go=rX"), 0o755, 0o755, 0o644, 0o755},
		"symbolic_add":   {symbolic("go+w"), 0o755, 0o772, 0o662, 0o777 | fs.ModeSetuid},
		"symbolic_wins":  {func(c *graph.Copy) { m := uint32(0o700); c.Mode, c.ModeString = &m, "a=r" }, 0o755, 0o444, 0o444, 0o444},
		"symbolic_minus": {symbolic("u-w,g=u"), 0o755, 0o550, 0o440, 0o555 | fs.ModeSetuid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if strings.HasPrefix(name, "octal") || name == "symbolic_wins" {
				needRoot(t) // a directory of these modes is closed to others
			}
			src := tree(t, "d/file:640=", "d/run:4755=", "d/sub:750", "d/link>file")
			dst := t.TempDir()
			assert.NilError(t, Copy(t.Context(), dst, src, dockerfile("d", "/p/d", tc.change), nil, nil))
			for file, want := range map[string]fs.FileMode{
				"p": tc.made | fs.ModeDir, "p/d": tc.made | fs.ModeDir, "p/d/sub": tc.dir | fs.ModeDir, "p/d/file": tc.file, "p/d/run": tc.run,
			} {
				fi, _ := lstat(t, dst, file)
				assert.Equal(t, fi.Mode(), want, file)
			}
		})
	}
	t.Run("wrong", func(t *testing.T) {
		t.Parallel()
		src := tree(t, "f=")
		assert.ErrorContains(t, Copy(t.Context(), t.TempDir(), src, dockerfile("f", "/f", symbolic("rwx")), nil, nil), "invalid syntax")
	})
}

func TestCopyOwner(t *testing.T) {
	needRoot(t)
	t.Parallel()
	for name, tc := range map[string]struct {
		owner                 *ID
		dir, file, link, made string
	}{
		"kept":  {nil, "1:2", "3:4", "5:6", "0:0"},
		"given": {&ID{70, 80}, "70:80", "70:80", "70:80", "70:80"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src := tree(t, "d/file=", "d/link>file", "d/sub/")
			assert.NilError(t, os.Lchown(filepath.Join(src, "d/sub"), 1, 2))
			assert.NilError(t, os.Lchown(filepath.Join(src, "d/file"), 3, 4))
			assert.NilError(t, os.Lchown(filepath.Join(src, "d/link"), 5, 6))
			dst := tree(t, "old/")
			assert.NilError(t, Copy(t.Context(), dst, src, dockerfile("d", "/old/p/d"), tc.owner, nil))
			for file, want := range map[string]string{
				"old": "0:0", "old/p": tc.made, "old/p/d": tc.made, "old/p/d/sub": tc.dir, "old/p/d/file": tc.file, "old/p/d/link": tc.link,
			} {
				assert.Equal(t, owns(t, dst, file), want, file)
			}
		})
	}
}

func TestCopyTime(t *testing.T) {
	t.Parallel()
	src := tree(t, "d/file=", "d/link>file")
	for _, f := range []string{"d/file", "d/link", "d"} {
		setTime(t, longAgo, src, f)
	}
	t.Run("kept", func(t *testing.T) {
		t.Parallel()
		dst := t.TempDir()
		assert.NilError(t, Copy(t.Context(), dst, src, dockerfile("d", "/p/d"), nil, nil))
		for _, f := range []string{"p/d", "p/d/file", "p/d/link"} {
			fi, _ := lstat(t, dst, f)
			assert.Assert(t, fi.ModTime().Equal(longAgo), "%s: %s", f, fi.ModTime())
		}
	})
	t.Run("given", func(t *testing.T) {
		t.Parallel()
		dst := t.TempDir()
		c := dockerfile("d", "/p/q/d", func(c *graph.Copy) { c.Time = &epoch })
		assert.NilError(t, Copy(t.Context(), dst, src, c, nil, nil))
		for _, f := range []string{"p", "p/q", "p/q/d", "p/q/d/file", "p/q/d/link"} {
			fi, _ := lstat(t, dst, f)
			assert.Assert(t, fi.ModTime().Equal(epoch), "%s: %s", f, fi.ModTime())
		}
	})
}

func TestCopyKeepsAttributesAndLinks(t *testing.T) {
	needRoot(t)
	t.Parallel()
	src := tree(t, "d/a=data", "d/sub/")
	a := filepath.Join(src, "d/a")
	assert.NilError(t, os.Link(a, filepath.Join(src, "d/b")))
	// cap_net_bind_service=ep, revision 2
	capability := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	assert.NilError(t, unix.Setxattr(a, "security.capability", capability, 0))
	assert.NilError(t, unix.Setxattr(a, "user.note", []byte("hi"), 0))
	assert.NilError(t, unix.Setxattr(filepath.Join(src, "d/sub"), "user.dir", []byte("yes"), 0))

	dst := t.TempDir()
	assert.NilError(t, Copy(t.Context(), dst, src, dockerfile("d", "/d"), &ID{5, 5}, nil))
	for file, attrs := range map[string]map[string]string{
		"d/sub": {"user.dir": "yes"},
		"d/a":   {"user.note": "hi", "security.capability": string(capability)},
	} {
		for key, want := range attrs {
			buf := make([]byte, 64)
			n, err := unix.Getxattr(filepath.Join(dst, file), key, buf)
			assert.NilError(t, err, key)
			assert.Equal(t, string(buf[:n]), want, key)
		}
	}
	one, _ := lstat(t, dst, "d/a")
	two, _ := lstat(t, dst, "d/b")
	assert.Assert(t, os.SameFile(one, two))
}

// Opening one of these would block, or read from this machine's device.
func TestCopySpecialFiles(t *testing.T) {
	needRoot(t)
	t.Parallel()
	for name, tc := range map[string]struct {
		mode uint32
		want fs.FileMode
	}{
		"device": {unix.S_IFCHR | 0o640, fs.ModeDevice | fs.ModeCharDevice | 0o640},
		"fifo":   {unix.S_IFIFO | 0o640, fs.ModeNamedPipe | 0o640},
		"socket": {unix.S_IFSOCK | 0o640, 0o640},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src := t.TempDir()
			// /dev/tty, whose opening fails without a terminal
			assert.NilError(t, unix.Mknod(filepath.Join(src, "s"), tc.mode, int(unix.Mkdev(5, 0))))
			assert.NilError(t, os.Chmod(filepath.Join(src, "s"), 0o640)) // the umask took some
			for _, unpack := range []bool{false, true} {
				dst := tree(t, "s=old")
				assert.NilError(t, Copy(t.Context(), dst, src, dockerfile("s", "/s", func(c *graph.Copy) { c.Unpack = unpack }), nil, nil))
				fi, st := lstat(t, dst, "s")
				assert.Equal(t, fi.Mode(), tc.want)
				if name == "device" {
					assert.Equal(t, st.Rdev, unix.Mkdev(5, 0))
				}
			}
			dst := t.TempDir()
			assert.NilError(t, unix.Mknod(filepath.Join(dst, "s"), tc.mode, int(unix.Mkdev(5, 0))))
			assert.NilError(t, Copy(t.Context(), dst, tree(t, "f=new"), dockerfile("f", "/s"), nil, nil))
			assert.Equal(t, show(t, dst), "s=new")
		})
	}
}

func TestCopyCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dst := t.TempDir()
	assert.ErrorIs(t, Copy(ctx, dst, tree(t, "f="), dockerfile("f", "/f"), nil, nil), context.Canceled)
	assert.Equal(t, show(t, dst), "")
}
