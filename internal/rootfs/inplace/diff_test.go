package inplace

import (
	"archive/tar"
	"bytes"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// fixture is what steps find.
func fixture(t *testing.T, s rootfs.Store) []rootfs.Layer {
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

// changeCase is one kind of change to fixture, and the layer that comes of it.
type changeCase struct {
	name, script string
	want         []string
}

func changeCases() []changeCase {
	long := strings.Repeat("n", 150)
	return []changeCase{
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
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	for _, tc := range changeCases() {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			needToolsOf(t, tc.script)
			s := newStore(t, t.TempDir())
			parents := fixture(t, s)
			l := step(t, s, parents, restoring(tc.script))
			if tc.want == nil {
				tc.want = []string{}
			}
			assert.DeepEqual(t, entries(t, l), tc.want)

			// Who unpacks the layer from the tar, and a tree that is made again,
			// must show what the next step sees.
			all := append(slices.Clone(parents), l)
			made := describe(t, s, all...)
			data := layerTar(t, l, nil)
			assert.DeepEqual(t, describe(t, s, append(slices.Clone(parents), base(t, s, data))...), made)
			assert.DeepEqual(t, entries(t, step(t, s, all, "true")), []string{})
			assert.DeepEqual(t, describe(t, s, all...), made)
			assert.Assert(t, bytes.Equal(layerTar(t, l, nil), data))
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

// TestEqualsOverlay makes the same layers of the same changes with overlayfs.
func TestEqualsOverlay(t *testing.T) {
	t.Parallel()
	for _, tc := range changeCases() {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			needToolsOf(t, tc.script)
			limit := limit
			var tars [][]byte
			for _, s := range []rootfs.Store{newStore(t, t.TempDir()), newOverlay(t)} {
				layers := fixture(t, s)
				for _, script := range []string{tc.script, "set +e; echo x >>h1; touch -d @50 d f; true", "set +e; " + tc.script + "; true"} {
					l := step(t, s, layers, script)
					layers = append(layers, l)
					tars = append(tars, layerTar(t, l, &limit))
				}
			}
			half := len(tars) / 2
			for i := range half {
				if !bytes.Equal(tars[i], tars[half+i]) {
					assert.DeepEqual(t, names(t, tars[i]), names(t, tars[half+i]))
					t.Fatalf("the tars of step %d have equal names and different bytes", i)
				}
			}
		})
	}
}
