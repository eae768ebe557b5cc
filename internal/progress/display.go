package progress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Mode says what a Display looks like.
type Mode string

const (
	// Auto is TTY when the output is a terminal, else Plain.
	Auto Mode = "auto"
	// Plain is lines for a log, in BuildKit's form.
	Plain Mode = "plain"
	// TTY is BuildKit's live view.
	TTY Mode = "tty"
	// JSON is one event a line; the schema is documented at jsonHead.
	JSON Mode = "json"
	// Quiet shows failed steps and nothing else.
	Quiet Mode = "quiet"
)

// DefaultHeartbeat is short enough for CI systems that kill silent jobs (the
// strictest known limit is several minutes) and long enough not to be noise.
const DefaultHeartbeat = 30 * time.Second

// tickEvery is how precise heartbeats and the flushing of unfinished lines are.
const tickEvery = 250 * time.Millisecond

// statusEvery limits the reports of one transfer, which come with each chunk.
const statusEvery = 100 * time.Millisecond

// Options of New. The zero value shows the build on standard error.
type Options struct {
	// Out is where everything goes; nil means standard error.
	Out io.Writer
	// Mode is Auto when empty.
	Mode Mode
	// Heartbeat is how long a running step may be silent before Plain says that
	// it still runs. 0 means DefaultHeartbeat, less than 0 never.
	Heartbeat time.Duration
	// Sections puts the blocks of Plain into collapsible sections of GitLab's.
	Sections bool
	// Groups are told where the blocks of Plain begin and end; nil is nobody.
	Groups Groups
	// Redact are values of secrets. Each is replaced by *** in everything that
	// is shown, and so is each line of 8 bytes or more of a value that has
	// several lines. Values of less than 3 bytes, but for white space around
	// them, are ignored.
	Redact []string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Display shows a build. It is a Reporter; call Close at the end.
//
// One goroutine does all the drawing, behind a bounded queue: a build waits
// only when the terminal itself is slow.
type Display struct {
	queue   *queue
	secrets secrets
	done    chan struct{}
	err     error

	// spans is for those who ask after Close.
	spans []Span

	mu       sync.Mutex
	statuses map[statusKey]time.Time
}

var _ Reporter = (*Display)(nil)

type statusKey struct {
	id   digest.Digest
	name string
}

// New starts a display. The errors are an unknown mode and TTY for something
// that is no terminal.
func New(o Options) (*Display, error) {
	if o.Out == nil {
		o.Out = os.Stderr
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = DefaultHeartbeat
	}
	v, err := newView(o)
	if err != nil {
		return nil, err
	}
	d := &Display{
		queue:    newQueue(o.Now),
		secrets:  newSecrets(o.Redact),
		done:     make(chan struct{}),
		statuses: map[statusKey]time.Time{},
	}
	go d.run(newBoard(v, d.secrets))
	go d.tick()
	return d, nil
}

func newView(o Options) (view, error) {
	switch o.Mode {
	case Auto, "":
		if v, err := newTTY(o.Out); err == nil {
			return v, nil
		}
		return newPlain(o.Out, o.Heartbeat, section{on: o.Sections, groups: o.Groups}), nil
	case Plain:
		return newPlain(o.Out, o.Heartbeat, section{on: o.Sections, groups: o.Groups}), nil
	case TTY:
		return newTTY(o.Out)
	case JSON:
		return newJSON(o.Out), nil
	case Quiet:
		return newQuiet(o.Out), nil
	}
	return nil, fmt.Errorf("unknown progress mode %q: use auto, plain, tty, json or quiet", o.Mode)
}

func (d *Display) run(b *board) {
	defer close(d.done)
	for {
		events, ok := d.queue.take()
		if !ok {
			break
		}
		for _, e := range events {
			b.handle(e)
		}
		b.view.flush()
	}
	d.spans = b.spans()
	if err := b.close(d.queue.now()); err != nil {
		d.err = fmt.Errorf("writing progress: %w", err)
	}
}

func (d *Display) tick() {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-d.done:
			return
		case <-t.C:
			d.queue.tick()
		}
	}
}

// Close shows what is left, then warnings, failed steps and tables, and waits
// until all of it is written. It may be called more than once, and while steps
// still report: what comes later is ignored. The error is the first one of
// writing to the output.
func (d *Display) Close() error {
	d.queue.close()
	<-d.done
	return d.err
}

// Plan implements Reporter.
func (d *Display) Plan(vertices ...Vertex) {
	for _, v := range vertices {
		v.Name = d.line(v.Name)
		d.queue.push(event{id: v.ID, body: planned{v}})
	}
}

// Start implements Reporter.
func (d *Display) Start(id digest.Digest) {
	d.queue.push(event{id: id, body: started{}})
}

// Done implements Reporter. A cancelled step is not a failed one.
func (d *Display) Done(id digest.Digest, cached bool, err error) {
	e := finished{cached: cached && err == nil}
	if err != nil {
		e.err = d.secrets.replace(err.Error())
		e.canceled = errors.Is(err, context.Canceled)
	}
	d.queue.push(event{id: id, body: e})
}

// Log implements Reporter. Writes never fail and may be of any size; writers of
// the same vertex and stream share one line.
func (d *Display) Log(id digest.Digest, stream int) io.Writer {
	return &logWriter{queue: d.queue, id: id, stream: stream}
}

type logWriter struct {
	queue  *queue
	id     digest.Digest
	stream int
}

func (w *logWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), maxLog)
		w.queue.push(event{id: w.id, body: logged{w.stream, append([]byte(nil), rest[:n]...)}})
		rest = rest[n:]
	}
	return len(p), nil
}

// Status implements Reporter. It may be called for every chunk of a transfer.
func (d *Display) Status(id digest.Digest, name string, current, total int64, done bool) {
	if !d.statusDue(statusKey{id, name}, done) {
		return
	}
	d.queue.push(event{id: id, body: moved{d.line(name), current, total, done}})
}

func (d *Display) statusDue(k statusKey, done bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if done {
		delete(d.statuses, k)
		return true
	}
	now := d.queue.now()
	if last, ok := d.statuses[k]; ok && now.Sub(last) < statusEvery {
		return false
	}
	d.statuses[k] = now
	return true
}

// Warn implements Reporter. Equal warnings, as every platform gives them, are
// shown once.
func (d *Display) Warn(w Warning) {
	w.File, w.Text, w.URL = d.line(w.File), d.line(w.Text), d.line(w.URL)
	w.Detail = d.secrets.replace(w.Detail)
	d.queue.push(event{body: warned{w}})
}

// Table shows the results. Text modes show it last, when Close is called;
// Quiet does not.
func (d *Display) Table(title string, rows []ImageRow) {
	e := tabled{title: d.line(title)}
	for _, r := range rows {
		r.Platform, r.Digest = d.line(r.Platform), d.line(r.Digest)
		e.rows = append(e.rows, r)
	}
	d.queue.push(event{body: e})
}

// line makes text from elsewhere fit for a place within a line.
func (d *Display) line(s string) string { return oneLine(d.secrets.replace(s)) }
