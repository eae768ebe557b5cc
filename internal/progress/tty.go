package progress

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/containerd/console"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
)

// tty is BuildKit's live view. It keeps all output of a step in memory, to
// show it if the step fails.
type tty struct {
	out      *errWriter
	statuses chan *client.SolveStatus
	done     chan error
	closing  closing
}

// newTTY shows the build on out, which must be a terminal.
func newTTY(out io.Writer) (*tty, error) {
	f, ok := out.(console.File)
	if !ok {
		return nil, errNoTerminal()
	}
	if _, err := console.ConsoleFromFile(f); err != nil {
		return nil, errNoTerminal()
	}
	guarded := &terminal{File: f, out: &errWriter{w: f}}
	display, err := progressui.NewDisplay(guarded, progressui.TtyMode)
	if err != nil {
		return nil, err
	}
	t := &tty{out: guarded.out, statuses: make(chan *client.SolveStatus), done: make(chan error, 1)}
	go func() {
		_, err := display.UpdateFrom(context.Background(), t.statuses)
		t.done <- err
	}()
	return t, nil
}

func errNoTerminal() error {
	return errors.New(`progress mode "tty" needs a terminal and the output is none: use --progress=plain, or auto to have it chosen`)
}

// terminal is a console whose writes do not fail: an error is kept for Close.
type terminal struct {
	console.File
	out *errWriter
}

func (t *terminal) Write(p []byte) (int, error) { return t.out.Write(p) }

// form is without colors: the live view has a terminal emulator for each step,
// which knows little of them and nothing of how to survive bad sequences.
func (t *tty) form() form { return readable }

func (t *tty) show(e event, v *vertex) {
	switch body := e.body.(type) {
	case planned, started, finished:
		t.statuses <- &client.SolveStatus{Vertexes: []*client.Vertex{t.vertex(v)}}
	case logged:
		t.statuses <- &client.SolveStatus{Logs: []*client.VertexLog{{
			Vertex: v.ID, Stream: body.stream, Data: body.data, Timestamp: e.at,
		}}}
	case moved:
		t.statuses <- &client.SolveStatus{Statuses: []*client.VertexStatus{t.status(body, v, e.at)}}
	case warned:
		t.closing.warnings = append(t.closing.warnings, body.warning)
	case tabled:
		t.closing.tables = append(t.closing.tables, body)
	}
}

// vertex is a new value each time: the live view keeps it.
func (t *tty) vertex(v *vertex) *client.Vertex {
	out := &client.Vertex{Digest: v.ID, Inputs: v.Inputs, Name: v.Name, Cached: v.result.cached}
	if !v.started.IsZero() {
		at := v.started
		out.Started = &at
	}
	if !v.ended.IsZero() {
		at := v.ended
		out.Completed = &at
		out.Error = oneLine(v.result.err)
	}
	if v.result.canceled {
		// The live view knows a cancelled step by this text.
		out.Error = context.Canceled.Error()
	}
	return out
}

func (t *tty) status(m moved, v *vertex, at time.Time) *client.VertexStatus {
	began := v.tasks[m.name]
	s := &client.VertexStatus{ID: m.name, Vertex: v.ID, Current: m.current, Total: m.total, Timestamp: at, Started: &began}
	if m.done {
		s.Completed = &at
	}
	return s
}

func (t *tty) flush() {}

func (t *tty) close(time.Time) error {
	close(t.statuses)
	if err := <-t.done; err != nil {
		return err
	}
	t.closing.separate = true
	t.closing.write(t.out)
	return t.out.err
}
