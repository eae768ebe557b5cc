package namespaces_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

func TestRun_mounts(t *testing.T) {
	t.Parallel()
	src := t.TempDir()
	write(t, src, "file", "content\n", 0o644)
	write(t, src, "secret", "hunter2\n", 0o400)
	assert.NilError(t, os.MkdirAll(filepath.Join(src, "dir/sub"), 0o755))
	write(t, src, "dir/inner", "inner\n", 0o644)
	for name, tc := range map[string]struct {
		script string
		user   string
		mounts []sandbox.Mount
		want   string
	}{
		"bind_writable": {
			"echo new >/d/new; cat /d/inner", "", []sandbox.Mount{{Dest: "/d", Source: src + "/dir"}}, "inner\n",
		},
		"bind_read_only": {
			"cat /d/inner; touch /d/x 2>&1", "", []sandbox.Mount{{Dest: "/d", Source: src + "/dir", ReadOnly: true}},
			"inner\ntouch: /d/x: Read-only file system\n",
		},
		"file": {
			"cat /etc/made/file", "", []sandbox.Mount{{Dest: "/etc/made/file", Source: src + "/file", ReadOnly: true}}, "content\n",
		},
		"file_over_a_file": {
			"cat /etc/passwd", "0:0", []sandbox.Mount{{Dest: "/etc/passwd", Source: src + "/file"}}, "content\n",
		},
		"secret": {
			"cat /run/secrets/token; stat -c %a /run/secrets/token; (echo x >/run/secrets/token) 2>&1 | grep -c 'Read-only'", "",
			[]sandbox.Mount{{Dest: "/run/secrets/token", Source: src + "/secret", ReadOnly: true}}, "hunter2\n400\n1\n",
		},
		"secret_is_not_for_others": {
			"cat /run/secrets/token 2>&1", "app", []sandbox.Mount{{Dest: "/run/secrets/token", Source: src + "/secret", ReadOnly: true}},
			"cat: can't open '/run/secrets/token': Permission denied\n",
		},
		"tmpfs_at_a_new_place": {
			"stat -c %a /scratch; grep ' /scratch ' /proc/mounts | grep -c nosuid", "", []sandbox.Mount{{Dest: "/scratch"}}, "1777\n1\n",
		},
		"tmpfs_looks_like_what_it_hides": {
			"stat -c %a /root; ls -A /root", "", []sandbox.Mount{{Dest: "/root"}}, "700\n",
		},
		"tmpfs_of_a_size": {
			"head -c 200000 /dev/zero >/scratch/x || stat -c %s /scratch/x", "", []sandbox.Mount{{Dest: "/scratch", Size: 65536}}, "65536\n",
		},
		"tmpfs_read_only": {
			"touch /scratch/x 2>&1", "", []sandbox.Mount{{Dest: "/scratch", ReadOnly: true}}, "touch: /scratch/x: Read-only file system\n",
		},
		"shared_memory_of_a_size": {
			"grep ' /dev/shm ' /proc/mounts | grep -o size=[0-9]*k; stat -c %a /dev/shm", "", []sandbox.Mount{{Dest: "/dev/shm", Size: 1 << 20}}, "size=1024k\n1777\n",
		},
		"nested_in_any_order": {
			"cat /d/sub/deep; cat /d/inner", "",
			[]sandbox.Mount{{Dest: "/d/sub/deep", Source: src + "/file"}, {Dest: "/d/sub"}, {Dest: "/d", Source: src + "/dir", ReadOnly: true}},
			"content\ninner\n",
		},
		"later_one_wins": {
			"cat /d", "", []sandbox.Mount{{Dest: "/d", Source: src + "/secret"}, {Dest: "/d/", Source: src + "/file"}}, "content\n",
		},
		"hosts_of_the_user": {
			"cat /etc/hosts", "", []sandbox.Mount{{Dest: "/etc/hosts", Source: src + "/file"}}, "content\n",
		},
		"dev_of_the_user": {
			"cat /dev/inner", "", []sandbox.Mount{{Dest: "/dev", Source: src + "/dev"}}, "mine\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := newRoot(t)
			assert.NilError(t, os.Chmod(filepath.Join(root, "root"), 0o700))
			if name == "dev_of_the_user" {
				assert.NilError(t, os.MkdirAll(filepath.Join(src, "dev"), 0o755))
				write(t, src, "dev/inner", "mine\n", 0o644)
				write(t, src, "dev/null", "", 0o644)
			}
			before := list(t, root)
			p := shell(root, tc.script+"; true")
			p.User, p.Mounts, p.RemoveStubs = tc.user, tc.mounts, true
			assert.Equal(t, run(t, p), tc.want)
			assert.DeepEqual(t, without(list(t, root), "/dev", "/proc", "/sys"), before)
		})
	}
	t.Cleanup(func() {
		content, err := os.ReadFile(filepath.Join(src, "dir/new"))
		assert.NilError(t, err)
		assert.Equal(t, string(content), "new\n")
	})
}

func without(list []string, names ...string) []string {
	var out []string
	for _, path := range list {
		keep := true
		for _, name := range names {
			keep = keep && path != name
		}
		if keep {
			out = append(out, path)
		}
	}
	return out
}

func TestRun_mount_errors(t *testing.T) {
	t.Parallel()
	src := t.TempDir()
	write(t, src, "file", "", 0o644)
	assert.NilError(t, os.Mkdir(filepath.Join(src, "empty"), 0o755))
	for name, tc := range map[string]struct {
		mounts []sandbox.Mount
		want   string
	}{
		"file_on_directory":    {[]sandbox.Mount{{Dest: "/tmp", Source: src + "/file"}}, "mounting /tmp: a file cannot be mounted on a directory"},
		"directory_on_file":    {[]sandbox.Mount{{Dest: "/etc/passwd", Source: src}}, "mounting /etc/passwd: a directory cannot be mounted on a file"},
		"below_a_file":         {[]sandbox.Mount{{Dest: "/etc/passwd/x", Source: src}}, "mounting /etc/passwd/x: making the mount point: not a directory"},
		"below_read_only":      {[]sandbox.Mount{{Dest: "/d", Source: src + "/empty", ReadOnly: true}, {Dest: "/d/x"}}, "mounting /d/x: the mount point does not exist and lies below a read-only mount"},
		"link_in_place_of_sys": {nil, "mounting /sys: it is a symbolic link in the image"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := newRoot(t)
			if name == "link_in_place_of_sys" {
				assert.NilError(t, os.Symlink("/tmp", filepath.Join(root, "sys")))
			}
			before := list(t, root)
			p := shell(root, "echo ran")
			p.Mounts = tc.mounts
			p.RemoveStubs = true
			out, _, err := try(p)
			assert.ErrorContains(t, err, tc.want)
			assert.Assert(t, !strings.Contains(err.Error(), root), "%v", err)
			assert.Equal(t, out, "")
			assert.DeepEqual(t, without(list(t, root), "/dev", "/proc", "/sys"), without(before, "/sys"))
		})
	}
}

func TestRun_symlinks_stay_inside(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	src := t.TempDir()
	write(t, src, "file", "content\n", 0o644)
	for name, tc := range map[string]struct {
		// links are made in the root: path, target.
		links [][2]string
		dest  string
		file  bool
		see   string
	}{
		"absolute":            {[][2]string{{"link", outside}}, "/link/x", false, outside + "/x"},
		"upwards":             {[][2]string{{"link", "../../../../../../../../../../.." + outside}}, "/link/x", false, outside + "/x"},
		"last_part":           {[][2]string{{"link", outside}}, "/link", false, outside},
		"last_part_of_a_file": {[][2]string{{"link", outside + "/f"}}, "/link", true, outside + "/f"},
		"resolver_dangling":   {[][2]string{{"etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"}}, "/run/x", false, "/run/systemd/resolve/stub-resolv.conf"},
		"hosts":               {[][2]string{{"etc/hosts", outside + "/hosts"}}, "/x", false, outside + "/hosts"},
		"chain":               {[][2]string{{"a", "/b"}, {"b", "c/../../../" + outside}}, "/a/x", false, outside + "/x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := newRoot(t)
			for _, l := range tc.links {
				assert.NilError(t, os.Symlink(l[1], filepath.Join(root, l[0])))
			}
			before := list(t, root)
			p := shell(root, "test -e "+tc.see+" && echo seen")
			p.Mounts = []sandbox.Mount{{Dest: tc.dest, Source: src}}
			if tc.file {
				p.Mounts[0].Source = src + "/file"
			}
			p.RemoveStubs = true
			assert.Equal(t, run(t, p), "seen\n")
			entries, err := os.ReadDir(outside)
			assert.NilError(t, err)
			assert.Equal(t, len(entries), 0)
			assert.DeepEqual(t, without(list(t, root), "/dev", "/proc", "/sys"), before)
		})
	}
}

func TestRun_cwd_is_made(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	p := shell(root, "pwd; touch here; stat -c %u:%g:%a . ..")
	p.Cwd, p.User = "/new/deep", "app"
	assert.Equal(t, run(t, p), "/new/deep\n1000:1001:755\n1000:1001:755\n")
	assert.Assert(t, exists(filepath.Join(root, "new/deep/here")))

	// Within a mount it is the builder's, as under runc.
	p = shell(root, "pwd; stat -c %u:%a .")
	p.Cwd, p.Mounts = "/cache/sub", []sandbox.Mount{{Dest: "/cache"}}
	assert.Equal(t, run(t, p), "/cache/sub\n0:755\n")

	outside := t.TempDir()
	assert.NilError(t, os.Symlink(outside, filepath.Join(root, "away")))
	p = shell(root, "readlink -f .")
	p.Cwd = "/away/work"
	assert.Equal(t, run(t, p), outside+"/work\n")
	assert.Assert(t, !exists(filepath.Join(outside, "work")))
}

func TestRun_stubs(t *testing.T) {
	t.Parallel()
	src := t.TempDir()
	write(t, src, "file", "content\n", 0o644)
	for name, tc := range map[string]struct {
		script    string
		dests     []string
		files     []string
		recursive bool
		keep      []string
	}{
		"last_part_only":       {"true", []string{"/a/b/c"}, nil, false, []string{"/a", "/a/b"}},
		"parents_too":          {"true", []string{"/a/b/c"}, nil, true, nil},
		"file":                 {"true", nil, []string{"/a/b/c"}, true, nil},
		"siblings":             {"true", []string{"/a/b", "/a/c"}, []string{"/a/d"}, true, nil},
		"used_parent_stays":    {"echo x >/a/kept", []string{"/a/b/c"}, nil, true, []string{"/a", "/a/kept"}},
		"after_a_failure":      {"exit 3", []string{"/a/b/c"}, []string{"/a/f"}, true, nil},
		"existing_stays":       {"true", []string{"/tmp"}, []string{"/etc/passwd"}, true, nil},
		"hosts_of_the_image":   {"true", nil, nil, true, nil},
		"nested":               {"true", []string{"/a", "/a/b"}, []string{"/a/b/f"}, true, nil},
		"replaced_by_the_step": {"mv /a /b && mkdir -p /a/b && echo x >/a/b/c", nil, nil, true, []string{"/a", "/a/b", "/a/b/c"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := newRoot(t)
			for _, dir := range []string{"proc", "sys", "dev"} {
				assert.NilError(t, os.Mkdir(filepath.Join(root, dir), 0o755))
			}
			if name == "hosts_of_the_image" {
				write(t, root, "etc/hosts", "", 0o644)
				write(t, root, "etc/resolv.conf", "of the image\n", 0o644)
			}
			if name == "replaced_by_the_step" {
				assert.NilError(t, os.Mkdir(filepath.Join(root, "a"), 0o755))
				tc.keep = []string{"/a/b", "/a/b/c", "/b"}
			}
			old := time.Unix(1000000000, 5)
			for _, dir := range []string{"", "etc", "tmp"} {
				assert.NilError(t, os.Chtimes(filepath.Join(root, dir), old, old))
			}
			before := list(t, root)
			p := shell(root, tc.script)
			for _, dest := range tc.dests {
				p.Mounts = append(p.Mounts, sandbox.Mount{Dest: dest})
			}
			for _, dest := range tc.files {
				p.Mounts = append(p.Mounts, sandbox.Mount{Dest: dest, Source: src + "/file"})
			}
			p.RemoveStubs = tc.recursive
			_, stderr, err := try(p)
			if name == "after_a_failure" {
				assert.Equal(t, exitCode(t, err), 3)
			} else {
				assert.NilError(t, err, stderr)
			}
			var added []string
			for _, path := range list(t, root) {
				if !contains(before, path) {
					added = append(added, path)
				}
			}
			assert.DeepEqual(t, added, tc.keep)
			for _, dir := range []string{"", "etc", "tmp"} {
				info, err := os.Stat(filepath.Join(root, dir))
				assert.NilError(t, err)
				changed := dir == "" && (name == "last_part_only" || name == "replaced_by_the_step")
				assert.Equal(t, info.ModTime().Equal(old), !changed, "/%s has time %v", dir, info.ModTime())
			}
		})
	}
}

func contains(list []string, path string) bool {
	for _, p := range list {
		if p == path {
			return true
		}
	}
	return false
}
