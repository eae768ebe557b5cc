package inplace_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/inplace"
)

func TestRun_changes_are_in_the_tree(t *testing.T) {
	w := newWorld(t)
	tree := w.newTree(t)
	before := w.look(t)
	w.run(t, shell(tree, "echo a >/new; mkdir -p /srv/x; echo b >/etc/made; rm -r /home; mv /tmp /tmp2; echo c >>/etc/passwd; chmod 700 /root; mkdir /kaniko/mine; touch /kaniko/mine/x"))
	assert.Equal(t, read(t, tree, "new"), "a\n")
	assert.Equal(t, read(t, tree, "etc/made"), "b\n")
	assert.Assert(t, exists(filepath.Join(tree, "srv/x")))
	assert.Assert(t, exists(filepath.Join(tree, "tmp2")))
	assert.Assert(t, exists(filepath.Join(tree, "kaniko/mine/x")))
	assert.Assert(t, !exists(filepath.Join(tree, "home")))
	assert.Assert(t, !exists(filepath.Join(tree, "kaniko/executor")))
	assert.Equal(t, w.look(t), before)

	// The next step finds what the one before it has left.
	assert.Equal(t, w.run(t, shell(tree, "cat /new /etc/made; ls -d /tmp2 /kaniko/mine/x; rm -r /kaniko/mine /srv")), "a\nb\n/kaniko/mine/x\n/tmp2\n")
	assert.Assert(t, !exists(filepath.Join(tree, "srv")))
	assert.Assert(t, !exists(filepath.Join(tree, "kaniko/mine")))
	assert.Equal(t, w.look(t), before)
}

// What belongs to the container is out of sight, and back afterwards.
func TestRun_hides_the_container(t *testing.T) {
	w := newWorld(t)
	tree := w.newTree(t)
	before := w.look(t)
	for _, mount := range w.mounts() {
		assert.Assert(t, strings.Contains(before, mount), before)
	}
	for name, script := range map[string]string{
		"nothing":         "true",
		"same_names":      "mkdir -p /github/workspace /var/run /busybox; echo x >/var/run/docker.sock; echo y >/github/workspace/mine; echo z >/busybox/sh; echo >/.dockerenv",
		"delete_the_same": "mkdir -p /github /var; rm -rf /github /var /busybox",
	} {
		t.Run(name, func(t *testing.T) {
			out := w.run(t, shell(tree, "for p in /github /var /busybox /.dockerenv /etc/mtab; do [ -e $p ] && echo $p; done; "+script))
			assert.Equal(t, out, "")
			assert.Equal(t, w.look(t), before)
			if name == "same_names" {
				assert.Equal(t, read(t, tree, "var/run/docker.sock"), "x\n")
				assert.Equal(t, read(t, tree, "github/workspace/mine"), "y\n")
			}
			for _, p := range []string{"github", "var", "busybox", ".dockerenv"} {
				assert.NilError(t, os.RemoveAll(filepath.Join(tree, p)))
			}
		})
	}
}

func TestRun_deletes_what_it_can(t *testing.T) {
	w := newWorld(t)
	tree := w.newTree(t)
	write(t, tree, "etc/hosts", "of the image\n", 0o640)
	before := w.look(t)
	_, _, err := w.try(shell(tree, "cp /bin/busybox /tmp; cd /; for p in * .[a-z]*; do [ $p = kaniko ] || [ $p = volume ] || /tmp/busybox rm -rf /$p; done 2>/dev/null; exit 4"))
	assert.Equal(t, exitCode(t, err), 4)
	assert.Equal(t, w.look(t), before)
	// /etc and what was hidden in it stay, as where they are mount points.
	assert.DeepEqual(t, list(t, tree), []string{"/dev", "/etc", "/etc/hosts", "/proc", "/sys"})
	assert.Equal(t, read(t, tree, "etc/hosts"), "of the image\n")
}

// A step can delete the builder's own directory, and with it what was moved
// aside; all the rest must be put back.
func TestRun_deletes_the_builder(t *testing.T) {
	if inContainer() && os.Getenv(containerVar) != "doomed" {
		t.Skip("needs a container of its own")
	}
	w := newWorld(t)
	tree, next := w.newTree(t), []byte(read(t, "", busybox()))
	hosts := read(t, w.root, "etc/hosts")
	_, _, err := w.try(shell(tree, "cp /bin/busybox /tmp; touch /var; /tmp/busybox rm -rf /kaniko /etc /bin; /tmp/busybox touch /made; exit 5"))
	var lost *inplace.LostError
	if !errors.As(err, &lost) {
		t.Fatal(err) // there are no sources here for assert to read
	}
	if exitCode(t, err) != 5 || len(lost.Paths) == 0 {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(lost.Paths, " "), "/kaniko/") {
		t.Fatal(err)
	}
	if got := strings.Join(list(t, tree), " "); !strings.HasPrefix(got, "/home /home/app /made /root ") {
		t.Fatal(got)
	}
	if !exists(filepath.Join(w.root, "volume")) {
		t.Fatal("the volume is gone")
	}
	assert.Equal(t, read(t, w.root, "etc/hosts"), hosts)

	// It goes on as well as it can.
	write(t, "", busybox(), string(next), 0o755)
	assert.Equal(t, w.run(t, shell(w.newTree(t), "echo again")), "again\n")
}

func TestRun_looks_of_directories(t *testing.T) {
	w := newWorld(t)
	tree := w.newTree(t)
	old := time.Unix(1000000000, 123456789)
	assert.NilError(t, os.Chmod(filepath.Join(tree, "etc"), 0o750))
	assert.NilError(t, os.Chown(filepath.Join(tree, "etc"), 7, 8))
	assert.NilError(t, unix.Setxattr(filepath.Join(tree, "etc"), "user.kind", []byte("x"), 0))
	assert.NilError(t, os.Chmod(tree, 0o711))
	for _, dir := range []string{"etc", ""} {
		assert.NilError(t, os.Chtimes(filepath.Join(tree, dir), old, old))
	}
	before := w.look(t)

	assert.Equal(t, w.run(t, shell(tree, "stat -c '%a %u %g %Y' /etc; stat -c '%a %Y' /")), "750 7 8 1000000000\n711 1000000000\n")
	for _, dir := range []string{"etc", ""} {
		info, err := os.Stat(filepath.Join(tree, dir))
		assert.NilError(t, err)
		assert.Assert(t, info.ModTime().Equal(old), "%s: %v", dir, info.ModTime())
	}
	assert.Equal(t, w.look(t), before)

	w.run(t, shell(tree, "chmod 700 /etc; chown 0:0 /etc; echo >/etc/new; chmod 755 /"))
	var st unix.Stat_t
	assert.NilError(t, unix.Stat(filepath.Join(tree, "etc"), &st))
	assert.Equal(t, st.Mode&0o7777, uint32(0o700))
	assert.Equal(t, st.Uid, uint32(0))
	assert.Assert(t, st.Mtim.Sec > 1000000000)
	value := make([]byte, 9)
	n, err := unix.Getxattr(filepath.Join(tree, "etc"), "user.kind", value)
	assert.NilError(t, err)
	assert.Equal(t, string(value[:n]), "x")
	assert.NilError(t, unix.Stat(tree, &st))
	assert.Equal(t, st.Mode&0o7777, uint32(0o755))
	assert.Equal(t, w.look(t), before)
}

func TestRun_files_of_the_container(t *testing.T) {
	w := newWorld(t)
	tree := w.newTree(t)
	write(t, tree, "etc/resolv.conf", "of the image\n", 0o600)
	hosts, resolver := read(t, w.root, "etc/hosts"), read(t, w.root, "etc/resolv.conf")
	before := w.look(t)
	assert.Equal(t, w.run(t, shell(tree, "cat /etc/resolv.conf; echo x >/etc/resolv.conf; echo y >>/etc/hosts; chmod 600 /etc/hosts; echo z >/etc/hostname")), resolver)
	assert.Equal(t, w.look(t), before)
	assert.Equal(t, read(t, tree, "etc/resolv.conf"), "of the image\n")
	assert.Assert(t, !exists(filepath.Join(tree, "etc/hosts")))
	assert.Assert(t, !exists(filepath.Join(tree, "etc/hostname")))

	p := shell(tree, "cat /etc/hosts")
	p.ExtraHosts = []sandbox.HostIP{{Host: "db", IP: "10.0.0.7"}, {Host: "www", IP: "::7"}}
	assert.Equal(t, w.run(t, p), hosts+"10.0.0.7\tdb\n::7\twww\n")
	assert.Equal(t, w.look(t), before)
}

func TestRun_devices_are_as_before(t *testing.T) {
	w := newWorld(t)
	tree := w.newTree(t)
	before := w.look(t)
	w.run(t, shell(tree, "mkdir /dev/dir /dev/shm/dir; echo x >/dev/dir/x; echo x >/dev/shm/x; rm /dev/null /dev/stdout; echo y >/dev/null; chmod 600 /dev/zero; mknod /dev/urandom2 c 1 9"))
	assert.Equal(t, w.look(t), before)
	assert.Equal(t, w.run(t, shell(tree, "echo x >/dev/null; test -c /dev/null && echo ok >/dev/stdout")), "ok\n")
}

func TestRun_shapes_of_trees(t *testing.T) {
	w := newWorld(t)
	for name, tc := range map[string]struct {
		prepare func(t *testing.T, tree string)
		script  string
		want    string
		after   func(t *testing.T, tree string)
	}{
		"usrmerge": {
			func(t *testing.T, tree string) {
				assert.NilError(t, os.Mkdir(filepath.Join(tree, "usr"), 0o755))
				assert.NilError(t, os.Rename(filepath.Join(tree, "bin"), filepath.Join(tree, "usr/bin")))
				assert.NilError(t, os.Symlink("usr/bin", filepath.Join(tree, "bin")))
			},
			"readlink /bin; touch /bin/new", "usr/bin\n",
			func(t *testing.T, tree string) { assert.Assert(t, exists(filepath.Join(tree, "usr/bin/new"))) },
		},
		"without_etc": {
			func(t *testing.T, tree string) { assert.NilError(t, os.RemoveAll(filepath.Join(tree, "etc"))) },
			"ls /etc | grep -c resolv", "1\n",
			func(t *testing.T, tree string) { assert.Assert(t, !exists(filepath.Join(tree, "etc"))) },
		},
		"makes_etc": {
			func(t *testing.T, tree string) { assert.NilError(t, os.RemoveAll(filepath.Join(tree, "etc"))) },
			"echo x >/etc/made", "",
			func(t *testing.T, tree string) { assert.Equal(t, read(t, tree, "etc/made"), "x\n") },
		},
		"without_proc": {
			func(t *testing.T, tree string) {
				for _, d := range []string{"proc", "sys", "dev"} {
					assert.NilError(t, os.Remove(filepath.Join(tree, d)))
				}
			},
			"test -e /proc/self && echo ok", "ok\n",
			func(t *testing.T, tree string) { assert.Assert(t, exists(filepath.Join(tree, "proc"))) },
		},
		"with_devices": {
			func(t *testing.T, tree string) { write(t, tree, "dev/console", "mine", 0o644) },
			"test -e /dev/console && cat /dev/console; true", "",
			func(t *testing.T, tree string) { assert.Equal(t, read(t, tree, "dev/console"), "mine") },
		},
		"file_where_we_have_a_directory": {
			func(t *testing.T, tree string) { write(t, tree, "github", "a file\n", 0o644) },
			"cat /github", "a file\n",
			func(t *testing.T, tree string) { assert.Equal(t, read(t, tree, "github"), "a file\n") },
		},
		"link_where_we_have_a_directory": {
			func(t *testing.T, tree string) {
				assert.NilError(t, os.Symlink("/bin", filepath.Join(tree, "busybox")))
			},
			"ls /busybox/sh; readlink /busybox", "/busybox/sh\n/bin\n",
			func(t *testing.T, tree string) { assert.Assert(t, exists(filepath.Join(tree, "busybox"))) },
		},
		"directory_where_we_have_one": {
			func(t *testing.T, tree string) { write(t, tree, "busybox/theirs", "x\n", 0o644) },
			"ls /busybox; echo y >/busybox/new", "theirs\n",
			func(t *testing.T, tree string) { assert.Equal(t, read(t, tree, "busybox/new"), "y\n") },
		},
		"replaces_a_directory_by_a_file": {
			func(t *testing.T, tree string) { write(t, tree, "busybox/theirs", "x\n", 0o644) },
			"rm -r /busybox; echo y >/busybox", "",
			func(t *testing.T, tree string) { assert.Equal(t, read(t, tree, "busybox"), "y\n") },
		},
		"beside_the_builder": {
			func(t *testing.T, tree string) { write(t, tree, "kaniko/theirs", "x\n", 0o644) },
			"cat /kaniko/theirs; echo y >/kaniko/theirs", "x\n",
			func(t *testing.T, tree string) {
				assert.Equal(t, read(t, tree, "kaniko/theirs"), "y\n")
				entries, err := os.ReadDir(filepath.Join(tree, "kaniko"))
				assert.NilError(t, err)
				assert.Equal(t, len(entries), 1)
			},
		},
		"odd_names": {
			func(t *testing.T, tree string) {
				write(t, tree, "a \xff\n\"b/x", "odd\n", 0o644)
				write(t, tree, "etc/\xff", "odd\n", 0o644)
			},
			"cat /a*/x /etc/?", "odd\nodd\n",
			func(t *testing.T, tree string) { assert.Equal(t, read(t, tree, "a \xff\n\"b/x"), "odd\n") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			tree := w.newTree(t)
			before := w.look(t)
			tc.prepare(t, tree)
			assert.Equal(t, w.run(t, shell(tree, tc.script)), tc.want)
			tc.after(t, tree)
			assert.Equal(t, w.look(t), before)
		})
	}
}

func TestRun_conflicts(t *testing.T) {
	w := newWorld(t)
	for name, tc := range map[string]struct{ path, want string }{
		"file_at_a_mount_point":        {"volume", "the image has /volume, which is a mount point"},
		"in_a_directory_at_a_mount":    {"volume/x", "the image has /volume, which is a mount point"},
		"the_builder":                  {"kaniko/state/x", "the image has /kaniko/state, which is a path of the builder itself"},
		"file_in_place_of_the_builder": {"kaniko", "the image has /kaniko, which is a path of the builder itself"},
	} {
		t.Run(name, func(t *testing.T) {
			tree := w.newTree(t)
			write(t, tree, tc.path, "mine\n", 0o644)
			before, files := w.look(t), list(t, tree)
			out, _, err := w.try(shell(tree, "echo ran"))
			var conflict *inplace.ConflictError
			assert.Assert(t, errors.As(err, &conflict), "%v", err)
			assert.ErrorContains(t, err, tc.want)
			assert.Equal(t, out, "")
			assert.Equal(t, w.look(t), before)
			assert.DeepEqual(t, list(t, tree), files)
			assert.Equal(t, read(t, tree, tc.path), "mine\n")
		})
	}
	t.Run("link_in_place_of_proc", func(t *testing.T) {
		tree := w.newTree(t)
		assert.NilError(t, os.Remove(filepath.Join(tree, "proc")))
		assert.NilError(t, os.Symlink("/tmp", filepath.Join(tree, "proc")))
		before := w.look(t)
		_, _, err := w.try(shell(tree, "echo ran"))
		assert.ErrorContains(t, err, "mounting /proc: it is a symbolic link in the image")
		assert.Equal(t, w.look(t), before)
	})
}

func TestRun_writes_into_a_volume_are_not_lost_silently(t *testing.T) {
	w := newWorld(t)
	tree := w.newTree(t)
	_, _, err := w.try(shell(tree, "mkdir -p /volume; echo x >/volume/new"))
	var written *inplace.WrittenError
	assert.Assert(t, errors.As(err, &written), "%v", err)
	assert.Equal(t, written.Path, "/volume")
	assert.NilError(t, os.Remove(filepath.Join(w.root, "volume/new")))
}
