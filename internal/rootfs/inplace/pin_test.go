package inplace

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// tars is how many layers of works were written to files.
func tars(t *testing.T, s *Store) int { return count(t, s.state.Path("l")) }

// A layer that stays in its tree is, to everybody, what it would be as a tar.
func TestPinned(t *testing.T) {
	t.Parallel()
	for _, tc := range changeCases() {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			needToolsOf(t, tc.script)
			limit := limit
			s, plain := newStore(t, t.TempDir()), newStore(t, t.TempDir())
			parents := fixture(t, s)
			l := step(t, s, parents, restoring(tc.script), rootfs.Top)
			want := step(t, plain, fixture(t, plain), restoring(tc.script))
			first := layerTar(t, l, nil)
			assert.Assert(t, bytes.Equal(layerTar(t, l, &limit), layerTar(t, want, &limit)))
			assert.Equal(t, tars(t, s), 0)

			all := append(slices.Clone(parents), l)
			assert.DeepEqual(t, entries(t, step(t, s, all, "true")), []string{})
			assert.Equal(t, tars(t, s), 2)
			assert.Assert(t, bytes.Equal(layerTar(t, l, nil), first))
			assert.Assert(t, bytes.Equal(layerTar(t, l, &limit), layerTar(t, want, &limit)))
			assert.DeepEqual(t, describe(t, s, all...), describe(t, plain, append(fixture(t, plain), want)...))
			checkIndexes(t, s)
		})
	}
}

func TestPinned_view(t *testing.T) {
	t.Parallel()
	const script = "echo 1 >x; ln x y; mkdir d; ln x d/z"
	for name, tc := range map[string]struct {
		below bool
		tars  int
	}{
		"alone":           {tars: 0},
		"on_other_layers": {below: true, tars: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, t.TempDir())
			var layers []rootfs.Layer
			if tc.below {
				layers = []rootfs.Layer{base(t, s, makeTar(t, []item{{"h1", tar.TypeReg, "1"}, {"h2", tar.TypeLink, "h1"}}))}
			}
			layers = append(layers, step(t, s, layers, script, rootfs.Top))
			one, err := s.View(t.Context(), layers)
			assert.NilError(t, err)
			two, err := s.View(t.Context(), layers)
			assert.NilError(t, err)
			assert.Equal(t, one.Path(), two.Path())
			assert.Equal(t, len(s.trees), 1)
			assert.Equal(t, tars(t, s), tc.tars)
			shown := describeDir(t, one.Path())
			assert.NilError(t, one.Release())

			// Who writes gets another tree as long as somebody reads this one.
			w, err := s.Work(t.Context(), layers)
			assert.NilError(t, err)
			assert.Assert(t, w.Path() != two.Path())
			assert.NilError(t, w.Discard())
			assert.DeepEqual(t, describeDir(t, two.Path()), shown)
			assert.NilError(t, two.Release())
			assert.Equal(t, tars(t, s), 1)
			assert.DeepEqual(t, describe(t, s, layers...), shown)
			checkIndexes(t, s)
		})
	}
}

// A view of the layer alone does not have what is below it in its tree.
func TestPinned_without_what_is_below(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	l := step(t, s, fixture(t, s), "echo -n 1 >x", rootfs.Top)
	assert.DeepEqual(t, short(t, s, l), []string{"x=1"})
}

func TestPinned_settle(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	parents := fixture(t, s)
	kept := step(t, s, parents, "echo 1 >x", rootfs.Top)
	step(t, s, nil, "echo 2 >y", rootfs.Top)
	step(t, s, nil, "echo 3 >z")
	assert.Equal(t, len(s.trees), 3)
	s.Settle([]rootfs.Layer{kept})
	assert.Equal(t, len(s.trees), 1)
	assert.DeepEqual(t, entries(t, kept), []string{"x"})
	s.Settle(nil)
	assert.Equal(t, len(s.trees), 0)
}

// during calls do, once, after the first bytes.
type during struct {
	bytes.Buffer
	do func()
}

func (d *during) Write(p []byte) (int, error) {
	if d.do != nil {
		d.do()
		d.do = nil
	}
	return d.Buffer.Write(p)
}

// As long as a layer is written from its tree, nobody else gets that tree.
func TestPinned_used_while_written(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(s *Store, layers []rootfs.Layer){
		"work": func(s *Store, layers []rootfs.Layer) { step(t, s, layers, "rm x; echo 3 >y; echo 4 >z") },
		"view": func(s *Store, layers []rootfs.Layer) { _ = short(t, s, layers...) },
		"settle": func(s *Store, _ []rootfs.Layer) {
			s.Settle(nil)
			assert.Equal(t, len(s.trees), 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, t.TempDir())
			layers := fixture(t, s)
			l := step(t, s, layers, "head -c 200000 /dev/urandom | tee x >y; ln h1 h3", rootfs.Top)
			want := layerTar(t, l, nil)
			got := &during{do: func() { use(s, append(slices.Clone(layers), l)) }}
			assert.NilError(t, l.WriteTar(t.Context(), got, rootfs.TarOptions{}))
			assert.Assert(t, bytes.Equal(got.Bytes(), want))
			checkIndexes(t, s)
		})
	}
}

// A step that gets into the files of a layer which has no others must not get
// into any image.
func TestPinned_disturbed(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		script  string
		damaged bool
	}{
		"nothing":         {script: "true"},
		"walks":           {script: "find . >/dev/null; du . >/dev/null"},
		"deletes":         {script: "find . -name own -delete", damaged: true},
		"deletes_all":     {script: "rm -rf builds/*/t/*", damaged: true},
		"deletes_unseen":  {script: "for f in builds/*/t/*/own; do d=${f%/*}; touch -r $d /dev/shm/$$; rm $f; touch -r /dev/shm/$$ $d; rm /dev/shm/$$; done", damaged: true},
		"deletes_below":   {script: "find . -name f -delete", damaged: true},
		"restores":        {script: "find . -name own -exec chmod u+w {} +", damaged: true},
		"restores_below":  {script: "find . -name f -exec chmod u+w {} +"},
		"adds":            {script: "for d in builds/*/t/*/; do touch $d/added; done", damaged: true},
		"adds_as_before":  {script: "for d in builds/*/t/*/; do touch -d @0 $d/gone; touch -r / $d; done", damaged: true},
		"changes_root":    {script: "for d in builds/*/t/*/; do chmod 700 $d; done", damaged: true},
		"writes":          {script: "for f in builds/*/t/*/own; do echo -n xxx >$f; done", damaged: true},
		"writes_in_place": {script: "for f in builds/*/t/*/own; do cp -p $f /dev/shm/$$; echo 2 >$f; touch -r /dev/shm/$$ $f; rm /dev/shm/$$; done", damaged: true},
	} {
		for who, use := range map[string]func(ctx context.Context, s *Store, layers []rootfs.Layer) error{
			"written": func(ctx context.Context, _ *Store, layers []rootfs.Layer) error {
				return layers[len(layers)-1].WriteTar(ctx, io.Discard, rootfs.TarOptions{})
			},
			"viewed": func(ctx context.Context, s *Store, layers []rootfs.Layer) error {
				v, err := s.View(ctx, layers)
				if err == nil {
					err = v.Release()
				}
				return err
			},
			"continued": func(ctx context.Context, s *Store, layers []rootfs.Layer) error {
				w, err := s.Work(ctx, layers)
				if err == nil {
					err = w.Discard()
				}
				return err
			},
		} {
			t.Run(name+"/"+who, func(t *testing.T) {
				t.Parallel()
				state := t.TempDir()
				s := newStore(t, state)
				layers := fixture(t, s)
				layers = append(layers, step(t, s, layers, "echo 1 >own; rm d/a", rootfs.Top))
				// A context has nothing below.
				context := []rootfs.Layer{step(t, s, nil, "echo 1 >own; echo 2 >f", rootfs.Top)}
				damaged := func(err error) bool {
					var damaged *DamagedError
					if !errors.As(err, &damaged) {
						assert.NilError(t, err)
					}
					return damaged != nil
				}

				done, err := s.Watch(nil)
				assert.NilError(t, err)
				cmd := exec.Command("bash", "-euc", tc.script)
				cmd.Dir = state
				out, err := cmd.CombinedOutput()
				assert.NilError(t, err, "%s", out)
				if who == "written" {
					assert.Check(t, is.Equal(damaged(use(t.Context(), s, layers)), tc.damaged), "before the step ends")
				}
				assert.NilError(t, done(t.Context()))
				assert.Check(t, is.Equal(damaged(use(t.Context(), s, layers)), tc.damaged))
				inContext := tc.damaged
				switch name {
				case "restores_below":
					inContext = true
				}
				assert.Check(t, is.Equal(damaged(use(t.Context(), s, context)), inContext))
			})
		}
	}
}

// What is read while a step gets at it fails the step, or the reader.
func TestPinned_disturbed_while_read(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	l := step(t, s, nil, "echo 1 >x; echo 2 >y", rootfs.Top)
	file := filepath.Join(s.trees[0].dir, "y")
	v, err := s.View(t.Context(), []rootfs.Layer{l})
	assert.NilError(t, err)
	var damaged *DamagedError
	err = l.WriteTar(t.Context(), &during{do: func() {
		done, err := s.Watch(nil)
		assert.NilError(t, err)
		_, err = os.ReadDir(s.state.Path("t"))
		assert.NilError(t, err)
		assert.NilError(t, os.WriteFile(file, []byte("3\n"), 0o644))
		assert.Check(t, errors.As(done(t.Context()), &damaged))
	}}, rootfs.TarOptions{})
	assert.Assert(t, errors.As(err, &damaged), "%v", err)
	assert.ErrorContains(t, err, "another step changed files of a build context")
	assert.NilError(t, v.Release())
}
