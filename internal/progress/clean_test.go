package progress

import (
	"strings"
	"testing"
	"unicode/utf8"

	"gotest.tools/v3/assert"
)

func TestClean(t *testing.T) {
	t.Parallel()
	long := "\x1b]0;" + strings.Repeat("x", maxString)
	for _, tc := range []struct{ name, in, readable, colored string }{
		{"text", "a\tb\r\nc\b é 世", "a\tb\r\nc\b é 世", ""},
		{"color", "\x1b[1;38:5:1mx\x1b[m", "x", "\x1b[1;38:5:1mx\x1b[m"},
		{"cursor", "a\x1b[2J\x1b[10;20Hb\x1b[?25l\x1b7\x1b[6nc", "abc", ""},
		{"private_m", "a\x1b[>4;1mb", "ab", ""},
		{"two_bytes_m", "a\x1bmb", "ab", ""},
		{"title", "a\x1b]0;title\ab\x1b]8;;http://x\x1b\\c\x1bPq\x1b\\d", "abcd", ""},
		{"charset", "a\x1b(Bb", "ab", ""},
		{"unended_string", "\x1b]0;x\ny\x1b]0;z", "^[]0;x\ny^[]0;z", ""},
		{"unended_long_string", long, "^[" + long[1:], ""},
		{"unended_csi", "\x1b[12", "^[[12", ""},
		{"bad_csi", "\x1b[1\n", "^[[1\n", ""},
		{"lone_escape", "\x1b", "^[", ""},
		{"escape_before_text", "\x1b\x01x", "^[^Ax", ""},
		{"controls", "\x00\x07\x0b\x7f", "^@^G^K^?", ""},
		{"latin1", "caf\xe9!", `caf\xe9!`, ""},
		{"half_rune", "\xe4\xb8", `\xe4\xb8`, ""},
		{"c1", "\u009b31m\x9b", `\u009b31m\x9b`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.colored == "" {
				tc.colored = tc.readable
			}
			for f, want := range map[form]string{readable: tc.readable, colored: tc.colored, verbatim: tc.in} {
				for _, size := range []int{len(tc.in), 1, 2, 3} {
					c := cleaner{form: f}
					var got []byte
					for in := []byte(tc.in); len(in) > 0; {
						n := min(size, len(in))
						got = append(got, c.write(in[:n])...)
						in = in[n:]
					}
					got = append(got, c.flush()...)
					assert.Equal(t, string(got), want)
				}
			}
		})
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[31mred\x1b]0;x\a\xff")
	f.Fuzz(func(t *testing.T, in string) {
		c := cleaner{form: readable}
		out := string(append(c.write([]byte(in)), c.flush()...))
		assert.Assert(t, utf8.ValidString(out))
		assert.Assert(t, strings.IndexFunc(out, func(r rune) bool {
			return r < 0x20 && !strings.ContainsRune("\n\r\t\b", r) || r >= 0x7f && r < 0xa0
		}) < 0, "%q", out)
	})
}

func TestOneLine(t *testing.T) {
	t.Parallel()
	assert.Equal(t, oneLine(" RUN <<EOF\necho \x1b[31ma  b\r\nEOF\n"), "RUN <<EOF echo a  b  EOF")
	assert.DeepEqual(t, textLines("a\n\tb\r\n"), []string{"a", "b"})
}
