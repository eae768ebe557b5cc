package progress

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
)

// jsonHead begins every event. An event is one line of JSON; later versions may
// add events and fields but change none.
//
//	time     when, RFC 3339 in UTC with milliseconds
//	event    plan, start, log, status, done, warning or image
//	vertex   which vertex; in all events but warning and image
//
// Each vertex has one plan, start and done event, in this order. Log and status
// events come after start and, unless a step reports after its end, before
// done. A cancelled build may stop before done.
// Output has its control sequences; everything else is text on one line, but
// for error and detail.
type jsonHead struct {
	Time   string `json:"time"`
	Event  string `json:"event"`
	Vertex string `json:"vertex,omitempty"`
}

type jsonPlan struct {
	jsonHead
	Name string `json:"name"`
	// Inputs are the vertices that this one needs.
	Inputs []string `json:"inputs"`
}

type jsonStart struct {
	jsonHead
	Name string `json:"name"`
}

// jsonLog is a line of output with its newline, or a part of a line that is
// long or whose end did not come. All of a stream put together are its bytes,
// with secrets masked.
type jsonLog struct {
	jsonHead
	// Stream is 1 for standard output and 2 for standard error.
	Stream int `json:"stream"`
	// Text is the output if it is valid UTF-8, else Data is, in base64.
	Text string `json:"text,omitempty"`
	Data []byte `json:"data,omitempty"`
}

// jsonStatus is how far a transfer is, in bytes. There is one at the start, one
// with done true, and at most ten a second between.
type jsonStatus struct {
	jsonHead
	Name    string `json:"name"`
	Current int64  `json:"current"`
	// Total is 0 when it is unknown.
	Total int64 `json:"total"`
	Done  bool  `json:"done"`
}

type jsonDone struct {
	jsonHead
	Name    string  `json:"name"`
	Cached  bool    `json:"cached"`
	Seconds float64 `json:"seconds"`
	// Error is absent when all went well. Canceled says that the step was
	// stopped, by the user or since another one failed.
	Error    string `json:"error,omitempty"`
	Canceled bool   `json:"canceled,omitempty"`
}

type jsonWarning struct {
	jsonHead
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Text   string `json:"text"`
	URL    string `json:"url,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// jsonImage is one row of the closing table.
type jsonImage struct {
	jsonHead
	Title    string `json:"title,omitempty"`
	Platform string `json:"platform"`
	Digest   string `json:"digest"`
	// Size is the sum of the compressed sizes of the layers, in bytes.
	Size         int64   `json:"size"`
	LayersReused int     `json:"layersReused"`
	LayersBuilt  int     `json:"layersBuilt"`
	Seconds      float64 `json:"seconds"`
	Emulated     bool    `json:"emulated"`
}

// jsonView writes events.
type jsonView struct {
	sink  *errWriter
	out   *bufio.Writer
	enc   *json.Encoder
	lines []*rawLine
}

// rawLine is the beginning of a line of output.
type rawLine struct {
	v      *vertex
	stream int
	buf    []byte
	last   time.Time
}

func newJSON(w io.Writer) *jsonView {
	sink := &errWriter{w: w}
	out := bufio.NewWriterSize(sink, 64<<10)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return &jsonView{sink: sink, out: out, enc: enc}
}

func (j *jsonView) form() form { return verbatim }

func (j *jsonView) flush() { j.out.Flush() }

func (j *jsonView) close(at time.Time) error {
	for _, l := range j.lines {
		j.line(l, len(l.buf), at)
	}
	j.out.Flush()
	return j.sink.err
}

func (j *jsonView) show(e event, v *vertex) {
	head := newHead("", e.id, e.at)
	switch body := e.body.(type) {
	case planned:
		head.Event = "plan"
		inputs := make([]string, 0, len(v.Inputs))
		for _, in := range v.Inputs {
			inputs = append(inputs, string(in))
		}
		j.enc.Encode(jsonPlan{head, v.Name, inputs})
	case started:
		head.Event = "start"
		j.enc.Encode(jsonStart{head, v.Name})
	case logged:
		j.log(v, body, e.at)
	case moved:
		head.Event = "status"
		j.enc.Encode(jsonStatus{head, body.name, body.current, body.total, body.done})
	case finished:
		j.endLines(v, e.at)
		head.Event = "done"
		j.enc.Encode(jsonDone{head, v.Name, body.cached, v.took().Round(time.Millisecond).Seconds(), body.err, body.canceled})
	case warned:
		head.Event = "warning"
		w := body.warning
		j.enc.Encode(jsonWarning{head, w.File, w.Line, w.Text, w.URL, w.Detail})
	case tabled:
		head.Event = "image"
		for _, r := range body.rows {
			j.enc.Encode(jsonImage{head, body.title, r.Platform, r.Digest, r.Size, r.LayersReused, r.LayersBuilt, r.Time.Round(time.Millisecond).Seconds(), r.Emulated})
		}
	case ticked:
		j.stalled(e.at)
	}
}

func newHead(event string, id digest.Digest, at time.Time) jsonHead {
	return jsonHead{at.UTC().Format("2006-01-02T15:04:05.000Z07:00"), event, string(id)}
}

func (j *jsonView) log(v *vertex, body logged, at time.Time) {
	l := j.open(v, body.stream)
	l.buf, l.last = append(l.buf, body.data...), at
	for {
		n := bytes.IndexByte(l.buf, '\n') + 1
		if n == 0 {
			break
		}
		j.line(l, n, at)
	}
	if len(l.buf) >= maxLog {
		j.line(l, wholeRunes(l.buf), at)
	}
}

func (j *jsonView) open(v *vertex, stream int) *rawLine {
	for _, l := range j.lines {
		if l.v == v && l.stream == stream {
			return l
		}
	}
	l := &rawLine{v: v, stream: stream}
	j.lines = append(j.lines, l)
	return l
}

// line writes the first n bytes of l.
func (j *jsonView) line(l *rawLine, n int, at time.Time) {
	if n == 0 {
		return
	}
	e := jsonLog{jsonHead: newHead("log", l.v.ID, at), Stream: l.stream}
	if text := l.buf[:n]; utf8.Valid(text) {
		e.Text = string(text)
	} else {
		e.Data = text
	}
	j.enc.Encode(e)
	l.buf = l.buf[n:]
}

// stalled writes beginnings of lines whose end does not come.
func (j *jsonView) stalled(at time.Time) {
	for _, l := range j.lines {
		if at.Sub(l.last) >= stallAfter {
			j.line(l, wholeRunes(l.buf), at)
		}
	}
}

func (j *jsonView) endLines(v *vertex, at time.Time) {
	for _, l := range j.lines {
		if l.v == v {
			j.line(l, len(l.buf), at)
		}
	}
	j.lines = slices.DeleteFunc(j.lines, func(l *rawLine) bool { return l.v == v })
}

// wholeRunes is the length of b without the beginning of a character.
func wholeRunes(b []byte) int {
	for n := 1; n <= min(len(b), utf8.UTFMax); n++ {
		if tail := b[len(b)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return len(b)
			}
			return len(b) - n
		}
	}
	return len(b)
}
