package identity_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox/identity"
)

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\nnohome:x:1002:1002:::\n"
	group  = "root:x:0:\napp:x:1001:\nvideo:x:44:app,other\naudio:x:29:app\nstaff:x:50:\n"
)

func TestLookup(t *testing.T) {
	t.Parallel()
	root := tree(t, passwd, group)
	for name, tc := range map[string]struct {
		spec string
		want identity.User
	}{
		"empty":             {"", identity.User{Groups: []int{0}, Home: "/root"}},
		"root":              {"root", identity.User{Groups: []int{0}, Home: "/root"}},
		"name":              {"app", identity.User{UID: 1000, GID: 1001, Groups: []int{1001, 44, 29}, Home: "/home/app"}},
		"uid_in_passwd":     {"1000", identity.User{UID: 1000, GID: 1001, Groups: []int{1001, 44, 29}, Home: "/home/app"}},
		"uid_unknown":       {"4242", identity.User{UID: 4242, Groups: []int{0}, Home: "/"}},
		"name_and_group":    {"app:staff", identity.User{UID: 1000, GID: 50, Groups: []int{50}, Home: "/home/app"}},
		"name_and_gid":      {"app:7", identity.User{UID: 1000, GID: 7, Groups: []int{7}, Home: "/home/app"}},
		"uid_and_gid":       {"1000:7", identity.User{UID: 1000, GID: 7, Groups: []int{7}, Home: "/home/app"}},
		"large_ids":         {"3000000000:3000000001", identity.User{UID: 3000000000, GID: 3000000001, Groups: []int{3000000001}, Home: "/"}},
		"uid_and_group":     {"5:audio", identity.User{UID: 5, GID: 29, Groups: []int{29}, Home: "/"}},
		"passwd_lacks_home": {"nohome", identity.User{UID: 1002, GID: 1002, Groups: []int{1002}, Home: "/"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := identity.Lookup(root, tc.spec)
			assert.NilError(t, err)
			assert.DeepEqual(t, got, tc.want)
		})
	}
}

func TestLookup_without_files(t *testing.T) {
	t.Parallel()
	got, err := identity.Lookup(t.TempDir(), "")
	assert.NilError(t, err)
	assert.DeepEqual(t, got, identity.User{Groups: []int{0}, Home: "/"})
}

func TestLookup_unknown(t *testing.T) {
	t.Parallel()
	root := tree(t, passwd, group)
	_, err := identity.Lookup(root, "ghost")
	assert.ErrorIs(t, err, user.ErrNoPasswdEntries)
	assert.ErrorContains(t, err, "ghost")
	_, err = identity.Lookup(root, "app:ghosts")
	assert.ErrorIs(t, err, user.ErrNoGroupEntries)
	assert.ErrorContains(t, err, "ghosts")
	_, err = identity.Lookup(root, "99999999999")
	assert.ErrorIs(t, err, user.ErrRange)
	_, err = identity.Lookup(root, "4294967295:0")
	assert.ErrorIs(t, err, user.ErrRange)
}

func TestLookup_stays_in_the_tree(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "passwd")
	assert.NilError(t, os.WriteFile(outside, []byte("evil:x:6:6::/:\n"), 0o644))
	root := tree(t, "", "")
	assert.NilError(t, os.Symlink(outside, filepath.Join(root, "etc/passwd")))
	_, err := identity.Lookup(root, "evil")
	assert.ErrorIs(t, err, user.ErrNoPasswdEntries)

	// An absolute link is followed below the root.
	root = tree(t, "", group)
	assert.NilError(t, os.MkdirAll(filepath.Join(root, "usr/etc"), 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(root, "usr/etc/passwd"), []byte(passwd), 0o644))
	assert.NilError(t, os.Symlink("/usr/etc/passwd", filepath.Join(root, "etc/passwd")))
	got, err := identity.Lookup(root, "app")
	assert.NilError(t, err)
	assert.Equal(t, got.UID, 1000)
}

func TestLookup_refuses_odd_files(t *testing.T) {
	t.Parallel()
	root := tree(t, "", "")
	assert.NilError(t, unix.Mkfifo(filepath.Join(root, "etc/passwd"), 0o644))
	_, err := identity.Lookup(root, "app")
	assert.ErrorContains(t, err, "/etc/passwd in the image is not a regular file")

	root = tree(t, strings.Repeat("#", 10<<20+1), "")
	_, err = identity.Lookup(root, "app")
	assert.ErrorContains(t, err, "larger than")
}

func tree(t *testing.T, passwd, group string) string {
	t.Helper()
	root := t.TempDir()
	assert.NilError(t, os.MkdirAll(filepath.Join(root, "etc"), 0o755))
	for name, content := range map[string]string{"etc/passwd": passwd, "etc/group": group} {
		if content != "" {
			assert.NilError(t, os.WriteFile(filepath.Join(root, name), []byte(content), 0o644))
		}
	}
	return root
}
