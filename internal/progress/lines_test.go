package progress

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

func TestLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", maxLine/2)
	for _, tc := range []struct {
		name string
		// in is written piece by piece; "+" stands for a second that passes.
		in   []string
		want string
	}{
		{"lines", []string{"a\n\nb", "c\nd"}, "0:a| 0:| 0:bc| 0:d|"},
		{"crlf", []string{"a\r", "\nb\r\n"}, "0:a| 0:b|"},
		{"rewritten", []string{"10%\r", "50%\rdone\n"}, "0:done|"},
		{"erased_at_the_end", []string{"100%\r    \r\n"}, "0:100%|"},
		{"rewritten_by_color_only", []string{"100%\r\x1b[0m\n"}, "0:100%|"},
		{"no_end", []string{"10%\r20%"}, "0:20%|"},
		{"stalled", []string{"a", "+", "b\nc"}, "0:a 1:+b| 1:c|"},
		{"stalled_then_rewritten", []string{"a", "+", "\rb\n"}, "0:a 1:+| 1:b|"},
		{"stalled_before_crlf", []string{"a\r", "+", "\nb\n"}, "1:a| 1:b|"},
		{"sampled", append(repeat(22, "x%d\r", "+"), "\n"), "10:x9| 20:x19| 22:x21|"},
		{"sampled_leading_return", append(repeat(12, "\rx%d", "+"), "\n"), "10:x9| 11:x11|"},
		{"sampled_once_if_equal", append(repeat(25, "same\r", "+"), "\n"), "10:same|"},
		{"backspace", []string{"a\b\bwörld\b\b\bb\n"}, "0:wöb|"},
		{"backspace_stops_at_color", []string{"a\x1b[31m\bb\n"}, "0:a\x1b[31mb\x1b[0m|"},
		{"colors_go_on", []string{"\x1b[31ma\nb\x1b[1m\n\nc\x1b[0md\ne\n"},
			"0:\x1b[31ma\x1b[0m| 0:\x1b[31mb\x1b[1m\x1b[0m| 0:| 0:\x1b[31m\x1b[1mc\x1b[0md| 0:e|"},
		{"long", []string{long + "é\n"}, "0:" + long + " 0:+é|"},
		{"long_empty_end", []string{"a", "+", "\n"}, "0:a 1:+|"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			start := time.Unix(0, 0)
			now := start
			l := &lines{emit: func(p piece) {
				s := fmt.Sprintf("%.0f:", p.at.Sub(start).Seconds())
				if p.more {
					s += "+"
				}
				s += p.text
				if p.end {
					s += "|"
				}
				got = append(got, s)
			}}
			for _, in := range tc.in {
				if in == "+" {
					now = now.Add(time.Second)
					l.stalled(now)
					continue
				}
				l.write([]byte(in), now)
			}
			l.flush()
			assert.Equal(t, strings.Join(got, " "), tc.want)
		})
	}
}

func repeat(n int, format, then string) []string {
	var s []string
	for i := range n {
		if strings.Contains(format, "%d") {
			s = append(s, fmt.Sprintf(format, i), then)
		} else {
			s = append(s, format, then)
		}
	}
	return s
}
