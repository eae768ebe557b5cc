package overlay

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// fixture is what steps find: two layers, so that a view is a mount.
func fixture(t *testing.T, s *Store) []rootfs.Layer {
	t.Helper()
	return []rootfs.Layer{
		base(t, s, makeTar(t, []item{
			{"d/", tar.TypeDir, ""},
			{"d/a", tar.TypeReg, "aaa"},
			{"d/b", tar.TypeReg, "bbb"},
			{"d/sub/", tar.TypeDir, ""},
			{"d/sub/c", tar.TypeReg, "ccc"},
			{"f", tar.TypeReg, "fff"},
			{"link", tar.TypeSymlink, "f"},
			{"h1", tar.TypeReg, "hhh"},
			{"h2", tar.TypeLink, "h1"},
			{"empty/", tar.TypeDir, ""},
		})),
		base(t, s, makeTar(t, []item{{"e", tar.TypeReg, "eee"}})),
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 150)
	for _, tc := range []struct {
		name, script string
		want         []string
	}{
		{"nothing", "true", nil},
		{"read", "cat d/a; ls -R; stat *", nil},
		{"new_file", "echo x >d/n", []string{"d/", "d/n"}},
		{"new_tree", "mkdir -p x/y; echo 1 >x/y/z", []string{"x/", "x/y/", "x/y/z"}},
		{"append", "echo x >>d/a", []string{"d/", "d/a"}},
		{"open_for_writing", "exec 3>>d/a", nil},
		{"same_content_same_time", "cp -p d/a t; cat t >d/a; touch -r t d/a; rm t", nil},
		{"same_content_new_time", "cat d/a >t; cat t >d/a; rm t", []string{"d/", "d/a"}},
		{"other_content_same_size_and_time", "cp -p d/a t; echo -n xxx >d/a; touch -r t d/a; rm t", []string{"d/", "d/a"}},
		{"moved_there_and_back", "cp -p f t; mv f g; mv g f; rm t", nil},
		{"chmod", "chmod 600 d/a", []string{"d/", "d/a"}},
		{"chmod_and_back", "chmod 600 d/a; chmod 755 d/a", nil},
		{"chmod_directory", "chmod 700 d/sub", []string{"d/", "d/sub/"}},
		{"chown", "chown 5:6 f", []string{"f"}},
		{"touch", "touch f", []string{"f"}},
		{"touch_nanosecond", "touch -d @1000.000000001 f", []string{"f"}},
		{"touch_directory", "touch empty", []string{"empty/"}},
		{"chmod_root", "chmod 711 .", nil},
		{"delete", "rm f", []string{".wh.f"}},
		{"delete_deep", "rm d/sub/c", []string{"d/", "d/sub/", "d/sub/.wh.c"}},
		{"delete_directory", "rm -rf d", []string{".wh.d"}},
		{"delete_what_was_new", "echo x >n; rm n; mkdir m; rmdir m", nil},
		{"delete_and_make_again", "rm f; echo -n new >f", []string{"f"}},
		{"delete_and_make_equal", "cp -p f t; rm f; cp -p t f; rm t", nil},
		{"delete_missing_below_file", "rm f; mkdir f; echo 1 >f/x; rm f/x", []string{"f/"}},
		{"opaque", "rm -rf d; mkdir d; echo x >d/n", []string{"d/", "d/.wh.a", "d/.wh.b", "d/n", "d/.wh.sub"}},
		{"opaque_with_equal_file", "cp -a d t; rm -rf d; mkdir d; cp -p t/a d/a; rm -rf t", []string{"d/", "d/.wh.b", "d/.wh.sub"}},
		{"opaque_nested", "rm -rf d; mkdir -p d/sub; echo x >d/sub/n", []string{"d/", "d/.wh.a", "d/.wh.b", "d/sub/", "d/sub/.wh.c", "d/sub/n"}},
		{"opaque_made_equal", "cp -a d t; rm -rf d; cp -a t d; rm -rf t", nil},
		{"rename_directory", "mv d D", []string{"D/", "D/a", "D/b", "D/sub/", "D/sub/c", ".wh.d"}},
		{"rename_directory_over_empty", "mv -T d empty", []string{".wh.d", "empty/", "empty/a", "empty/b", "empty/sub/", "empty/sub/c"}},
		{"rename_file", "mv f g", []string{".wh.f", "g"}},
		{"swap", "mv f t; mv e f; mv t e", []string{"e", "f"}},
		{"file_to_directory", "rm f; mkdir f; echo 1 >f/x", []string{"f/", "f/x"}},
		{"directory_to_file", "rm -r d; echo 1 >d", []string{"d"}},
		{"file_to_directory_to_file", "rm f; mkdir f; rmdir f; echo 1 >f", []string{"f"}},
		{"directory_to_file_to_directory", "rm -r d; echo 1 >d; rm d; mkdir d", []string{"d/", "d/.wh.a", "d/.wh.b", "d/.wh.sub"}},
		{"directory_to_link", "rm -r d; ln -s empty d", []string{"d->empty"}},
		{"link_changed", "ln -sfn e link", []string{"link->e"}},
		{"link_same_time_other_target", "cp -P -p link t; ln -sfn e link; touch -h -r t link; rm t", []string{"link->e"}},
		{"link_made_equal", "cp -a link t; rm link; cp -a t link; rm t", nil},
		{"hard_link_in_step", "echo 1 >x; ln x y; ln x d/z", []string{"d/", "d/z", "x=d/z", "y=d/z"}},
		{"hard_link_to_lower", "ln f g", []string{"g"}},
		{"hard_links_to_lower", "ln f g; ln f h", []string{"g", "h=g"}},
		{"hard_link_deleted", "rm h1", []string{".wh.h1"}},
		{"hard_link_changed", "echo x >>h1", []string{"h1"}},
		{"hard_link_touched_by_chmod", "chmod 700 h2", []string{"h2"}},
		{"symlink_with_two_names", "ln -s x y; ln -P y z", []string{"y->x", "z=y"}},
		{"xattr", "setfattr -n user.a -v 1 f", []string{"f"}},
		{"xattr_and_back", "setfattr -n user.a -v 1 f; setfattr -x user.a f", nil},
		{"xattr_on_directory", "setfattr -n user.a -v 1 d", []string{"d/"}},
		{"capability", "setcap cap_net_raw+ep f", []string{"f"}},
		{"acl", "setfattr -n system.posix_acl_access -v 0x0200000001000700ffffffff02000500070000000400050" +
			"0ffffffff10000500ffffffff20000500ffffffff f", []string{"f"}},
		{"devices", "mknod null c 1 3; mknod disk b 8 1; mkfifo fifo", []string{"disk", "fifo", "null"}},
		{"device_changed", "mknod x c 1 3; rm x; mknod x c 1 5", []string{"x"}},
		{"socket", "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local=>\"s\",Listen=>1) or die'; touch -d @1000 .", nil},
		{"not_utf8", `printf 1 >$'\xff\xfe'; rm -r d; mkdir $'d\xe9'; printf 2 >$'d\xe9/\x80'`, []string{".wh.d", "d\xe9/", "d\xe9/\x80", "\xff\xfe"}},
		{"long_names", "mkdir -p " + long + "/" + long + "; echo 1 >" + long + "/" + long + "/f", []string{long + "/", long + "/" + long + "/", long + "/" + long + "/f"}},
		{"sparse", "truncate -s 256M big", []string{"big"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, t.TempDir())
			if strings.Contains(tc.script, "setcap") || strings.Contains(tc.script, "setfattr") {
				needTools(t, "setcap", "setfattr")
			}
			if strings.HasPrefix(tc.script, "perl") {
				needTools(t, "perl")
			}
			parents := fixture(t, s)
			l := step(t, s, parents, "umask 022; "+restoring(tc.script))
			if tc.want == nil {
				tc.want = []string{}
			}
			assert.DeepEqual(t, entries(t, l), tc.want)

			// Who unpacks the layer from the tar must see what the next step sees.
			data := layerTar(t, l)
			pulled := base(t, s, data)
			made := describe(t, s, append(slices.Clone(parents), l))
			assert.DeepEqual(t, describe(t, s, append(slices.Clone(parents), pulled)), made)
			assert.Assert(t, bytes.Equal(layerTar(t, l), data))
		})
	}
}

// restoring is script with the time of the directories that a temporary file
// changes put back, so that a table shows what the file did.
func restoring(script string) string {
	if strings.HasSuffix(script, "rm t") || strings.HasSuffix(script, "rm -rf t") {
		return script + "; touch -d @1000 ."
	}
	return script
}

func needTools(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			if unix.Access(filepath.Join(dir, tool), unix.X_OK) == nil {
				tool = ""
				break
			}
		}
		if tool != "" {
			t.Skipf("needs the program %s", tool)
		}
	}
}

// describe lists everything that a stack shows but the content of large files.
// The root's attributes and sockets are no part of a layer.
func describe(t *testing.T, s *Store, layers []rootfs.Layer) []string {
	t.Helper()
	v, err := s.View(t.Context(), layers)
	assert.NilError(t, err)
	defer func() { assert.NilError(t, v.Release()) }()
	var out []string
	assert.NilError(t, filepath.WalkDir(v.Path(), func(p string, _ os.DirEntry, err error) error {
		if err != nil || p == v.Path() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			return nil
		}
		line := fmt.Sprintf("%q %o %d:%d %d.%09d %d", p[len(v.Path()):], st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, st.Rdev)
		for _, attr := range []string{"user.a", "security.capability", "system.posix_acl_access"} {
			buf := make([]byte, 100)
			if n, err := unix.Lgetxattr(p, attr, buf); err == nil {
				line += fmt.Sprintf(" %s=%x", attr, buf[:n])
			}
		}
		if target, err := os.Readlink(p); err == nil {
			line += "->" + target
		}
		if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size < 1<<20 {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q", data)
		}
		out = append(out, line)
		return nil
	}))
	return out
}

func TestDiffOfScratch(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	l := step(t, s, nil, "mkdir -p a/b; echo 1 >a/b/f; ln a/b/f g; mkfifo p; mkdir e")
	assert.DeepEqual(t, entries(t, l), []string{"a/", "a/b/", "a/b/f", "e/", "g=a/b/f", "p"})
	below := base(t, s, makeTar(t, []item{{"a/", tar.TypeDir, ""}, {"a/old", tar.TypeReg, "old"}}))
	assert.DeepEqual(t, listing(t, s, below, l), []string{"a/", "a/b/", "a/b/f=1\n", "a/old=old", "e/", "g=1\n", "p"})
}

func TestWhiteoutOfAMissingFile(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	w, err := s.Work(t.Context(), fixture(t, s))
	assert.NilError(t, err)
	// Kernels differ in when they leave one behind.
	for _, name := range []string{"missing", "f"} {
		assert.NilError(t, unix.Mknod(filepath.Join(w.(*work).upper(), name), unix.S_IFCHR, 0))
	}
	l, err := w.Commit(t.Context())
	assert.NilError(t, err)
	assert.DeepEqual(t, entries(t, l), []string{".wh.f"})
}

func TestXattrsNamedAsOverlays(t *testing.T) {
	t.Parallel()
	needTools(t, "setfattr")
	s := newStore(t, t.TempDir())
	opaque := s.naming.opaque()
	scratch := step(t, s, nil, "mkdir d; setfattr -n "+opaque+" -v y d; setfattr -n user.overlay.x -v 1 d")
	want := map[string]string{"SCHILY.xattr." + opaque: "y", "SCHILY.xattr.user.overlay.x": "1"}
	below := base(t, s, makeTar(t, []item{{"d/", tar.TypeDir, ""}, {"d/f", tar.TypeReg, "1"}}))
	// A layer that says "opaque" does not hide anything.
	pulled := base(t, s, layerTar(t, scratch))
	for _, l := range []rootfs.Layer{scratch, pulled} {
		assert.DeepEqual(t, listing(t, s, below, l), []string{"d/", "d/f=1"})
	}
	for _, l := range []rootfs.Layer{scratch, pulled} {
		v, err := s.View(t.Context(), []rootfs.Layer{l})
		assert.NilError(t, err)
		value, err := getXattr(filepath.Join(v.Path(), "d"), opaque)
		assert.NilError(t, err)
		assert.Equal(t, string(value), "y")
		assert.NilError(t, v.Release())
	}
	above := step(t, s, []rootfs.Layer{below, pulled}, "chmod 700 d; [ $(getfattr --only-values -n "+opaque+" d) = y ]")
	onTop := step(t, s, []rootfs.Layer{below}, "chmod 700 d; setfattr -n "+opaque+" -v y d; setfattr -n user.overlay.x -v 1 d")
	for _, l := range []rootfs.Layer{scratch, above, onTop} {
		hdr, err := tar.NewReader(bytes.NewReader(layerTar(t, l))).Next()
		assert.NilError(t, err)
		got := map[string]string{}
		for k, v := range hdr.PAXRecords {
			if strings.HasPrefix(k, "SCHILY") {
				got[k] = v
			}
		}
		assert.DeepEqual(t, got, want)
	}
}

func TestDiffIsDeterministic(t *testing.T) {
	t.Parallel()
	limit := int64(1000)
	var got []digest.Digest
	for range 2 {
		s := newStore(t, t.TempDir())
		l := step(t, s, fixture(t, s), "for i in $(seq 300); do mkdir -p x$i/y; echo $i >x$i/y/f; ln x$i/y/f l$i; done; rm -rf d; mkdir d")
		var buf bytes.Buffer
		assert.NilError(t, l.WriteTar(t.Context(), &buf, rootfs.TarOptions{MaxTime: &limit}))
		got = append(got, digest.FromBytes(buf.Bytes()))
	}
	assert.Equal(t, got[0], got[1])
}
