package inplace

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/rootfs"
	"github.com/org/kaniko-multiarch/internal/rootfs/overlay"
)

// inNamespace is set in the process that runs the tests in a mount namespace of
// its own, where overlayfs can be used to compare with.
const inNamespace = "INPLACE_TEST_IN_NAMESPACE"

func TestMain(m *testing.M) {
	if number := os.Getenv(toWrite); number != "" {
		writeInATick(number)
		return
	}
	if state := os.Getenv(toBeKilled); state != "" {
		die(state)
	}
	if os.Geteuid() != 0 || os.Getenv(inNamespace) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	err := cmd.Run()
	if errors.Is(err, unix.EPERM) {
		// As in a container: the rest runs, and is what counts there.
		os.Exit(m.Run())
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		panic(err)
	}
}

// toBeKilled is set in a process that works in that state directory until it is
// killed.
const toBeKilled = "INPLACE_TEST_TO_BE_KILLED"

func die(state string) {
	s, err := New(state)
	if err != nil {
		panic(err)
	}
	content := []byte("no tar, but enough to wait for")
	go s.Base(context.Background(), digest.FromBytes(content), func(context.Context) (io.ReadCloser, error) {
		w, err := s.Work(context.Background(), nil)
		if err == nil {
			_, err = s.Spool()
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(w.Path(), "half"), nil, 0o600)
		}
		if err != nil {
			panic(err)
		}
		r, out := io.Pipe()
		go func() {
			_, _ = out.Write(make([]byte, 100))
			os.Stdout.WriteString("ready\n")
		}()
		return r, nil
	})
	for {
		time.Sleep(time.Hour)
	}
}

func newStore(t *testing.T, state string) *Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes files of other owners")
	}
	s, err := New(state)
	assert.NilError(t, err)
	t.Cleanup(func() { assert.NilError(t, s.Close()) })
	return s
}

// newOverlay is the store to compare with.
func newOverlay(t *testing.T) rootfs.Store {
	t.Helper()
	if os.Getenv(inNamespace) == "" {
		t.Skip("needs a mount namespace: compares with overlayfs")
	}
	s, err := overlay.New(t.TempDir())
	assert.NilError(t, err)
	t.Cleanup(func() { assert.NilError(t, s.Close()) })
	return s
}

// item is an entry of a layer; data is the content or the target.
type item struct {
	name string
	kind byte
	data string
}

func makeTar(t testing.TB, items []item) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, i := range items {
		hdr := &tar.Header{Name: i.name, Typeflag: i.kind, Mode: 0o755, ModTime: time.Unix(1000, 0), Format: tar.FormatPAX}
		if i.kind == tar.TypeReg {
			hdr.Size = int64(len(i.data))
		} else {
			hdr.Linkname = i.data
		}
		assert.NilError(t, w.WriteHeader(hdr))
		_, err := w.Write([]byte(i.data)[:hdr.Size])
		assert.NilError(t, err)
	}
	assert.NilError(t, w.Close())
	return buf.Bytes()
}

func base(t *testing.T, s rootfs.Store, data []byte) rootfs.Layer {
	t.Helper()
	l, err := s.Base(t.Context(), digest.FromBytes(data), opener(data))
	assert.NilError(t, err)
	return l
}

func opener(data []byte) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

// step runs a shell script in a tree and commits it.
func step(t *testing.T, s rootfs.Store, parents []rootfs.Layer, script string, hints ...rootfs.Hint) rootfs.Layer {
	t.Helper()
	w, err := s.Work(t.Context(), parents)
	assert.NilError(t, err)
	cmd := exec.Command("bash", "-euc", "umask 022; "+script)
	cmd.Dir = w.Path()
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	l, err := w.Commit(t.Context(), hints...)
	assert.NilError(t, err)
	checkIndexes(t, s)
	return l
}

// checkIndexes compares the index of each idle tree with what is there.
func checkIndexes(t *testing.T, store rootfs.Store) {
	t.Helper()
	s, ok := store.(*Store)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, tr := range s.trees {
		if tr.use != idle {
			continue
		}
		if c := tr.pinned(); c != nil {
			same, err := c.pin.unchanged(t.Context())
			assert.NilError(t, err)
			assert.Assert(t, same, "what is pinned has changed")
			continue
		}
		found, err := tr.compare(t.Context())
		assert.NilError(t, err)
		for _, c := range found.candidates {
			same, err := c.same(t.Context(), tr.path(c.name))
			assert.NilError(t, err)
			assert.Assert(t, same, "%s is not as the index says", c.name)
		}
		assert.DeepEqual(t, found.gone, []string(nil))
		tr.walk(func(name string, e *entry) { assert.Assert(t, e.exists() && !e.dirty, name) })
	}
}

func layerTar(t *testing.T, l rootfs.Layer, limit *int64) []byte {
	t.Helper()
	var buf bytes.Buffer
	assert.NilError(t, l.WriteTar(t.Context(), &buf, rootfs.TarOptions{MaxTime: limit}))
	return buf.Bytes()
}

// entries shows a layer: the names of its tar, links with their targets.
func entries(t *testing.T, l rootfs.Layer) []string {
	t.Helper()
	return names(t, layerTar(t, l, nil))
}

func names(t *testing.T, data []byte) []string {
	t.Helper()
	out := []string{}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		hdr, err := r.Next()
		if err == io.EOF {
			return out
		}
		assert.NilError(t, err)
		switch hdr.Typeflag {
		case tar.TypeLink:
			out = append(out, hdr.Name+"="+hdr.Linkname)
		case tar.TypeSymlink:
			out = append(out, hdr.Name+"->"+hdr.Linkname)
		default:
			out = append(out, hdr.Name)
		}
	}
}

// describe lists everything that a stack shows but the content of large files.
// The root's attributes and sockets are no part of a layer.
func describe(t *testing.T, s rootfs.Store, layers ...rootfs.Layer) []string {
	t.Helper()
	v, err := s.View(t.Context(), layers)
	assert.NilError(t, err)
	defer func() { assert.NilError(t, v.Release()) }()
	return describeDir(t, v.Path())
}

func describeDir(t *testing.T, dir string) []string {
	t.Helper()
	out := []string{}
	inodes := map[uint64]string{}
	assert.NilError(t, filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		lerr := unix.Lstat(p, &st)
		if errors.Is(lerr, unix.ENOENT) {
			// Overlayfs lists a whiteout in a directory that one layer only has.
			return nil
		}
		if err := errors.Join(err, lerr); err != nil || p == dir {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			return nil
		}
		name := p[len(dir):]
		// A step's own times are no fixed ones.
		if st.Mtim.Sec > limit {
			st.Mtim = unix.Timespec{Sec: limit}
		}
		line := fmt.Sprintf("%q %o %d:%d %d.%09d %d", name, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, st.Rdev)
		for _, attr := range []string{"user.a", "security.capability", "system.posix_acl_access"} {
			buf := make([]byte, 100)
			if n, err := unix.Lgetxattr(p, attr, buf); err == nil {
				line += fmt.Sprintf(" %s=%x", attr, buf[:n])
			}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if first := inodes[st.Ino]; first != "" {
				line += "=" + first
			} else {
				inodes[st.Ino] = name
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

// limit is later than all times that tests set, and earlier than now.
const limit = int64(2000)

// short is the names and contents of describe.
func short(t *testing.T, s rootfs.Store, layers ...rootfs.Layer) []string {
	t.Helper()
	v, err := s.View(t.Context(), layers)
	assert.NilError(t, err)
	defer func() { assert.NilError(t, v.Release()) }()
	out := []string{}
	assert.NilError(t, filepath.WalkDir(v.Path(), func(p string, d os.DirEntry, err error) error {
		if p == v.Path() || err != nil {
			return err
		}
		rel, _ := filepath.Rel(v.Path(), p)
		if d.IsDir() {
			rel += "/"
		}
		if d.Type().IsRegular() {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			rel += "=" + string(data)
		}
		out = append(out, rel)
		return nil
	}))
	return out
}

func needTools(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs the program %s", tool)
		}
	}
}

func needToolsOf(t *testing.T, script string) {
	t.Helper()
	for _, tool := range []string{"setcap", "setfattr"} {
		if strings.Contains(script, tool) {
			needTools(t, tool)
		}
	}
	const module = "IO::Socket::UNIX"
	if strings.Contains(script, module) && exec.Command("perl", "-M"+module, "-e1").Run() != nil {
		t.Skipf("needs perl with %s", module)
	}
}
