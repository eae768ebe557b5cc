package fileop

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/filetree"
	"github.com/org/kaniko-multiarch/internal/graph"
)

// sumTree has a file and a directory with files, one of which is a link.
func sumTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	assert.NilError(t, os.Chmod(dir, 0o755))
	for _, d := range []string{"d", "d/sub", "other"} {
		assert.NilError(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	for _, f := range []string{"a", "d/b", "d/sub/c", "other/x"} {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, f), []byte(f), 0o644))
	}
	assert.NilError(t, os.Symlink("../other/x", filepath.Join(dir, "d/link")))
	assert.NilError(t, os.Symlink("d", filepath.Join(dir, "dirlink")))
	return dir
}

// What changes the copy changes the digest, and nothing else does.
func TestSums(t *testing.T) {
	t.Parallel()
	write := func(name, text string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644) }
	}
	whole := &graph.Copy{Src: "/", ContentsOnly: true}
	tests := map[string]struct {
		copy   *graph.Copy
		change func(dir string) error
		same   bool
		root   bool
	}{
		"content":       {copy: whole, change: write("a", "A")},
		"times_only":    {copy: whole, change: func(d string) error { return os.Chtimes(filepath.Join(d, "a"), time.Unix(1, 0), time.Unix(1, 0)) }, same: true},
		"chmod_only":    {copy: whole, change: func(d string) error { return os.Chmod(filepath.Join(d, "a"), 0o755) }},
		"chmod_of_dir":  {copy: whole, change: func(d string) error { return os.Chmod(filepath.Join(d, "d/sub"), 0o700) }},
		"owner":         {copy: whole, change: func(d string) error { return os.Chown(filepath.Join(d, "a"), 7, 0) }, root: true},
		"group":         {copy: whole, change: func(d string) error { return os.Chown(filepath.Join(d, "a"), 0, 7) }, root: true},
		"xattr":         {copy: whole, change: func(d string) error { return unix.Setxattr(filepath.Join(d, "a"), "user.x", []byte("1"), 0) }, root: true},
		"deleted":       {copy: whole, change: func(d string) error { return os.Remove(filepath.Join(d, "d/sub/c")) }},
		"new_and_empty": {copy: whole, change: write("d/new", "")},
		"renamed":       {copy: whole, change: func(d string) error { return os.Rename(filepath.Join(d, "a"), filepath.Join(d, "b")) }},
		"moved_content": {copy: whole, change: func(d string) error {
			if err := write("a", "d/b")(d); err != nil {
				return err
			}
			return write("d/b", "a")(d)
		}},
		"link_target": {copy: whole, change: func(d string) error {
			if err := os.Remove(filepath.Join(d, "d/link")); err != nil {
				return err
			}
			return os.Symlink("../a", filepath.Join(d, "d/link"))
		}},
		"hard_link_or_copy": {copy: whole, change: func(d string) error {
			if err := os.Remove(filepath.Join(d, "d/sub/c")); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(d, "d/b"), []byte("d/sub/c"), 0o644); err != nil {
				return err
			}
			return os.Link(filepath.Join(d, "d/b"), filepath.Join(d, "d/sub/c"))
		}},
		"of_what_is_not_copied":      {copy: &graph.Copy{Src: "/d"}, change: write("a", "A"), same: true},
		"link_in_it_is_not_followed": {copy: &graph.Copy{Src: "/d"}, change: write("other/x", "X"), same: true},
		"source_is_a_link":           {copy: &graph.Copy{Src: "/dirlink", FollowSymlink: true}, change: write("d/b", "B")},
		"source_through_a_link":      {copy: &graph.Copy{Src: "/dirlink/b"}, change: write("d/b", "B")},
		"source_link_itself":         {copy: &graph.Copy{Src: "/dirlink"}, change: write("d/b", "B"), same: true},
		"wildcard":                   {copy: &graph.Copy{Src: "/d/s*", Wildcard: true}, change: write("d/sub/c", "C")},
		"wildcard_other":             {copy: &graph.Copy{Src: "/d/s*", Wildcard: true}, change: write("d/b", "B"), same: true},
		"wildcard_new_match":         {copy: &graph.Copy{Src: "/d/s*", Wildcard: true}, change: write("d/same", "")},
		"excluded":                   {copy: &graph.Copy{Src: "/", Exclude: []string{"d"}}, change: write("d/b", "B"), same: true},
		"not_excluded":               {copy: &graph.Copy{Src: "/", Exclude: []string{"d", "!d/b"}}, change: write("d/b", "B")},
		"included":                   {copy: &graph.Copy{Src: "/", Include: []string{"**/c"}}, change: write("d/sub/c", "C")},
		"not_included":               {copy: &graph.Copy{Src: "/", Include: []string{"**/c"}}, change: write("d/b", "B"), same: true},
		"directory_of_included":      {copy: &graph.Copy{Src: "/", Include: []string{"**/c"}}, change: func(d string) error { return os.Chmod(filepath.Join(d, "d"), 0o700) }},
		"directory_of_not_included":  {copy: &graph.Copy{Src: "/", Include: []string{"**/c"}}, change: func(d string) error { return os.Chmod(filepath.Join(d, "other"), 0o700) }, same: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.root && os.Getuid() != 0 {
				t.Skip("needs root")
			}
			dir := sumTree(t)
			if name == "hard_link_or_copy" {
				assert.NilError(t, os.WriteFile(filepath.Join(dir, "d/b"), []byte("d/sub/c"), 0o644))
			}
			before, err := NewSums().Copy(t.Context(), filetree.Dir(dir), tt.copy)
			assert.NilError(t, err)
			assert.NilError(t, tt.change(dir))
			after, err := NewSums().Copy(t.Context(), filetree.Dir(dir), tt.copy)
			assert.NilError(t, err)
			assert.Check(t, is.Equal(before == after, tt.same))
		})
	}
}

func TestSums_missing(t *testing.T) {
	t.Parallel()
	_, err := NewSums().Copy(t.Context(), filetree.Dir(sumTree(t)), &graph.Copy{Src: "/none"})
	_, ok := err.(*NotFoundError)
	assert.Check(t, ok, "%v", err)
}
