package fileop

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/graph"
)

func TestResolveOwner(t *testing.T) {
	t.Parallel()
	trees := []string{
		0: tree(t, "etc/passwd=root:x:0:0:::\napp:x:1000:2000:::\n", "etc/group=root:x:0:\nstaff:x:50:app\n"),
		1: tree(t, "etc/passwd>/data/users", "data/users=app:x:7:8:::\n", "etc/group>../../../../data/groups", "data/groups=staff:x:9:\n"),
		2: tree(t, "etc=a file\n"),
		3: tree(t, "etc/passwd/"),
		4: tree(t, "etc/passwd>/etc/passwd"),
		5: tree(t),
	}
	lookup := func(i int) (string, error) {
		if i == 99 {
			return "", errors.New("boom")
		}
		return trees[i], nil
	}
	name := func(n string, input int) *graph.Identity { return &graph.Identity{Name: n, Input: input} }
	id := func(n int) *graph.Identity { return &graph.Identity{ID: n} }

	for n, tc := range map[string]struct {
		user, group *graph.Identity
		want        ID
		err         string
	}{
		"user_id":                    {user: id(5), want: ID{5, 5}},
		"user_and_group_id":          {user: id(5), group: id(6), want: ID{5, 6}},
		"group_only":                 {group: id(6), want: ID{0, 6}},
		"user_name_brings_its_group": {user: name("app", 0), want: ID{1000, 2000}},
		"user_and_group_name":        {user: name("app", 0), group: name("staff", 0), want: ID{1000, 50}},
		"user_id_group_name":         {user: id(3), group: name("staff", 0), want: ID{3, 50}},
		"links_stay_inside":          {user: name("app", 1), group: name("staff", 1), want: ID{7, 9}},
		"unknown_user":               {user: name("nobody", 0), want: ID{}},
		"unknown_group":              {user: name("app", 0), group: name("nogroup", 0), want: ID{1000, 2000}},
		"no_files":                   {user: name("app", 5), group: name("staff", 5), want: ID{}},
		"etc_is_a_file":              {user: name("app", 2), want: ID{}},
		"passwd_is_a_directory":      {user: name("app", 3), err: "/etc/passwd is not a regular file"},
		"passwd_is_a_loop":           {user: name("app", 4), err: "too many links"},
		"empty_tree":                 {user: name("app", graph.None), err: `user "app": the image has no files`},
		"empty_tree_group":           {group: name("app", graph.None), err: `group "app": the image has no files`},
		"input_fails":                {user: name("app", 99), err: "boom"},
	} {
		t.Run(n, func(t *testing.T) {
			t.Parallel()
			got, err := ResolveOwner(&graph.Owner{User: tc.user, Group: tc.group}, lookup, nil)
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
				return
			}
			assert.NilError(t, err)
			assert.Equal(t, *got, tc.want)
		})
	}
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		got, err := ResolveOwner(nil, lookup, nil)
		assert.NilError(t, err)
		assert.Assert(t, got == nil)
	})
	t.Run("typed", func(t *testing.T) {
		t.Parallel()
		_, err := ResolveOwner(&graph.Owner{User: name("nobody", graph.None)}, lookup, nil)
		unknown, ok := errors.AsType[*UnknownOwnerError](err)
		assert.Assert(t, ok)
		assert.Equal(t, unknown.Name, "nobody")
	})
	t.Run("fifo_does_not_block", func(t *testing.T) {
		t.Parallel()
		root := tree(t, "etc/")
		assert.NilError(t, unix.Mkfifo(filepath.Join(root, "etc/passwd"), 0o644))
		_, err := ResolveOwner(&graph.Owner{User: name("app", 0)}, func(int) (string, error) { return root, nil }, nil)
		assert.ErrorContains(t, err, "not a regular file")
	})
}

func TestResolveOwner_warns_of_unknown_names(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	lookup := func(int) (string, error) { return root, nil }
	var texts []string
	got, err := ResolveOwner(&graph.Owner{User: &graph.Identity{Name: "nope", Input: 0}, Group: &graph.Identity{Name: "none", Input: 0}}, lookup,
		func(text string) { texts = append(texts, text) })
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(got, &ID{}))
	assert.Check(t, is.Len(texts, 2))
	assert.Check(t, is.Contains(texts[0], `no user "nope"`))
	assert.Check(t, is.Contains(texts[1], `no group "none"`))
}
