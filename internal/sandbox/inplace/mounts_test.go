package inplace_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/inplace"
)

// sources makes a directory with what is to be mounted.
func (w *world) sources(t *testing.T) string {
	t.Helper()
	src, err := os.MkdirTemp(w.state, "source-")
	assert.NilError(t, err)
	write(t, src, "file", "content\n", 0o644)
	write(t, src, "dir/inner", "inner\n", 0o644)
	write(t, src, "cache/old", "old\n", 0o644)
	assert.NilError(t, os.Mkdir(filepath.Join(src, "empty"), 0o750))
	return src
}

func token(mode uint32) *sandbox.File {
	return &sandbox.File{Data: []byte("hunter2\n"), Mode: mode, UID: 1000, GID: 7}
}

func TestRun_mounts(t *testing.T) {
	w := newWorld(t)
	src := w.sources(t)
	for name, tc := range map[string]struct {
		script string
		mounts []sandbox.Mount
		want   string
		fails  bool
	}{
		"read_only_directory": {
			"cat /d/inner; echo x >/d/inner; echo y >/d/new", []sandbox.Mount{{Dest: "/d", Source: src + "/dir", ReadOnly: true}}, "inner\n", false,
		},
		"read_only_file":            {"cat /etc/made/file; echo x >/etc/made/file", []sandbox.Mount{{Dest: "/etc/made/file", Source: src + "/file", ReadOnly: true}}, "content\n", false},
		"file_over_a_file":          {"cat /etc/passwd", []sandbox.Mount{{Dest: "/etc/passwd", Source: src + "/file", ReadOnly: true}}, "content\n", false},
		"directory_over_a_full_one": {"ls /home; touch /home/x", []sandbox.Mount{{Dest: "/home", Source: src + "/dir", ReadOnly: true}}, "inner\n", false},
		"cache":                     {"cat /c/old; touch /c/x; rm /c/x", []sandbox.Mount{{Dest: "/c", Source: src + "/cache"}}, "old\n", false},
		"secret": {
			"cat /run/secrets/token; stat -c '%a %u %g' /run/secrets/token", []sandbox.Mount{{Dest: "/run/secrets/token", File: token(0o400), ReadOnly: true}},
			"hunter2\n400 1000 7\n", false,
		},
		"secret_moved_and_linked": {
			"ln /token /linked; mv /token /home/app/kept; cat /home/app/kept /linked; rm /linked", []sandbox.Mount{{Dest: "/token", File: token(0o444)}},
			"hunter2\nhunter2\n", false,
		},
		"tmpfs_at_a_new_place":      {"stat -c %a /scratch; echo x >/scratch/x", []sandbox.Mount{{Dest: "/scratch", Size: 4096}}, "1777\n", false},
		"tmpfs_over_a_full_one":     {"stat -c %a /home; ls /home; echo x >/home/x", []sandbox.Mount{{Dest: "/home"}}, "755\n", false},
		"shared_memory":             {"echo x >/dev/shm/x; cat /dev/shm/x", []sandbox.Mount{{Dest: "/dev/shm", Size: 1 << 20}}, "x\n", false},
		"program_below_dev":         {"sh /dev/pipes/EOF", []sandbox.Mount{{Dest: "/dev/pipes", Source: src + "/script", ReadOnly: true}}, "from a pipe\n", false},
		"secret_below_dev":          {"cat /dev/token", []sandbox.Mount{{Dest: "/dev/token", File: token(0o444)}}, "hunter2\n", false},
		"hosts_of_the_user":         {"cat /etc/hosts", []sandbox.Mount{{Dest: "/etc/hosts", Source: src + "/file", ReadOnly: true}}, "content\n", false},
		"later_one_wins":            {"cat /d", []sandbox.Mount{{Dest: "/d", File: token(0o444)}, {Dest: "/d/", Source: src + "/file", ReadOnly: true}}, "content\n", false},
		"same_source_twice":         {"cat /a /b", []sandbox.Mount{{Dest: "/a", Source: src + "/file", ReadOnly: true}, {Dest: "/b", Source: src + "/file", ReadOnly: true}}, "content\ncontent\n", false},
		"nested_in_any_order":       {"cat /d/sub/deep /d/inner; cat /d/sub/token", []sandbox.Mount{{Dest: "/d/sub/token", File: token(0o444)}, {Dest: "/d/sub/deep", Source: src + "/file", ReadOnly: true}, {Dest: "/d/sub"}, {Dest: "/d", Source: src + "/dir", ReadOnly: true}}, "content\ninner\nhunter2\n", false},
		"through_a_link":            {"cat /etc/link/x/inner", []sandbox.Mount{{Dest: "/etc/link/x", Source: src + "/dir", ReadOnly: true}}, "inner\n", false},
		"failed_step":               {"touch /c/x; rm /c/x; exit 3", []sandbox.Mount{{Dest: "/c", Source: src + "/cache"}, {Dest: "/token", File: token(0o400)}, {Dest: "/etc/x/y", Source: src + "/dir", ReadOnly: true}}, "", true},
		"deletes_its_mount_points":  {"rm -rf /d /token /scratch", []sandbox.Mount{{Dest: "/d", Source: src + "/dir", ReadOnly: true}, {Dest: "/token", File: token(0o444)}, {Dest: "/scratch"}}, "", false},
		"deletes_their_parents":     {"rm -rf /home", []sandbox.Mount{{Dest: "/home/app/d", Source: src + "/dir", ReadOnly: true}}, "", false},
		"without_write_permissions": {"mkdir /scratch/a; touch /scratch/a/b; chmod 0 /scratch/a", []sandbox.Mount{{Dest: "/scratch"}}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, src, "script/EOF", "echo from a pipe\n", 0o644)
			tree := w.newTree(t)
			assert.NilError(t, os.Symlink("/tmp", filepath.Join(tree, "etc/link")))
			old := time.Unix(1000000000, 5)
			for _, dir := range []string{"home", "etc", "tmp", ""} {
				assert.NilError(t, os.Chtimes(filepath.Join(tree, dir), old, old))
			}
			before, files, sources := w.look(t), list(t, tree), list(t, src)
			p := shell(tree, tc.script)
			p.Mounts = tc.mounts
			out, stderr, err := w.try(p)
			if tc.fails {
				assert.Equal(t, exitCode(t, err), 3)
			} else {
				assert.NilError(t, err, stderr)
			}
			assert.Equal(t, out, tc.want)
			if name == "deletes_their_parents" {
				// Where a mount point cannot be deleted its parents cannot either.
				files = without(files, "/home", "/home/app")
				assert.DeepEqual(t, without(list(t, tree), "/home", "/home/app"), files)
			} else {
				assert.DeepEqual(t, list(t, tree), files)
				for _, dir := range []string{"home", "etc", "tmp", ""} {
					if info, err := os.Stat(filepath.Join(tree, dir)); err != nil || !info.ModTime().Equal(old) {
						if dir == "home" && name == "secret_moved_and_linked" || dir == "" && strings.HasPrefix(name, "deletes") || dir == "" && strings.HasPrefix(name, "secret_moved") {
							continue
						}
						t.Errorf("/%s has changed: %v", dir, info)
					}
				}
			}
			assert.DeepEqual(t, list(t, src), sources)
			assert.Equal(t, read(t, src, "dir/inner"), "inner\n")
			assert.Equal(t, read(t, src, "file"), "content\n")
			assert.Equal(t, read(t, tree, "etc/passwd")[:5], "root:")
			assert.Equal(t, w.look(t), before)
			for _, name := range list(t, tree) {
				if info, err := os.Stat(filepath.Join(tree, name)); err == nil && info.Mode().IsRegular() {
					assert.Assert(t, !strings.Contains(read(t, tree, name), "hunter2"), name)
				}
			}
		})
	}
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

// What a step does to a cache is there for the next one, even when it treats
// the mount point as it could not if it were one.
func TestRun_cache(t *testing.T) {
	w := newWorld(t)
	for name, tc := range map[string]struct {
		script string
		want   []string
	}{
		"added":            {"echo x >/var/c/new", []string{"/new", "/old"}},
		"emptied":          {"rm -rf /var/c/*", nil},
		"deleted":          {"rm -rf /var/c", nil},
		"parent_deleted":   {"rm -rf /var", nil},
		"moved":            {"touch /var/c/new; mv /var/c /elsewhere", []string{"/new", "/old"}},
		"moved_and_made":   {"mv /var/c /elsewhere; mkdir /var/c; touch /var/c/other", []string{"/old"}},
		"parent_moved":     {"mv /var /usr", []string{"/old"}},
		"replaced_by_link": {"touch /var/c/new; mv /var/c /elsewhere; ln -s /etc /var/c", []string{"/new", "/old"}},
	} {
		t.Run(name, func(t *testing.T) {
			cache := filepath.Join(w.sources(t), "cache")
			tree := w.newTree(t)
			before := w.look(t)
			p := shell(tree, tc.script)
			p.Mounts = []sandbox.Mount{{Dest: "/var/c", Source: cache}}
			w.run(t, p)
			assert.DeepEqual(t, list(t, cache), tc.want)
			assert.Assert(t, !exists(filepath.Join(tree, "elsewhere")))
			assert.Assert(t, !exists(filepath.Join(tree, "var/c")))
			assert.Equal(t, w.look(t), before)
		})
	}
	t.Run("parent_replaced_by_link", func(t *testing.T) {
		cache := filepath.Join(w.sources(t), "cache")
		tree, other := w.newTree(t), w.newTree(t)
		write(t, other, "a/c/precious", "x\n", 0o644)
		before := w.look(t)
		p := shell(tree, "mv /var/a/c /x; rm -r /var; ln -s "+strings.TrimPrefix(other, strings.TrimSuffix(w.root, "/"))+" /var")
		p.Mounts = []sandbox.Mount{{Dest: "/var/a/c", Source: cache}}
		_, _, err := w.try(p)
		var replaced *inplace.ReplacedError
		assert.Assert(t, errors.As(err, &replaced), "%v", err)
		assert.DeepEqual(t, list(t, cache), []string{"/old"})
		assert.Equal(t, read(t, other, "a/c/precious"), "x\n")
		assert.Equal(t, w.look(t), before)
		// It is this step's failure, and nothing is left to recover.
		assert.Equal(t, w.run(t, shell(other, "echo ok")), "ok\n")
	})
}

// A directory of another file system cannot be moved, so it is copied there and
// back.
func TestRun_cache_on_a_volume(t *testing.T) {
	w := newWorld(t)
	cache := filepath.Join(w.root, "volume/cache")
	write(t, cache, "old", "old\n", 0o644)
	t.Cleanup(func() { assert.NilError(t, os.RemoveAll(cache)) })
	p := shell(w.newTree(t), "cat /c/old; echo new >/c/new; rm /c/old")
	p.Mounts = []sandbox.Mount{{Dest: "/c", Source: cache}}
	assert.Equal(t, w.run(t, p), "old\n")
	assert.DeepEqual(t, list(t, cache), []string{"/new"})
}

func TestRun_mount_errors(t *testing.T) {
	w := newWorld(t)
	src := w.sources(t)
	for name, tc := range map[string]struct {
		mounts []sandbox.Mount
		want   string
	}{
		"file_on_directory": {[]sandbox.Mount{{Dest: "/tmp", Source: src + "/file"}}, "mounting /tmp: a file cannot be mounted on a directory"},
		"directory_on_file": {[]sandbox.Mount{{Dest: "/etc/passwd", Source: src + "/dir"}}, "mounting /etc/passwd: a directory cannot be mounted on a file"},
		"below_a_file":      {[]sandbox.Mount{{Dest: "/etc/passwd/x", Source: src + "/dir"}}, "mounting /etc/passwd/x: making the mount point: not a directory"},
		"one_cache_twice":   {[]sandbox.Mount{{Dest: "/a", Source: src + "/cache"}, {Dest: "/b", Source: src + "/cache"}}, "at both /a and /b"},
		"at_a_volume":       {[]sandbox.Mount{{Dest: "/volume/x", Source: src + "/dir"}}, "the image has /volume, which is a mount point"},
		"sys":               {[]sandbox.Mount{{Dest: "/sys"}}, "a mount at /sys"},
		"second_one":        {[]sandbox.Mount{{Dest: "/a", Source: src + "/cache"}, {Dest: "/tmp", Source: src + "/file"}}, "mounting /tmp"},
	} {
		t.Run(name, func(t *testing.T) {
			tree := w.newTree(t)
			before, files, sources := w.look(t), list(t, tree), list(t, src)
			p := shell(tree, "echo ran")
			p.Mounts = tc.mounts
			out, _, err := w.try(p)
			assert.ErrorContains(t, err, tc.want)
			assert.Equal(t, out, "")
			assert.DeepEqual(t, list(t, tree), files)
			assert.DeepEqual(t, list(t, src), sources)
			assert.Equal(t, w.look(t), before)
		})
	}
}
