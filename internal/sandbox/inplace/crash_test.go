package inplace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

var errCrash = errors.New("the builder was killed")

// dying is a journal that ends with its nth record: that is written or not,
// and the change that it announces is not made.
type dying struct {
	*os.File
	left    int
	written bool
}

func (d *dying) WriteAt(p []byte, off int64) (int, error) {
	if d.left--; d.left > 0 {
		return d.File.WriteAt(p, off)
	}
	if d.left == 0 && d.written {
		_, _ = d.File.WriteAt(p, off)
	}
	if d.left == 0 && !d.written {
		_, _ = d.File.WriteAt(p[:len(p)/2], off)
	}
	return 0, errCrash
}

// A builder that is killed at any point of the way in leaves a journal from
// which all is put back.
func TestRecover_from_any_point_of_the_way_in(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, written := range []bool{true, false} {
		reached := false
		for n := 1; !reached; n++ {
			name := fmt.Sprintf("record_%d_written_%v", n, written)
			root := crashRoot(t)
			before := tell(t, root)
			err := crashRun(t, root, n, written)
			reached = err == nil
			if err != nil {
				assert.ErrorIs(t, err, errCrash, name)
			}
			assert.NilError(t, Recover(context.Background(), filepath.Join(root, "kaniko/state")), name)
			assert.Equal(t, tell(t, root), before, name)
			assert.Assert(t, n < 1000)
		}
	}
}

// The same for a step that has run, and with a second kill during recovery: all
// that it does can be repeated.
func TestRecover_can_be_repeated(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	root := crashRoot(t)
	before := tell(t, root)
	assert.NilError(t, crashRun(t, root, 1000, true))
	write(t, root, "made", "by the step")
	write(t, root, "opt/made", "by the step")
	assert.NilError(t, os.RemoveAll(filepath.Join(root, "var/cache/c/old")))

	state := filepath.Join(root, "kaniko/state")
	file, err := os.OpenFile(filepath.Join(state, journalName), os.O_RDWR, 0)
	assert.NilError(t, err)
	j, err := readJournal(file)
	assert.NilError(t, err)
	// Some of it is done when recovery is killed for the first time.
	assert.NilError(t, unix.Rename(filepath.Join(root, "bin"), filepath.Join(j.Tree, "bin")))
	assert.NilError(t, j.collect(j.Levels[0]))
	assert.NilError(t, j.collect(j.Levels[0]))
	assert.NilError(t, j.reach(leaving))
	assert.NilError(t, unix.Rename(j.inStash("github"), j.inRoot("github")))
	assert.NilError(t, file.Close())

	assert.NilError(t, Recover(context.Background(), state))
	after := tell(t, root)
	for _, line := range []string{
		"kaniko/state/tree/made 100644 by the step", "kaniko/state/tree/opt/made 100644 by the step",
	} {
		assert.Assert(t, strings.Contains(after, line+"\n"), after)
		after = strings.Replace(after, line+"\n", "", 1)
	}
	assert.Equal(t, after, strings.Replace(before, "kaniko/state/cache/old 100644 old\n", "", 1))
	assert.NilError(t, Recover(context.Background(), state))
}

// ending is a journal that tells when it is closed.
type ending struct {
	*os.File
	atEnd func()
}

func (e *ending) Close() error {
	e.atEnd()
	return e.File.Close()
}

// Whoever finds no journal takes everything to be as it was.
func TestFinish_removes_the_journal_last(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, file, err := newJournal(filepath.Join(dir, journalName), state{Root: dir})
	assert.NilError(t, err)
	ended := false
	j.file = &ending{file, func() {
		ended = true
		for _, name := range []string{stashName, asidesName} {
			assert.Check(t, !exists(filepath.Join(dir, name)), name)
		}
	}}
	for _, name := range []string{stashName, asidesName} {
		assert.NilError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	assert.NilError(t, j.finish(dir))
	assert.Assert(t, ended && !exists(j.name))
}

// crashRoot has some of everything: what is moved aside, what is merged, what
// stays.
func crashRoot(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range map[string]string{
		"etc/hosts": "127.0.0.1 localhost\n", "etc/resolv.conf": "", "etc/mtab": "x", "github/workspace/src": "mine",
		"var/run/x": "y", "kaniko/executor": "us", "opt/ours": "z",
		"kaniko/state/tree/etc/passwd": "root", "kaniko/state/tree/etc/hosts": "image", "kaniko/state/tree/bin/sh": "sh",
		"kaniko/state/tree/var/cache/x": "y", "kaniko/state/tree/opt/theirs": "o", "kaniko/state/cache/old": "old",
		"kaniko/state/source/file": "content",
	} {
		write(t, root, name, content)
	}
	assert.NilError(t, os.Chmod(filepath.Join(root, "kaniko/state/tree/etc"), 0o700))
	return root
}

func write(t testing.TB, root, name, content string) {
	t.Helper()
	assert.NilError(t, os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(root, name), []byte(content), 0o644))
}

// crashRun does what Run does until a process would start, or its nth write to
// the journal.
func crashRun(t *testing.T, root string, n int, written bool) error {
	t.Helper()
	state0 := filepath.Join(root, "kaniko/state")
	space, err := mountSpace()
	assert.NilError(t, err)
	begin := state{Root: root, Tree: filepath.Join(state0, "tree"), Stash: filepath.Join(state0, stashName), Space: space}
	j, file, err := newJournal(filepath.Join(state0, journalName), begin)
	assert.NilError(t, err)
	defer file.Close()
	j.file = &dying{File: file, left: n, written: written}
	// "opt" stands for a directory of the image, by way of something of ours
	// in it.
	s := &swap{journal: j, own: []string{"kaniko", "kaniko/state", "opt/none"}, points: map[string]bool{}}
	list := mounts{tree: []sandbox.Mount{
		{Dest: "/etc/token", File: &sandbox.File{Data: []byte("hunter2"), Mode: 0o400}},
		{Dest: "/src", Source: filepath.Join(state0, "source"), ReadOnly: true},
		{Dest: "/tmp"},
		{Dest: "/var/cache/c", Source: filepath.Join(state0, "cache")},
	}}
	if err := s.prepare(context.Background(), nil, list, nil, "/", sandbox.Process{}); err != nil {
		return err
	}
	return s.enter()
}

// tell is what Recover must restore. Mount points that Run made are its own to
// remove.
func tell(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	assert.NilError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		for _, made := range []string{"etc/token", "src", "tmp", "var/cache/c", "proc", "sys", "dev"} {
			if rel == "kaniko/state/tree/"+made {
				return nil
			}
		}
		fmt.Fprintf(&b, "%s %o", rel, info.Sys().(*syscall.Stat_t).Mode)
		if d.Type().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %s", content)
		}
		fmt.Fprintln(&b)
		return nil
	}))
	return b.String()
}
