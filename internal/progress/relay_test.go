package progress

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// What a build prints as JSON elsewhere looks here as if it had run here.
func TestRelay(t *testing.T) {
	t.Parallel()
	var events bytes.Buffer
	there, err := New(Options{Out: &events, Mode: JSON})
	assert.NilError(t, err)
	one, two := digest.FromString("1"), digest.FromString("2")
	there.Plan(Vertex{ID: one, Name: "[1/2] FROM x"}, Vertex{ID: two, Name: "[2/2] RUN false", Inputs: []digest.Digest{one}})
	there.Start(one)
	there.Done(one, true, nil)
	there.Start(two)
	_, _ = there.Log(two, 1).Write([]byte("hello\n\xff\n"))
	there.Warn(Warning{File: "Dockerfile", Line: 1, Text: "a warning"})
	there.Done(two, false, errors.New("exit code: 42"))
	assert.NilError(t, there.Close())

	var out bytes.Buffer
	here, err := New(Options{Out: &out, Mode: Plain})
	assert.NilError(t, err)
	r := NewRelay(here, "linux/arm64", "job")
	for line := range strings.Lines(events.String()) {
		r.Line([]byte(strings.TrimSuffix(line, "\n")))
	}
	r.Line([]byte("no event"))
	r.Line([]byte("error: exit code: 42"))
	r.Close(errors.New("linux/arm64: exit code: 42: see its output above"))
	assert.NilError(t, here.Close())
	got := out.String()
	for _, want := range []string{
		"[linux/arm64 1/2] FROM x\n#1 CACHED", "[linux/arm64 2/2] RUN false", " hello\n", "ERROR: exit code: 42", "a warning", "[linux/arm64] output\n", "no event",
	} {
		assert.Check(t, is.Contains(got, want))
	}
	assert.Check(t, !strings.Contains(got, "error: exit code"), "the error is told twice:\n%s", got)
}

// A build that was cut off has no step that seems to run on.
func TestRelay_cut_off(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	here, err := New(Options{Out: &out, Mode: Plain})
	assert.NilError(t, err)
	r := NewRelay(here, "linux/arm64", "job")
	r.Line([]byte(`{"event":"start","vertex":"sha256:x","name":"y"}`))
	r.Line([]byte(`{"event":"plan"`))
	r.Close(errors.New("the pod was lost"))
	assert.NilError(t, here.Close())
	assert.Check(t, is.Contains(out.String(), "CANCELED"))
	assert.Check(t, is.Contains(out.String(), `{"event":"plan"`))
}
