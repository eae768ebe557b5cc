package progress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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

// told writes down what a reporter is told, with the first letters of vertices.
type told struct{ bytes.Buffer }

func (b *told) say(what string, id digest.Digest, args ...any) {
	fmt.Fprintln(b, append([]any{what, id.Encoded()[:4]}, args...)...)
}

func (b *told) Plan(list ...Vertex) {
	for _, v := range list {
		b.say("plan", v.ID, v.Name, len(v.Inputs))
	}
}
func (b *told) Start(id digest.Digest)                        { b.say("start", id) }
func (b *told) Done(id digest.Digest, cached bool, err error) { b.say("done", id, cached, err) }
func (b *told) Log(digest.Digest, int) io.Writer              { return b }
func (b *told) Warn(w Warning)                                { fmt.Fprintln(b, "warn", w, w.Detail) }
func (b *told) Status(id digest.Digest, n string, c, t int64, d bool) {
	b.say("status", id, n, c, t, d)
}

func TestRelay_events(t *testing.T) {
	t.Parallel()
	id := func(salt, vertex string) string { return digest.FromString(salt + "\x00" + vertex).Encoded()[:4] }
	a, b := id("job", "a"), id("job", "b")
	for _, tc := range []struct {
		name  string
		lines []string
		err   error
		want  string
	}{
		{"plan", []string{`{"event":"plan","vertex":"b","name":"[2/2] RUN","inputs":["a"]}`}, nil, "plan " + b + " [here 2/2] RUN 1\n"},
		{"named_already", []string{`{"event":"plan","vertex":"a","name":"[here 1/2] RUN"}`}, nil, "plan " + a + " [here 1/2] RUN 0\n"},
		{"no_brackets", []string{`{"event":"plan","vertex":"a","name":"exporting"}`}, nil, "plan " + a + " [here] exporting 0\n"},
		{"ended", []string{`{"event":"start","vertex":"a"}`, `{"event":"done","vertex":"a","cached":true}`}, nil, "start " + a + "\ndone " + a + " true <nil>\n"},
		{"failed", []string{`{"event":"done","vertex":"a","error":"no"}`}, errors.New("no"), "done " + a + " false no\n"},
		{"cancelled", []string{`{"event":"done","vertex":"a","error":"no","canceled":true}`}, nil, "done " + a + " false context canceled\n"},
		{"status", []string{`{"event":"status","vertex":"a","name":"layer","current":1,"total":2,"done":true}`}, nil, "status " + a + " layer 1 2 true\n"},
		{"log", []string{`{"event":"log","vertex":"a","stream":2,"data":"/w=="}`, `{"event":"log","vertex":"a","text":"x"}`}, nil, "\xffx"},
		{"warning", []string{`{"event":"warning","file":"f","line":2,"text":"t","url":"u","detail":"d"}`}, nil, "warn f:2: t (u) d\n"},
		{"image", []string{`{"event":"image","platform":"linux/arm64"}`}, nil, ""},
		{"cut_off", []string{`{"event":"start","vertex":"a"}`, `{"event":"start","vertex":"b"}`, `{"event":"done","vertex":"a"}`}, errors.New("lost"),
			"start " + a + "\nstart " + b + "\ndone " + a + " false <nil>\ndone " + b + " false context canceled\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var got told
			r := NewRelay(&got, "here", "job")
			for _, line := range tc.lines {
				r.Line([]byte(line))
			}
			r.Close(tc.err)
			assert.Check(t, is.Equal(got.String(), tc.want))
		})
	}
}
