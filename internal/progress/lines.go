package progress

import (
	"bytes"
	"time"
	"unicode/utf8"
)

const (
	// maxLine is how much of a line is collected before it is shown in part.
	maxLine = 8 << 10
	// stallAfter is when the beginning of a line is shown without its end.
	stallAfter = time.Second
	// sampleEvery is how often a line that is rewritten, a progress bar, is shown.
	sampleEvery = 10 * time.Second
)

// piece is a line of output or a part of one.
type piece struct {
	stream int
	// at is when the text began.
	at   time.Time
	text string
	// more continues the piece before it of this stream; end ends the line.
	more, end bool
	// note is a line of ours, not of the step: it has no time in front.
	note bool
}

// pieceSize is about what a piece costs besides its text.
const pieceSize = 96

// lines cuts the output of one stream into pieces. Text that a carriage return
// rewrites is shown now and then and in its last state, as a terminal would
// show it in the end; everything else is shown in full.
type lines struct {
	stream int
	emit   func(piece)

	buf  []byte
	more bool
	// began is when what is in buf began, zero between two lines; last is when
	// the last byte came.
	began, last time.Time

	// returned: a carriage return came last; it counts only if no newline
	// follows. rewritten: the line has been rewritten; prev is its last state
	// that was not blank and shown the one that was shown at sampled.
	returned, rewritten bool
	prev, shown         []byte
	sampled             time.Time

	style style
}

func (l *lines) write(p []byte, at time.Time) {
	for _, c := range p {
		switch c {
		case '\n':
			l.begin(at)
			l.newline()
			continue
		case '\r':
			l.begin(at)
			l.returned = true
			continue
		}
		if l.returned {
			l.rewind(at)
		}
		if c == '\b' {
			l.backspace()
			continue
		}
		l.begin(at)
		if len(l.buf) >= maxLine && utf8.RuneStart(c) && l.outsideColor() {
			l.out(l.buf, false)
		}
		l.buf = append(l.buf, c)
	}
	l.last = at
}

func (l *lines) begin(at time.Time) {
	if l.began.IsZero() {
		l.began, l.sampled = at, at
	}
	if len(l.buf) == 0 {
		l.began = at
	}
}

// newline ends the line.
func (l *lines) newline() {
	text := l.buf
	if l.rewritten && blank(text) {
		text = l.prev
	}
	if !l.rewritten || !bytes.Equal(text, l.shown) {
		l.out(text, true)
	}
	l.reset()
}

func (l *lines) reset() {
	l.buf, l.prev, l.shown = l.buf[:0], nil, nil
	l.began, l.more, l.returned, l.rewritten = time.Time{}, false, false, false
}

// rewind goes back to the start of the line.
func (l *lines) rewind(at time.Time) {
	l.returned = false
	if l.more {
		l.out(l.buf, true)
		l.reset()
		l.begin(at)
	}
	if !blank(l.buf) {
		l.prev = bytes.Clone(l.buf)
	}
	l.buf, l.rewritten, l.began = l.buf[:0], true, at
}

func (l *lines) backspace() {
	if len(l.buf) == 0 || !l.outsideColor() || l.buf[len(l.buf)-1] == 'm' && endsInColor(l.buf) {
		return
	}
	_, n := utf8.DecodeLastRune(l.buf)
	l.buf = l.buf[:len(l.buf)-n]
}

// outsideColor reports whether buf does not end within a control sequence.
func (l *lines) outsideColor() bool {
	i := bytes.LastIndexByte(l.buf, '\x1b')
	return i < 0 || csi(l.buf[i:]) > 0
}

func endsInColor(b []byte) bool {
	i := bytes.LastIndexByte(b, '\x1b')
	return i >= 0 && csi(b[i:]) == len(b)-i
}

// stalled shows what is there of a line whose end does not come.
func (l *lines) stalled(at time.Time) {
	if l.began.IsZero() || at.Sub(l.last) < stallAfter && !l.rewritten {
		return
	}
	if l.returned {
		l.rewind(at)
	}
	if !l.rewritten {
		if len(l.buf) > 0 && l.outsideColor() {
			l.out(l.buf, false)
		}
		return
	}
	text := l.prev
	if at.Sub(l.last) >= stallAfter && !blank(l.buf) {
		text = l.buf
	}
	if at.Sub(l.sampled) < sampleEvery || len(text) == 0 || bytes.Equal(text, l.shown) {
		return
	}
	l.shown, l.sampled = bytes.Clone(text), at
	l.emit(piece{stream: l.stream, at: at, text: l.style.wrap(text), end: true})
}

// flush ends the last line if it has no end of its own.
func (l *lines) flush() {
	if !l.began.IsZero() {
		l.newline()
	}
}

func (l *lines) out(text []byte, end bool) {
	l.emit(piece{stream: l.stream, at: l.began, text: l.style.wrap(text), more: l.more, end: end})
	l.buf, l.more = l.buf[:0], !end
}

// blank reports whether a reader would see nothing.
func blank(b []byte) bool {
	for i := 0; i < len(b); {
		if n := csi(b[i:]); n > 0 {
			i += n
			continue
		}
		if b[i] != ' ' && b[i] != '\t' {
			return false
		}
		i++
	}
	return true
}

// style carries colors from line to line and keeps them out of what others
// write in between.
type style struct{ set string }

// maxStyle bounds what is carried, for output that never resets its colors.
const maxStyle = 256

func (s *style) wrap(text []byte) string {
	if len(text) == 0 {
		return ""
	}
	if s.set == "" && bytes.IndexByte(text, '\x1b') < 0 {
		return string(text)
	}
	out := s.set + string(text)
	for i := 0; i < len(text); i++ {
		if n := csi(text[i:]); n > 0 && isColor(text[i:i+n]) {
			s.add(string(text[i : i+n]))
			i += n - 1
		}
	}
	if s.set != "" {
		out += "\x1b[0m"
	}
	return out
}

func (s *style) add(seq string) {
	switch {
	case seq == "\x1b[m" || seq == "\x1b[0m":
		s.set = ""
	case len(s.set)+len(seq) > maxStyle:
		s.set = seq
	default:
		s.set += seq
	}
}
