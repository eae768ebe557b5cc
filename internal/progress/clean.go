package progress

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// form is what a view wants to get of output.
type form int

const (
	// verbatim is every byte as it came.
	verbatim form = iota
	// readable is valid UTF-8 without control sequences. Of the control
	// characters \n, \r, \t and \b are left.
	readable
	// colored is readable, with the sequences that set colors and the like.
	colored
)

// filter is what the output of one stream of a vertex goes through.
type filter struct {
	cleaner  *cleaner
	redactor *redactor
}

func newFilter(f form, s secrets) *filter {
	return &filter{cleaner: &cleaner{form: f}, redactor: newRedactor(s)}
}

func (f *filter) write(p []byte) []byte { return f.redactor.write(f.cleaner.write(p)) }

func (f *filter) flush() []byte {
	out := f.redactor.write(f.cleaner.flush())
	return append(out, f.redactor.flush()...)
}

// maxString is the longest operating system command (a title, a link) that is
// taken for one. Without a limit a lone ESC ] would hide all that follows.
const maxString = 4 << 10

// cleaner makes output safe to show: a step cannot move the cursor, set the
// title or answer back. Control sequences are dropped; control characters and
// bytes that are no UTF-8 become visible (^G, \xff), so no text is lost.
type cleaner struct {
	form form
	held []byte
}

func (c *cleaner) write(p []byte) []byte {
	if c.form == verbatim {
		return p
	}
	return c.scan(p, false)
}

func (c *cleaner) flush() []byte {
	if len(c.held) == 0 {
		return nil
	}
	return c.scan(nil, true)
}

func (c *cleaner) scan(p []byte, last bool) []byte {
	buf := append(c.held, p...)
	out := make([]byte, 0, len(buf))
	i := 0
	for i < len(buf) {
		b := buf[i]
		switch {
		case b == 0x1b:
			n := escape(buf[i:])
			if n < 0 && !last {
				return c.hold(buf[i:], out)
			}
			if n <= 0 {
				out, n = append(out, "^["...), 1
			} else if c.form == colored && isColor(buf[i:i+n]) {
				out = append(out, buf[i:i+n]...)
			}
			i += n
		case b == '\n', b == '\r', b == '\t', b == '\b', b >= 0x20 && b < 0x7f:
			out = append(out, b)
			i++
		case b < utf8.RuneSelf:
			out = append(out, '^', b^0x40)
			i++
		case !utf8.FullRune(buf[i:]) && !last:
			return c.hold(buf[i:], out)
		default:
			r, n := utf8.DecodeRune(buf[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				out = fmt.Appendf(out, `\x%02x`, b)
			case r < 0xa0:
				out = fmt.Appendf(out, `\u%04x`, r)
			default:
				out = append(out, buf[i:i+n]...)
			}
			i += n
		}
	}
	c.held = nil
	return out
}

func (c *cleaner) hold(rest, out []byte) []byte {
	c.held = append([]byte(nil), rest...)
	return out
}

// escape returns the length of the escape sequence that b, which begins with
// ESC, starts with: 0 if there is none, less than 0 if more bytes are needed to
// tell. See ECMA-48 and ECMA-35.
func escape(b []byte) int {
	if len(b) == 1 {
		return -1
	}
	switch c := b[1]; {
	case c == '[':
		return csi(b)
	case strings.IndexByte("]PX^_", c) >= 0:
		return controlString(b)
	case c >= 0x20 && c < 0x30:
		return charset(b)
	case c >= 0x30 && c < 0x7f:
		return 2
	}
	return 0
}

// controlString measures ESC ] ... up to BEL or ESC \ within a line.
func controlString(b []byte) int {
	b = b[:min(len(b), maxString)]
	for i := 2; i < len(b); i++ {
		switch b[i] {
		case '\a':
			return i + 1
		case '\n':
			return 0
		case 0x1b:
			if i+1 == len(b) {
				continue
			}
			if b[i+1] != '\\' {
				return 0
			}
			return i + 2
		}
	}
	if len(b) == maxString {
		return 0
	}
	return -1
}

// charset measures ESC, intermediate bytes and a final one, as in ESC ( B.
func charset(b []byte) int {
	for i := 1; i < min(len(b), maxCSI); i++ {
		switch c := b[i]; {
		case c >= 0x30 && c < 0x7f:
			return i + 1
		case c < 0x20 || c >= 0x7f:
			return 0
		}
	}
	if len(b) >= maxCSI {
		return 0
	}
	return -1
}

// isColor reports whether a control sequence is SGR: it changes how text looks
// and nothing else.
func isColor(seq []byte) bool {
	args, ok := bytes.CutPrefix(seq, []byte("\x1b["))
	args, m := bytes.CutSuffix(args, []byte("m"))
	return ok && m && len(bytes.Trim(args, "0123456789;:")) == 0
}

// oneLine makes a text safe and puts it on one line.
func oneLine(s string) string {
	c := cleaner{form: readable}
	b := append(c.write([]byte(s)), c.flush()...)
	for i, ch := range b {
		if ch < 0x20 {
			b[i] = ' '
		}
	}
	return string(bytes.TrimSpace(b))
}

// textLines makes a text safe and returns its lines, without blank ones at
// either end.
func textLines(s string) []string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i := range lines {
		lines[i] = oneLine(lines[i])
	}
	return lines
}
