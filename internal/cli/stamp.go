package cli

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// stamped begins every line with the time, in UTC.
type stamped struct {
	w   io.Writer
	now func() time.Time

	mu     sync.Mutex
	inLine bool
}

func (s *stamped) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []byte
	for line := range bytes.Lines(p) {
		if !s.inLine {
			out = append(s.now().UTC().AppendFormat(out, "2006-01-02T15:04:05.000Z07:00"), ' ')
		}
		out = append(out, line...)
		s.inLine = line[len(line)-1] != '\n'
	}
	if _, err := s.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}
