package kubernetes

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// A log that broke off is read again from some seconds before: no line is shown
// twice, and none is lost, equal ones included.
func TestLogReader(t *testing.T) {
	t.Parallel()
	var got []string
	l := &logReader{seen: map[string]int{}, show: func(line []byte) { got = append(got, string(line)) }}
	first := "2026-11-24T00:00:00.1Z old\n" +
		"2026-11-24T00:00:09.1Z a\n2026-11-24T00:00:09.2Z same\n2026-11-24T00:00:09.2Z same\n" +
		"2026-11-24T00:00:09.15Z stderr is late\n2026-11-24T00:00:09.3Z {\"cut"
	assert.NilError(t, l.read(strings.NewReader(first)))
	l.again()
	second := "2026-11-24T00:00:09.1Z a\n2026-11-24T00:00:09.2Z same\n2026-11-24T00:00:09.2Z same\n2026-11-24T00:00:09.2Z same\n" +
		"2026-11-24T00:00:09.14Z was not seen\n2026-11-24T00:00:09.15Z stderr is late\n" +
		"2026-11-24T00:00:09.3Z {\"cut\"}\n2026-11-24T00:00:10Z last\n"
	assert.NilError(t, l.read(strings.NewReader(second)))
	l.again()
	assert.NilError(t, l.read(strings.NewReader(second)))
	assert.Check(t, is.DeepEqual(got, []string{"old", "a", "same", "same", "stderr is late", "same", "was not seen", `{"cut"}`, "last"}))
}

func TestLogReader_long_line(t *testing.T) {
	t.Parallel()
	var got []string
	l := &logReader{seen: map[string]int{}, show: func(line []byte) { got = append(got, string(line)) }}
	long := strings.Repeat("x", maxLogLine+maxLogLine/2)
	assert.NilError(t, l.read(strings.NewReader("2026-11-24T00:00:00Z "+long+"\n2026-11-24T00:00:00Z next\n")))
	assert.Assert(t, is.Len(got, 2))
	assert.Check(t, len(got[0]) <= maxLogLine && len(got[0]) > maxLogLine/2, "%d", len(got[0]))
	assert.Check(t, is.Equal(got[1], "next"))
}

// What no stream will repeat is forgotten: a log has no end, memory has.
func TestLogReader_forgets(t *testing.T) {
	t.Parallel()
	shown, most := 0, 0
	l := &logReader{seen: map[string]int{}}
	l.show = func([]byte) { shown, most = shown+1, max(most, len(l.seen)) }
	var log strings.Builder
	at := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	for n := range 6 * manyLines {
		fmt.Fprintf(&log, "%s line %d\n", at.Add(time.Duration(n)*time.Millisecond).Format(time.RFC3339Nano), n)
	}
	assert.NilError(t, l.read(strings.NewReader(log.String())))
	assert.Check(t, is.Equal(shown, 6*manyLines))
	assert.Check(t, most <= manyLines+1, "%d lines are remembered", most)
}
