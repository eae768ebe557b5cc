package progress

import (
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// maxQueue is how many bytes may wait to be drawn before reporters wait.
const maxQueue = 4 << 20

// maxLog is the largest piece of output in one event.
const maxLog = 64 << 10

// eventSize is what an event costs besides its output.
const eventSize = 256

// event is something that happened. The body is one of the types below.
type event struct {
	at   time.Time
	id   digest.Digest
	body any
}

type (
	planned struct{ vertex Vertex }
	started struct{}
	logged  struct {
		stream int
		data   []byte
	}
	moved struct {
		name           string
		current, total int64
		done           bool
	}
	finished struct {
		cached   bool
		err      string
		canceled bool
	}
	warned struct{ warning Warning }
	tabled struct {
		title string
		rows  []ImageRow
	}
	// ticked lets time pass when nothing else happens.
	ticked struct{}
)

// failed is false for a step that was cancelled: another one is to blame.
func (f finished) failed() bool { return f.err != "" && !f.canceled }

// queue is a bounded list of events. Their times never decrease, since the
// clock is read when an event gets its place.
type queue struct {
	now func() time.Time

	mu      sync.Mutex
	changed sync.Cond
	events  []event
	size    int
	ticking bool
	closed  bool
}

func newQueue(now func() time.Time) *queue {
	q := &queue{now: now}
	q.changed.L = &q.mu
	return q
}

// push waits for room. After close it does nothing.
func (q *queue) push(e event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.size >= maxQueue && !q.closed {
		q.changed.Wait()
	}
	q.add(e)
}

// tick never waits: a queue that is full, or has a tick, has no need of one.
func (q *queue) tick() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ticking || q.size >= maxQueue {
		return
	}
	q.ticking = true
	q.add(event{body: ticked{}})
}

func (q *queue) add(e event) {
	if q.closed {
		return
	}
	e.at = q.now()
	q.events = append(q.events, e)
	q.size += eventSize
	if l, ok := e.body.(logged); ok {
		q.size += len(l.data)
	}
	q.changed.Broadcast()
}

// take waits for events. It reports false after close, when none is left.
func (q *queue) take() ([]event, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.events) == 0 && !q.closed {
		q.changed.Wait()
	}
	events := q.events
	q.events, q.size, q.ticking = nil, 0, false
	q.changed.Broadcast()
	return events, len(events) > 0
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}
