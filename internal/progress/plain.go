package progress

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"time"
)

// When several steps run at once, Plain shows one of them at a time. It leaves
// a running step for one that waits when its block is long enough, and sooner
// when it has nothing to say.
const (
	blockMax   = 15 * time.Second
	blockMin   = 5 * time.Second
	quietAfter = time.Second
	// maxPending is how many bytes of one step may wait to be shown.
	maxPending = 1 << 20
)

// plain prints lines in BuildKit's form, in contiguous blocks of one step.
type plain struct {
	sink      *errWriter
	out       *bufio.Writer
	live      *bufio.Writer
	heartbeat time.Duration
	closing   closing

	byVertex map[*vertex]*block
	// active are the blocks that run or have something to show, in the order
	// in which they started.
	active          []*block
	current         *block
	since           time.Time
	blocks, indexed int
	closed          bool
	section         section
	// open is where a line without an end was printed.
	open       *block
	openStream int
}

// newPlain prints to w.
func newPlain(w io.Writer, heartbeat time.Duration, s section) *plain {
	sink := &errWriter{w: w}
	out := bufio.NewWriterSize(sink, 64<<10)
	return &plain{sink: sink, out: out, live: out, heartbeat: heartbeat, section: s, byVertex: map[*vertex]*block{}}
}

// newQuiet prints failed steps to w, at the end.
func newQuiet(w io.Writer) *plain {
	p := newPlain(w, -1, section{})
	p.live = bufio.NewWriter(io.Discard)
	p.closing.onlyFailed = true
	return p
}

func (p *plain) form() form { return colored }

func (p *plain) show(e event, v *vertex) {
	switch body := e.body.(type) {
	case started:
		p.block(v).want(e.at)
	case logged:
		b := p.block(v)
		b.last = e.at
		b.lines(body.stream).write(body.data, e.at)
		if !b.ended.IsZero() {
			b.endLines()
		}
	case moved:
		p.block(v).status(body, e.at)
	case finished:
		b := p.block(v)
		b.endLines()
		b.want(e.at)
		b.ended = e.at
	case warned:
		p.closing.warnings = append(p.closing.warnings, body.warning)
	case tabled:
		p.closing.tables = append(p.closing.tables, body)
	case ticked:
		p.tick(e.at)
	}
	p.turn(e.at)
}

func (p *plain) flush() {
	p.live.Flush()
	p.out.Flush()
}

func (p *plain) close(at time.Time) error {
	p.closed = true
	for _, b := range p.active {
		b.endLines()
	}
	p.turn(at)
	p.closeLine()
	p.section.end(p.live, at)
	p.live.Flush()
	p.closing.separate = p.blocks > 0 && !p.closing.onlyFailed
	p.closing.write(p.out)
	p.out.Flush()
	return p.sink.err
}

func (p *plain) block(v *vertex) *block {
	b, ok := p.byVertex[v]
	if !ok {
		b = newBlock(v)
		p.byVertex[v] = b
	}
	if !slices.Contains(p.active, b) {
		p.active = append(p.active, b)
	}
	return b
}

// turn prints all that it is the turn of.
func (p *plain) turn(at time.Time) {
	for {
		if p.current != nil {
			p.print(p.current)
		}
		next := p.next(at)
		if next == nil {
			return
		}
		p.enter(next, at)
	}
}

// next is the block to show after the current one, nil to stay. Blocks that
// have ended go first, since all of such a block comes at once.
func (p *plain) next(at time.Time) *block {
	var best *block
	for _, b := range p.active {
		if b == p.current || b.waiting.IsZero() || !p.mayLeave(at) && b.size < maxPending {
			continue
		}
		if best == nil || b.before(best) {
			best = b
		}
	}
	return best
}

func (p *plain) mayLeave(at time.Time) bool {
	if p.current == nil || p.closed {
		return true
	}
	age, quiet := at.Sub(p.since), at.Sub(p.current.last)
	return age >= blockMax || age >= blockMin && quiet >= quietAfter
}

func (p *plain) enter(b *block, at time.Time) {
	p.closeLine()
	if p.current != nil {
		fmt.Fprintf(p.live, "#%d ...\n", p.current.index)
		p.section.end(p.live, at)
	}
	if p.blocks > 0 {
		fmt.Fprintln(p.live)
	}
	from := at
	if b.index == 0 {
		p.indexed++
		b.index = p.indexed
		if !b.v.started.IsZero() {
			from = b.v.started
		}
	}
	p.blocks++
	p.section.start(p.live, from, fmt.Sprintf("#%d %s", b.index, b.v.Name))
	p.current, p.since = b, at
}

// print writes what the current block has to show, and how it ended.
func (p *plain) print(b *block) {
	for _, l := range b.pending {
		p.piece(b, l)
	}
	b.shown()
	if b.ended.IsZero() {
		return
	}
	p.closeLine()
	if !b.reported {
		b.reported = true
		p.result(b)
		if b.v.result.failed() {
			p.closing.failed = append(p.closing.failed, b)
		}
	}
	if !b.v.result.failed() {
		b.forget()
	}
	p.section.end(p.live, b.ended)
	p.current = nil
	p.active = slices.DeleteFunc(p.active, func(a *block) bool { return a == b })
}

func (p *plain) piece(b *block, l piece) {
	switch {
	case l.more && p.open == b && p.openStream == l.stream:
		p.live.WriteString(l.text)
	case l.more && l.text == "":
		return
	default:
		p.closeLine()
		fmt.Fprintf(p.live, "#%d %s", b.index, b.render(l))
	}
	p.open, p.openStream = b, l.stream
	if l.end {
		p.closeLine()
	}
}

func (p *plain) closeLine() {
	if p.open != nil {
		fmt.Fprintln(p.live)
	}
	p.open = nil
}

func (p *plain) result(b *block) {
	switch r := b.v.result; {
	case r.canceled:
		fmt.Fprintf(p.live, "#%d CANCELED\n", b.index)
	case r.err != "":
		for i, line := range textLines(r.err) {
			if i == 0 {
				line = "ERROR: " + line
			}
			fmt.Fprintf(p.live, "#%d %s\n", b.index, line)
		}
	case r.cached:
		fmt.Fprintf(p.live, "#%d CACHED\n", b.index)
	default:
		fmt.Fprintf(p.live, "#%d DONE %.1fs\n", b.index, b.v.took().Seconds())
	}
}

// tick shows lines that stall and says which silent steps still run.
func (p *plain) tick(at time.Time) {
	for _, b := range p.active {
		b.stalled(at)
		if p.heartbeat <= 0 || !b.v.running() || at.Sub(b.heard()) < p.heartbeat {
			continue
		}
		b.beat = at
		text := fmt.Sprintf("still running after %s", at.Sub(b.v.started).Round(time.Second))
		if p.current == nil || p.current == b || b.index == 0 {
			b.add(piece{at: at, text: text, end: true, note: true})
			continue
		}
		// A block of its own for each of many silent steps would bury the log.
		p.closeLine()
		fmt.Fprintf(p.live, "#%d %s: %s\n", b.index, text, b.v.Name)
	}
}
