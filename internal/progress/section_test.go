package progress

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

var mark = regexp.MustCompile("\x1b\\[0Ksection_(start|end):([0-9]+):(\\w+)\r\x1b\\[0K")

// Sections are closed before the next opens, and change nothing else.
func TestSections(t *testing.T) {
	t.Parallel()
	for _, tc := range scenarios {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o := Options{Mode: Plain, Redact: tc.redact}
			without := perform(t, o, tc.play)
			assert.Check(t, !strings.Contains(without, "section_"))
			o.Sections = true
			with := perform(t, o, tc.play)
			open, from, seen := "", int64(0), map[string]bool{}
			for _, m := range mark.FindAllStringSubmatch(with, -1) {
				at, err := strconv.ParseInt(m[2], 10, 64)
				assert.NilError(t, err)
				assert.Check(t, at > 0)
				if m[1] == "start" {
					assert.Check(t, is.Equal(open, ""), with)
					assert.Check(t, !seen[m[3]], "%s twice", m[3])
					open, from, seen[m[3]] = m[3], at, true
					continue
				}
				assert.Check(t, is.Equal(open, m[3]), with)
				assert.Check(t, at >= from)
				open = ""
			}
			assert.Check(t, is.Equal(open, ""), with)
			assert.Check(t, is.Equal(len(seen) > 0, strings.Contains(without, "#1 ")))
			assert.Check(t, is.Equal(regexp.MustCompile("\x1b\\[0Ksection_end[^\n]*\n").ReplaceAllString(mark.ReplaceAllStringFunc(with, func(m string) string {
				if strings.Contains(m, "_end") {
					return m
				}
				return ""
			}), ""), without))
		})
	}
}

// A step cannot open or close a section.
func TestSections_of_a_step_are_text(t *testing.T) {
	t.Parallel()
	out := perform(t, Options{Mode: Plain, Sections: true}, func(s *stage) {
		s.begin("a")
		s.out("a", "\x1b[0Ksection_end:1:kma_1\r\x1b[0Kgone\n")
		s.Done(vid("a"), false, nil)
	})
	assert.Check(t, is.Len(mark.FindAllString(out, -1), 2), "%q", out)
	assert.Check(t, is.Contains(out, "gone"))
}
