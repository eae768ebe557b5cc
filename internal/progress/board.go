package progress

import (
	"io"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// view draws. It is used by one goroutine.
type view interface {
	// show is told of an event after the vertex has taken note of it. v is nil
	// for events that concern none. Output has been through the filter.
	show(e event, v *vertex)
	// flush is called when nothing more is waiting.
	flush()
	// close draws what is left. The error is the first one of writing.
	close(at time.Time) error
	// form says what output is turned into before it is shown.
	form() form
}

// vertex is what is known of a vertex so far.
type vertex struct {
	Vertex
	started, ended time.Time
	result         finished
	streams        map[int]*filter
	tasks          map[string]time.Time
}

func (v *vertex) running() bool { return !v.started.IsZero() && v.ended.IsZero() }

func (v *vertex) took() time.Duration { return max(0, v.ended.Sub(v.started)) }

// board keeps the state of all vertices and puts events in their proper order
// for a view, whatever the reporters do: a vertex starts before it logs and
// starts and ends once.
type board struct {
	view     view
	secrets  secrets
	byID     map[digest.Digest]*vertex
	order    []*vertex
	warnings map[Warning]bool
}

func newBoard(v view, s secrets) *board {
	if v.form() != verbatim {
		s = s.cleaned(v.form())
	}
	return &board{view: v, secrets: s, byID: map[digest.Digest]*vertex{}, warnings: map[Warning]bool{}}
}

func (b *board) handle(e event) {
	switch body := e.body.(type) {
	case planned:
		if _, ok := b.byID[e.id]; ok {
			return
		}
		b.view.show(e, b.vertex(body.vertex))
	case started:
		b.start(e)
	case logged:
		v := b.start(e)
		body.data = b.filter(v, body.stream).write(body.data)
		b.log(v, e.at, body)
	case moved:
		v := b.start(e)
		if _, ok := v.tasks[body.name]; !ok {
			v.tasks[body.name] = e.at
		}
		b.view.show(e, v)
		if body.done {
			delete(v.tasks, body.name)
		}
	case finished:
		v := b.start(e)
		if !v.running() {
			return
		}
		b.drain(v, e.at)
		v.ended, v.result = e.at, body
		b.view.show(e, v)
	case warned:
		if b.warnings[body.warning] {
			return
		}
		b.warnings[body.warning] = true
		b.view.show(e, nil)
	default:
		b.view.show(e, nil)
	}
}

// vertex adds v to the board.
func (b *board) vertex(v Vertex) *vertex {
	state := &vertex{Vertex: v, streams: map[int]*filter{}, tasks: map[string]time.Time{}}
	b.byID[v.ID] = state
	b.order = append(b.order, state)
	return state
}

// start makes sure that the vertex of e has started. One that nobody planned
// is known by its digest.
func (b *board) start(e event) *vertex {
	v, ok := b.byID[e.id]
	if !ok {
		v = b.vertex(Vertex{ID: e.id, Name: oneLine(e.id.String())})
		b.view.show(event{at: e.at, id: e.id, body: planned{v.Vertex}}, v)
	}
	if v.started.IsZero() {
		v.started = e.at
		b.view.show(event{at: e.at, id: e.id, body: started{}}, v)
	}
	return v
}

func (b *board) filter(v *vertex, stream int) *filter {
	f, ok := v.streams[stream]
	if !ok {
		f = newFilter(b.view.form(), b.secrets)
		v.streams[stream] = f
	}
	return f
}

func (b *board) log(v *vertex, at time.Time, l logged) {
	if len(l.data) == 0 {
		return
	}
	b.view.show(event{at: at, id: v.ID, body: l}, v)
}

// drain shows what the filters of v held back.
func (b *board) drain(v *vertex, at time.Time) {
	for _, stream := range slices.Sorted(maps.Keys(v.streams)) {
		b.log(v, at, logged{stream, v.streams[stream].flush()})
	}
}

func (b *board) close(at time.Time) error {
	for _, v := range b.order {
		b.drain(v, at)
	}
	return b.view.close(at)
}

// errWriter remembers the first error of a writer and then swallows all else,
// so that a lost terminal does not stop a build.
type errWriter struct {
	w   io.Writer
	err error
}

func (w *errWriter) Write(p []byte) (int, error) {
	if w.err == nil {
		_, w.err = w.w.Write(p)
	}
	return len(p), nil
}
