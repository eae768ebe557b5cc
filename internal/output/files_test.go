package output

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/ids"
	"github.com/org/kaniko-multiarch/internal/layer"
)

func tree(t *testing.T, arch, text string) engine.ImageFiles {
	t.Helper()
	root := t.TempDir()
	assert.NilError(t, os.Mkdir(filepath.Join(root, "d"), 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(root, "d", "f"), []byte(text), 0o640))
	return engine.ImageFiles{Platform: ocispecs.Platform{OS: "linux", Architecture: arch}, Root: root}
}

func TestTree_tar(t *testing.T) {
	t.Parallel()
	one, two := tree(t, "amd64", "one"), tree(t, "arm64", "two")
	for _, tc := range []struct {
		name   string
		split  bool
		images []engine.ImageFiles
		want   map[string]string
	}{
		{"one", false, []engine.ImageFiles{one}, map[string]string{"d/": "", "d/f": "one"}},
		{"split", true, []engine.ImageFiles{one, two}, map[string]string{
			"linux_amd64/": "", "linux_amd64/d/": "", "linux_amd64/d/f": "one", "linux_arm64/": "", "linux_arm64/d/": "", "linux_arm64/d/f": "two",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			to := &Tree{Tar: &out, Split: tc.split, Time: new(int64)}
			assert.NilError(t, to.Export(t.Context(), tc.images))
			got := map[string]string{}
			for r := tar.NewReader(&out); ; {
				h, err := r.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				assert.NilError(t, err)
				assert.Check(t, is.Equal(h.ModTime.Unix(), int64(0)), h.Name)
				text, err := io.ReadAll(r)
				assert.NilError(t, err)
				got[h.Name] = string(text)
			}
			assert.Check(t, is.DeepEqual(got, tc.want))
		})
	}
}

// What is in the directory besides stays.
func TestTree_dir(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made")
	assert.NilError(t, os.MkdirAll(filepath.Join(dir, "d"), 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "d", "mine"), nil, 0o644))
	assert.NilError(t, (&Tree{Dir: dir}).Export(t.Context(), []engine.ImageFiles{tree(t, "amd64", "one")}))
	data, err := os.ReadFile(filepath.Join(dir, "d", "f"))
	assert.NilError(t, err)
	assert.Check(t, is.Equal(string(data), "one"))
	info, err := os.Stat(filepath.Join(dir, "d", "f"))
	assert.NilError(t, err)
	assert.Check(t, is.Equal(info.Mode(), fs.FileMode(0o640)))
	_, err = os.Stat(filepath.Join(dir, "d", "mine"))
	assert.Check(t, err)
}

// A file that stands for something else gets nowhere, but where owners do not
// count one of another owner does.
func TestTree_stand_ins(t *testing.T) {
	t.Parallel()
	const attr = "user.test.instead"
	for _, tc := range []struct{ name, text, dir, tar string }{
		{"owner", "its owner is 0:42", "", "/d/f cannot be exported: its owner is 0:42"},
		{"device", layer.StandInRoot + "it is a device", "/d/f cannot be exported: it is a device", "/d/f cannot be exported: it is a device"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			img := tree(t, "amd64", "one")
			img.StandIn = attr
			err := unix.Setxattr(filepath.Join(img.Root, "d", "f"), attr, []byte(tc.text), 0)
			if errors.Is(err, unix.ENOTSUP) {
				t.Skip("the file system has no user attributes: set TMPDIR to one that does")
			}
			assert.NilError(t, err)
			dir := t.TempDir()
			for _, to := range []struct {
				tree *Tree
				want string
			}{{&Tree{Dir: dir}, tc.dir}, {&Tree{Tar: io.Discard}, tc.tar}} {
				err := to.tree.Export(t.Context(), []engine.ImageFiles{img})
				if to.want == "" {
					assert.NilError(t, err)
					_, err := unix.Lgetxattr(filepath.Join(dir, "d", "f"), attr, nil)
					assert.Check(t, is.ErrorIs(err, unix.ENODATA))
					continue
				}
				_, ok := errors.AsType[*ids.MissingError](err)
				assert.Check(t, ok, "%v", err)
				assert.Check(t, is.ErrorContains(err, to.want))
			}
		})
	}
}
