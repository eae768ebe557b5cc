package ocicontext

import (
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// server is a registry that counts the bytes of blobs that it is sent.
func server(t *testing.T) (_ *registry.Client, repo registry.Ref, received *atomic.Int64) {
	t.Helper()
	received = &atomic.Int64{}
	inner := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") && r.Body != nil {
			r.Body = counted{r.Body, received}
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	client, err := registry.New(registry.Options{Getenv: func(string) string { return "" }, HomeDir: t.TempDir(), Retry: registry.Retry{Count: -1}})
	assert.NilError(t, err)
	return client, registry.Ref{Registry: strings.TrimPrefix(s.URL, "http://"), Repository: "acme/cache"}, received
}

type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func open(t *testing.T, dir string) *buildcontext.Context {
	t.Helper()
	c, err := buildcontext.Open(dir)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func write(t *testing.T, dir, name, data string) {
	t.Helper()
	name = filepath.Join(dir, name)
	assert.NilError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	assert.NilError(t, os.WriteFile(name, []byte(data), 0o644))
}

// tree is a context with all that one can have.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "a/first", "linked")
	assert.NilError(t, os.Link(filepath.Join(dir, "a/first"), filepath.Join(dir, "b-second")))
	assert.NilError(t, os.Link(filepath.Join(dir, "a/first"), filepath.Join(dir, "c-third")))
	write(t, dir, "empty", "")
	write(t, dir, "large", strings.Repeat("0123456789abcdef\n", 1<<14))
	write(t, dir, "not/this", "ignored")
	write(t, dir, "not/but", "this")
	write(t, dir, "with\nnewline", "x")
	write(t, dir, ".wh.name", "no whiteout")
	assert.NilError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "link")))
	assert.NilError(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	assert.NilError(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	assert.NilError(t, os.Mkdir(filepath.Join(dir, "dir"), 0o700))
	assert.NilError(t, os.Chmod(filepath.Join(dir, "large"), 0o4751))
	_ = unix.Setxattr(filepath.Join(dir, "large"), "user.k", []byte("v"), 0) // not every file system has them
	at := time.Unix(1234567890, 123456789)
	for _, name := range []string{"dir", "large", "a/first", "empty"} {
		assert.NilError(t, os.Chtimes(filepath.Join(dir, name), at, at))
		at = at.Add(-time.Hour)
	}
	before := time.Unix(-5, 7)
	assert.NilError(t, os.Chtimes(filepath.Join(dir, "not/but"), before, before))
	return dir
}

// look lists all that a build can see of a directory.
func look(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	inodes := map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		line := fmt.Sprintf("%q %o %d:%d %d.%09d", name, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		if first, ok := inodes[st.Ino]; ok {
			line += " = " + first
		}
		inodes[st.Ino] = name
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			buf := make([]byte, 100)
			n, _ := unix.Lgetxattr(p, "user.k", buf)
			line += fmt.Sprintf(" %x %q", len(data), buf[:max(n, 0)])
			if len(data) < 100 {
				line += " " + string(data)
			}
		case unix.S_IFLNK:
			target, _ := os.Readlink(p)
			line += " -> " + target
		}
		out = append(out, line)
		return nil
	})
	assert.NilError(t, err)
	slices.Sort(out)
	return out
}

// What a build sees of a context is the same whether it has travelled or not.
func TestTravel(t *testing.T) {
	t.Parallel()
	client, repo, _ := server(t)
	dir := tree(t)
	for _, tc := range []struct {
		name    string
		exclude []string
	}{
		{"all", nil},
		{"selected", []string{"a", "not", "!not/but", "**/*.o"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			sel := buildcontext.Selection{Exclude: tc.exclude}
			pushed, err := Push(t.Context(), client, repo, open(t, dir), sel, t.TempDir())
			assert.NilError(t, err)
			fetched := t.TempDir()
			assert.NilError(t, Fetch(t.Context(), client, strings.TrimPrefix(pushed.Location(), Scheme), fetched))
			here, there := t.TempDir(), t.TempDir()
			assert.NilError(t, open(t, dir).Materialize(t.Context(), here, sel))
			assert.NilError(t, open(t, fetched).Materialize(t.Context(), there, sel))
			list := look(t, here)
			assert.Check(t, len(list) > 10, "%q", list)
			assert.Check(t, is.DeepEqual(look(t, there), list))
		})
	}
}

// A context that has not changed is not sent again, nor, with new times, are its
// files.
func TestPush_twice(t *testing.T) {
	t.Parallel()
	client, repo, received := server(t)
	dir := t.TempDir()
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(i * i >> 7 * 31)
	}
	write(t, dir, "noise", string(noise))
	for i := range 100 {
		write(t, dir, fmt.Sprintf("file-%d", i), strings.Repeat(fmt.Sprint(i*i), 100))
	}
	push := func() (Pushed, int64) {
		before := received.Load()
		p, err := Push(t.Context(), client, repo, open(t, dir), buildcontext.Selection{}, t.TempDir())
		assert.NilError(t, err)
		return p, received.Load() - before
	}
	first, sent := push()
	assert.Check(t, is.Equal(first.Sent, first.Size))
	assert.Check(t, sent >= first.Size, "%d", sent)
	second, sent := push()
	assert.Check(t, is.Equal(second.Ref, first.Ref))
	assert.Check(t, is.Equal(second.Sent+sent, int64(0)))

	entries, err := os.ReadDir(dir)
	assert.NilError(t, err)
	for i, e := range entries {
		at := time.Unix(1_700_000_000, int64(i)*1234567)
		assert.NilError(t, os.Chtimes(filepath.Join(dir, e.Name()), at, at))
	}
	third, sent := push()
	assert.Check(t, third.Ref != first.Ref)
	assert.Check(t, third.Sent > 0 && third.Sent < 2000 && sent < 2000, "%d, %d", third.Sent, sent)
}

func TestFetch_refuses(t *testing.T) {
	t.Parallel()
	client, repo, _ := server(t)
	dir := t.TempDir()
	write(t, dir, "file", "x")
	pushed, err := Push(t.Context(), client, repo, open(t, dir), buildcontext.Selection{}, "")
	assert.NilError(t, err)
	manifest := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}`
	image, err := client.PushManifest(t.Context(), repo, "application/vnd.oci.image.manifest.v1+json", []byte(manifest))
	assert.NilError(t, err)
	for _, tc := range []struct{ name, location, want string }{
		{"tag", repo.Name() + ":1", "by its digest"},
		{"no_reference", "a b", "invalid reference"},
		{"image", repo.WithDigest(image.Digest).String(), "is no build context"},
		{"absent", repo.WithDigest("sha256:" + pushed.Ref.Digest[len("sha256:"):][:63] + "0").String(), "404"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := Fetch(t.Context(), client, tc.location, t.TempDir())
			assert.ErrorContains(t, err, tc.want)
		})
	}
}
