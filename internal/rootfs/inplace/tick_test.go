package inplace

import (
	"archive/tar"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// toWrite is set in a process that is a step: it writes that number, first
// thing and last thing that it does.
const toWrite = "INPLACE_TEST_TO_WRITE"

// writeInATick keeps the size and the modification time of two files, so that
// only the ctime can tell.
func writeInATick(number string) {
	times := []unix.Timespec{{Sec: 1000}, {Sec: 1000}}
	for _, name := range []string{"first", "last"} {
		// One call after the content is the least that leaves no trace but ctime.
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(number)
		}
		if err == nil {
			err = unix.UtimesNanoAt(unix.AT_FDCWD, name, times, 0)
		}
		if err != nil {
			panic(err)
		}
	}
	os.Exit(0)
}

func tickLayers(t *testing.T, s rootfs.Store) []rootfs.Layer {
	t.Helper()
	return []rootfs.Layer{base(t, s, makeTar(t, []item{{"first", tar.TypeReg, "0000"}, {"last", tar.TypeReg, "0000"}}))}
}

// TestNothingIsMissedInATick writes right after Work and right before Commit, in
// this process: there is no time between.
func TestNothingIsMissedInATick(t *testing.T) {
	t.Parallel()
	s := newStore(t, t.TempDir())
	layers := tickLayers(t, s)
	times := []unix.Timespec{{Sec: 1000}, {Sec: 1000}}
	for i := range 1000 {
		w, err := s.Work(t.Context(), layers)
		assert.NilError(t, err)
		// Newer kernels give a file that was looked at a finer ctime; on others
		// this is what counts.
		var now unix.Timespec
		assert.NilError(t, unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now))
		assert.Assert(t, later(now, w.(*work).tree.newest))
		// Open before, so that the write itself is the last act.
		f, err := os.OpenFile(filepath.Join(w.Path(), "first"), os.O_WRONLY, 0)
		assert.NilError(t, err)
		last, err := os.OpenFile(filepath.Join(w.Path(), "last"), os.O_WRONLY, 0)
		assert.NilError(t, err)
		_, err = fmt.Fprintf(f, "%04d", i+1)
		assert.NilError(t, err)
		assert.NilError(t, unix.UtimesNanoAt(unix.AT_FDCWD, f.Name(), times, 0))
		assert.NilError(t, f.Close())
		_, err = fmt.Fprintf(last, "%04d", i+1)
		assert.NilError(t, err)
		assert.NilError(t, unix.UtimesNanoAt(unix.AT_FDCWD, last.Name(), times, 0))
		l, err := w.Commit(t.Context())
		assert.NilError(t, err)
		assert.NilError(t, last.Close())
		assert.DeepEqual(t, entries(t, l), []string{"first", "last"})
		layers = append(layers, l)
	}
}

// TestNothingIsMissedOfAProcess is the same with a process for a step, in both
// kinds of store. In place each step goes on with the tree of the one before.
// Overlayfs cannot stack that many layers, nor does it go by times: fewer will do.
func TestNothingIsMissedOfAProcess(t *testing.T) {
	t.Parallel()
	for name, repeats := range map[string]int{"inplace": 1000, "overlay": 100} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s rootfs.Store
			stacked := name == "inplace"
			if stacked {
				s = newStore(t, t.TempDir())
			} else {
				s = newOverlay(t)
			}
			layers := tickLayers(t, s)
			for i := range repeats {
				w, err := s.Work(t.Context(), layers)
				assert.NilError(t, err)
				cmd := exec.Command("/proc/self/exe")
				cmd.Env = []string{fmt.Sprintf("%s=%04d", toWrite, i+1)}
				cmd.Dir = w.Path()
				out, err := cmd.CombinedOutput()
				assert.NilError(t, err, "%s", out)
				l, err := w.Commit(t.Context())
				assert.NilError(t, err)
				assert.DeepEqual(t, entries(t, l), []string{"first", "last"})
				if stacked {
					layers = append(layers, l)
				}
			}
		})
	}
}
