package registry

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// TestDistribution runs the whole protocol against Docker's registry, through
// a proxy that cuts one upload. Distribution cannot resume there, since its
// upload state holds the offset before the cut: the blob is sent anew.
func TestDistribution(t *testing.T) {
	t.Parallel()
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed (Debian package docker-registry)")
	}
	cutAfter := &atomic.Int64{}
	repo := Ref{Registry: cuttingProxy(t, startDistribution(t, bin), cutAfter), Repository: "acme/app"}
	c := newClient(t, Options{Retry: Retry{Count: 200, InitialDelay: 50 * time.Millisecond, MaxDelay: 50 * time.Millisecond}})

	data, desc := blobOf(20_000_001)
	_, err = c.HasBlob(t.Context(), repo, desc.Digest)
	assert.NilError(t, err)
	cutAfter.Store(9_000_000)
	assert.NilError(t, c.PushBlob(t.Context(), repo, desc, bytes.NewReader(data), nil))
	assert.Equal(t, cutAfter.Load(), int64(0), "the proxy did not cut")
	cutAfter.Store(-9_000_000)
	b, err := c.Blob(t.Context(), repo, desc)
	assert.NilError(t, err)
	got, err := io.ReadAll(b)
	assert.NilError(t, err)
	assert.Assert(t, bytes.Equal(got, data))
	assert.Equal(t, cutAfter.Load(), int64(0), "the proxy did not cut")

	other := repo
	other.Repository = "acme/other"
	mounted, err := c.MountBlob(t.Context(), other, repo, desc.Digest)
	assert.NilError(t, err)
	assert.Assert(t, mounted)
	mounted, err = c.MountBlob(t.Context(), other, repo, someDigest)
	assert.NilError(t, err)
	assert.Assert(t, !mounted)

	arm := platform(t, "linux/arm64")
	d := pushImage(t, c, repo, arm)
	index := pushIndex(t, c, repo.WithTag("1"), d)
	assert.NilError(t, c.CopyImage(t.Context(), other.WithTag("2"), repo.WithDigest(index.Digest)))
	img, err := c.Image(t.Context(), other.WithTag("2"), arm)
	assert.NilError(t, err)
	assert.Equal(t, img.Root, index.Digest)
}

func startDistribution(t *testing.T, bin string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), addr)
	assert.NilError(t, os.WriteFile(config, []byte(text), 0o600))
	cmd := exec.Command(bin, "serve", config)
	assert.NilError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return addr
}

// cuttingProxy passes connections on, and breaks one once limit bytes went up,
// or, when it is negative, down. It sets limit to 0 then.
func cuttingProxy(t *testing.T, target string, limit *atomic.Int64) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	t.Cleanup(func() { l.Close() })
	pass := func(to, from net.Conn, sign int64) {
		defer to.Close()
		defer from.Close()
		buf := make([]byte, 32<<10)
		for total := int64(0); ; {
			n, err := from.Read(buf)
			total += int64(n)
			if at := limit.Load() * sign; at > 0 && total > at && limit.CompareAndSwap(at*sign, 0) {
				return
			}
			if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			go pass(server, client, 1)
			go pass(client, server, -1)
		}
	}()
	return l.Addr().String()
}
