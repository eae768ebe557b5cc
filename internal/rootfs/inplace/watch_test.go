package inplace

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// A step that walks through the file system gets into the store's files. No
// layer of another step may have what it did there.
func TestWatch(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		script string
		// healed: what stands idle is made again. disturbed: what is being made is
		// made again. damaged: what others read.
		healed, disturbed, damaged bool
	}{
		"nothing":       {script: "true"},
		"walks":         {script: "find . >/dev/null; du . >/dev/null"},
		"deletes":       {script: "find . -name f -delete", healed: true, disturbed: true, damaged: true},
		"deletes_all":   {script: "rm -rf builds/*/t/*", healed: true, disturbed: true, damaged: true},
		"changes_modes": {script: "find . -type f -name f -exec chmod a+s {} +", healed: true, disturbed: true, damaged: true},
		"changes_owner": {script: "chown -R 5:5 .", healed: true, disturbed: true, damaged: true},
		"adds":          {script: "for d in builds/*/t/*/; do touch $d/added; done", healed: true, disturbed: true, damaged: true},
		"writes":        {script: "for f in builds/*/t/*/f; do echo -n xxx >$f; done", healed: true, disturbed: true, damaged: true},
		"cuts_a_layer":  {script: "for f in tars/*; do echo >$f; done", damaged: true},
	} {
		for _, others := range []string{"idle", "written", "read"} {
			t.Run(name+"/"+others, func(t *testing.T) {
				t.Parallel()
				state := t.TempDir()
				s := newStore(t, state)
				layers := fixture(t, s)
				before := short(t, s, layers...)
				var w rootfs.Work
				var v rootfs.View
				var err error
				switch others {
				case "written":
					w, err = s.Work(t.Context(), layers)
				case "read":
					v, err = s.View(t.Context(), layers)
				}
				assert.NilError(t, err)
				own, err := s.Work(t.Context(), layers[:1])
				assert.NilError(t, err)

				done, err := s.Watch([]string{own.Path()})
				assert.NilError(t, err)
				cmd := exec.Command("bash", "-euc", tc.script)
				cmd.Dir = state
				out, err := cmd.CombinedOutput()
				assert.NilError(t, err, "%s", out)
				err = done(t.Context())

				cut := name == "cuts_a_layer"
				var damaged *DamagedError
				assert.Equal(t, errors.As(err, &damaged), tc.damaged && (others == "read" || cut), "%v", err)
				if damaged == nil {
					assert.NilError(t, err)
				}
				if cut {
					// A later build would take it for what it was.
					assert.Equal(t, count(t, filepath.Join(state, "tars")), 0)
					return
				}
				if w != nil {
					_, err = w.Commit(t.Context())
					var disturbed *rootfs.DisturbedError
					assert.Equal(t, errors.As(err, &disturbed), tc.disturbed, "%v", err)
				}
				if v != nil {
					assert.NilError(t, v.Release())
					if tc.damaged {
						return // the build has failed
					}
				}
				assert.DeepEqual(t, short(t, s, layers...), before)
				assert.DeepEqual(t, entries(t, step(t, s, layers, "true")), []string{})
			})
		}
	}
}

// What is committed while a step looks around may have it all in its layer.
func TestWatch_commit_meanwhile(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	layers := fixture(t, s)
	for _, walks := range []bool{false, true} {
		w, err := s.Work(t.Context(), layers)
		assert.NilError(t, err)
		done, err := s.Watch(nil)
		assert.NilError(t, err)
		// What others do there without listing it is nothing to us.
		assert.NilError(t, os.WriteFile(filepath.Join(filepath.Dir(filepath.Dir(s.state.Dir())), "swap.journal"), nil, 0o600))
		if walks {
			_, err := os.ReadDir(s.state.Dir())
			assert.NilError(t, err)
		}
		_, err = w.Commit(t.Context())
		var disturbed *rootfs.DisturbedError
		assert.Equal(t, errors.As(err, &disturbed), walks, "%v", err)
		assert.NilError(t, done(t.Context()))
	}
}
