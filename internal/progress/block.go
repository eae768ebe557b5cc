package progress

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/docker/go-units"
)

const (
	// tailLines is how much of a failed step's output is shown again.
	tailLines = 20
	// maxTail bounds a line of it.
	maxTail = 64 << 10
	// transferEvery is how often a long transfer is shown.
	transferEvery = 5 * time.Second
)

// block is what Plain knows of a vertex.
type block struct {
	v *vertex
	// index is the number in front of each line; 0 until the block is shown.
	index   int
	streams map[int]*lines

	// pending is what waits to be printed since waiting, size about its bytes.
	pending []piece
	waiting time.Time
	size    int

	// last is when something was heard of the step, beat the last heartbeat.
	last, beat time.Time
	ended      time.Time
	// reported: the line about the end is printed.
	reported  bool
	transfers map[string]time.Time
	tail      []string
	tailOf    int
}

func newBlock(v *vertex) *block {
	return &block{v: v, streams: map[int]*lines{}, transfers: map[string]time.Time{}}
}

// before orders blocks that wait: ended ones first, then by the time waited.
func (b *block) before(o *block) bool {
	if b.ended.IsZero() != o.ended.IsZero() {
		return o.ended.IsZero()
	}
	if !b.ended.IsZero() {
		return b.ended.Before(o.ended)
	}
	return b.waiting.Before(o.waiting)
}

// want asks for a turn.
func (b *block) want(at time.Time) {
	if b.waiting.IsZero() {
		b.waiting = at
	}
}

func (b *block) add(l piece) {
	b.pending = append(b.pending, l)
	b.size += pieceSize + len(l.text)
	b.want(l.at)
	if !l.note {
		b.remember(l)
	}
}

// shown says that nothing waits any more.
func (b *block) shown() {
	b.pending, b.waiting, b.size = b.pending[:0], time.Time{}, 0
}

// remember keeps the last lines for the case that the step fails.
func (b *block) remember(l piece) {
	if n := len(b.tail); l.more && n > 0 && b.tailOf == l.stream && len(b.tail[n-1]) < maxTail {
		b.tail[n-1] += l.text
		return
	}
	b.tailOf = l.stream
	b.tail = append(b.tail, b.render(l))
	if len(b.tail) > tailLines {
		b.tail = b.tail[1:]
	}
}

// forget frees what a step that went well needs no more.
func (b *block) forget() {
	b.tail, b.pending, b.streams, b.transfers = nil, nil, map[int]*lines{}, map[string]time.Time{}
}

func (b *block) lines(stream int) *lines {
	l, ok := b.streams[stream]
	if !ok {
		l = &lines{stream: stream, emit: b.add}
		b.streams[stream] = l
	}
	return l
}

// eachStream is in a fixed order, so that equal events give equal lines.
func (b *block) eachStream(do func(*lines)) {
	for _, stream := range slices.Sorted(maps.Keys(b.streams)) {
		do(b.streams[stream])
	}
}

func (b *block) endLines() { b.eachStream((*lines).flush) }

func (b *block) stalled(at time.Time) {
	b.eachStream(func(l *lines) { l.stalled(at) })
}

// heard is when a reader last had a sign of life.
func (b *block) heard() time.Time {
	t := b.v.started
	for _, o := range []time.Time{b.last, b.beat} {
		if o.After(t) {
			t = o
		}
	}
	return t
}

// status adds a line about a transfer when it ends, and now and then before.
func (b *block) status(m moved, at time.Time) {
	b.last = at
	began, ok := b.v.tasks[m.name]
	if !ok {
		began = at
	}
	last, ok := b.transfers[m.name]
	if !ok {
		last = began
	}
	if !m.done && at.Sub(last) < transferEvery {
		return
	}
	b.transfers[m.name] = at
	if m.done {
		delete(b.transfers, m.name)
	}
	b.add(piece{at: at, text: transferText(m, at.Sub(began)), end: true, note: true})
}

func transferText(m moved, took time.Duration) string {
	text := m.name
	switch {
	case m.total > 0:
		text += " " + size(m.current) + " / " + size(m.total)
	case m.current > 0:
		text += " " + size(m.current)
	}
	text += fmt.Sprintf(" %.1fs", took.Seconds())
	if m.done {
		text += " done"
	}
	return text
}

// size is in decimal units, as registries count.
func size(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// render is the piece without the number in front.
func (b *block) render(l piece) string {
	if l.note {
		return l.text
	}
	s := seconds(l.at.Sub(b.v.started))
	if l.text == "" {
		return s
	}
	return s + " " + l.text
}

// seconds has as many digits as BuildKit prints, so that columns line up.
func seconds(d time.Duration) string {
	s, digits := max(0, d.Seconds()), 1
	switch {
	case s < 10:
		digits = 3
	case s < 100:
		digits = 2
	}
	return fmt.Sprintf("%.*f", digits, s)
}
