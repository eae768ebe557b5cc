package progress

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/console"
	"gotest.tools/v3/assert"
)

// openTerminal returns a terminal and a function that closes it and returns
// what it got.
func openTerminal(t *testing.T) (*os.File, func() string) {
	t.Helper()
	master, name, err := console.NewPty()
	if err != nil {
		t.Skipf("no pseudo terminal here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	assert.NilError(t, master.Resize(console.WinSize{Height: 40, Width: 120}))
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	assert.NilError(t, err)
	var out bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Ends in EIO when the other side is closed.
		io.Copy(&out, master)
	}()
	return f, func() string {
		f.Close()
		<-done
		return out.String()
	}
}

// The live view has global state, so there is one test for it.
func TestTTY(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{TTY, Auto} {
		f, end := openTerminal(t)
		d, err := New(Options{Out: f, Mode: mode, Redact: []string{"hunter2"}})
		assert.NilError(t, err)
		d.Plan(Vertex{ID: vid("base"), Name: "FROM alpine"}, Vertex{ID: vid("make"), Name: "RUN make", Inputs: nil}, Vertex{ID: vid("other"), Name: "RUN other"})
		d.Done(vid("base"), true, nil)
		d.Start(vid("make"))
		d.Start(vid("other"))
		d.Status(vid("make"), "sha256:aaa", 1000, 2000, false)
		d.Status(vid("make"), "sha256:aaa", 2000, 2000, true)
		d.Log(vid("make"), 1).Write([]byte("hello hunt\x1b[5;5H"))
		d.Log(vid("make"), 1).Write([]byte("er2\n\n\n\n\n\n\n\n\n\x1b[K\xff\xfe\n"))
		d.Warn(Warning{File: "Dockerfile", Line: 2, Text: "Rule: text"})
		d.Done(vid("make"), false, errors.New("exit code: 2"))
		d.Done(vid("other"), false, context.Canceled)
		d.Table("app", []ImageRow{{Platform: "linux/amd64", Digest: vid("x").String(), Time: time.Second}})
		assert.NilError(t, d.Close())
		assert.NilError(t, d.Close())
		out := end()
		for _, want := range []string{"[+] Building", "CACHED FROM alpine", "ERROR RUN make", "CANCELED RUN other", "hello ***", `\xff\xfe`, "Dockerfile:2: Rule: text", "linux/amd64"} {
			assert.Assert(t, strings.Contains(out, want), "%q in %q", want, out)
		}
		assert.Assert(t, !strings.Contains(out, "hunter2"))
		assert.Assert(t, !strings.Contains(out, "\x1b[5;5H"))
	}
}
