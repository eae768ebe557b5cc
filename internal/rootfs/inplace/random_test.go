package inplace

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// TestRandomChanges makes the same random layers and changes in both kinds of
// store. A failure names the seed.
func TestRandomChanges(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed_%d", seed), func(t *testing.T) {
			t.Parallel()
			a := history(t, newStore(t, t.TempDir()), seed)
			b := history(t, newOverlay(t), seed)
			assert.Equal(t, len(a), len(b))
			for i := range a {
				assert.DeepEqual(t, a[i].shown, b[i].shown)
				assert.DeepEqual(t, a[i].names, b[i].names)
				assert.Assert(t, bytes.Equal(a[i].tar, b[i].tar), "event %d", i)
			}
		})
	}
}

// event is what is seen of a store.
type event struct {
	shown, names []string
	tar          []byte
}

// history works with a store and returns all that is seen.
func history(t *testing.T, s rootfs.Store, seed uint64) (seen []event) {
	limit := limit
	r := rand.New(rand.NewPCG(seed, 0))
	var stack []rootfs.Layer
	for range 2 + r.IntN(4) {
		stack = append(stack, base(t, s, makeTar(t, randomLayer(r))))
	}
	stacks := [][]rootfs.Layer{stack, nil}
	var made []rootfs.Layer
	for range 12 {
		stack := slices.Clone(stacks[r.IntN(len(stacks))])
		if r.IntN(2) == 0 {
			stack = slices.Clone(stacks[len(stacks)-1])
		}
		if r.IntN(3) == 0 {
			seen = append(seen, event{shown: describe(t, s, stack...)})
		}
		w, err := s.Work(t.Context(), stack)
		assert.NilError(t, err)
		for range r.IntN(20) {
			randomChange(t, r, w.Path())
		}
		if r.IntN(8) == 0 {
			assert.NilError(t, w.Discard())
			continue
		}
		var hints []rootfs.Hint
		if r.IntN(2) == 0 {
			hints = append(hints, rootfs.Top)
		}
		l, err := w.Commit(t.Context(), hints...)
		assert.NilError(t, err)
		checkIndexes(t, s)
		if r.IntN(2) == 0 {
			data := layerTar(t, l, &limit)
			seen = append(seen, event{names: names(t, data), tar: data})
		}
		made = append(made, l)
		stack = append(stack, l)
		stacks = append(stacks, stack)
		if len(stack) == 1 {
			// As COPY --link puts a layer on others.
			stacks = append(stacks, append(slices.Clone(stacks[0]), l))
		}
	}
	for _, stack := range stacks {
		seen = append(seen, event{shown: describe(t, s, stack...)})
	}
	for _, l := range made {
		data := layerTar(t, l, &limit)
		seen = append(seen, event{names: names(t, data), tar: data})
	}
	return seen
}

func randomName(r *rand.Rand) string {
	var steps []string
	for range 1 + r.IntN(3) {
		steps = append(steps, string("abcd"[r.IntN(4)]))
	}
	return strings.Join(steps, "/")
}

func randomLayer(r *rand.Rand) (items []item) {
	files := map[string]bool{}
	for range 1 + r.IntN(15) {
		name := randomName(r)
		// A file above makes the tar invalid.
		if slices.ContainsFunc(slices.Collect(prefixes(name)), func(p string) bool { return files[p] }) {
			continue
		}
		switch r.IntN(8) {
		case 0, 1, 2:
			items = append(items, item{name, tar.TypeReg, fmt.Sprint(r.IntN(100))})
			maps.DeleteFunc(files, func(f string, _ bool) bool { return strings.HasPrefix(f, name+"/") })
			files[name] = true
		case 3, 4:
			items = append(items, item{name + "/", tar.TypeDir, ""})
			delete(files, name)
		case 5:
			// In a directory that no lower layer has, overlayfs would list it.
			items = append(items, item{".wh." + name[:1], tar.TypeReg, ""})
		case 6:
			if dir := filepath.Dir(name); dir != "." {
				items = append(items, item{dir + "/", tar.TypeDir, ""})
			}
			items = append(items, item{filepath.Join(filepath.Dir(name), ".wh..wh..opq"), tar.TypeReg, ""})
		case 7:
			link := "l" + fmt.Sprint(len(items))
			for _, it := range slices.Backward(items) {
				if it.kind == tar.TypeReg && files[it.name] {
					items = append(items, item{link, tar.TypeLink, it.name})
					break
				}
			}
		}
	}
	// A whiteout in a file is invalid, too.
	return slices.DeleteFunc(items, func(it item) bool {
		return strings.Contains(it.name, ".wh.") && slices.ContainsFunc(slices.Collect(prefixes(it.name)), func(p string) bool { return files[p] })
	})
}

// prefixes yields the directories above name.
func prefixes(name string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
			if !yield(dir) {
				return
			}
		}
	}
}

// randomChange changes something, or fails to where that is not possible, in
// both kinds of store alike.
func randomChange(t *testing.T, r *rand.Rand, root string) {
	t.Helper()
	name, other := filepath.Join(root, randomName(r)), filepath.Join(root, randomName(r))
	what, number := r.IntN(13), r.IntN(100)
	fi, err := os.Lstat(name)
	old := time.Unix(1000, 0)
	switch what {
	case 0, 1, 2:
		_ = os.WriteFile(name, []byte(fmt.Sprint(number)), 0o644)
	case 3:
		if f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0); err == nil {
			fmt.Fprint(f, number)
			assert.NilError(t, f.Close())
		}
	case 4:
		_ = os.MkdirAll(name, 0o755)
	case 5:
		_ = os.Remove(name)
	case 6:
		_ = os.RemoveAll(name)
	case 7:
		// Overlayfs does not move directories of lower layers.
		if err == nil && !fi.IsDir() {
			_ = os.Rename(name, other)
		}
	case 8:
		_ = os.Symlink("a", name)
	case 9:
		// A link to a file that is as it was stays one with overlayfs, though
		// not in its layer.
		if err == nil && fi.Mode().IsRegular() {
			assert.NilError(t, os.Chtimes(name, old, time.Now()))
			_ = os.Link(name, other)
		}
	case 10:
		if err == nil && fi.Mode()&fs.ModeSymlink == 0 {
			assert.NilError(t, os.Chmod(name, os.FileMode(0o700+number%8)))
		}
	case 11:
		_ = os.Lchown(name, number, 0)
	case 12:
		if err == nil && fi.Mode().IsRegular() {
			data, err := os.ReadFile(name)
			assert.NilError(t, err)
			for i := range data {
				data[i] = byte('0' + number%10)
			}
			assert.NilError(t, os.WriteFile(name, data, 0))
			assert.NilError(t, os.Chtimes(name, old, old))
		}
	}
}
