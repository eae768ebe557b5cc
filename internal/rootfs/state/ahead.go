package state

import (
	"errors"
	"io"
)

const (
	aheadSize  = 256 << 10
	aheadCount = 4
)

// ahead reads ahead: decompressing and writing files take turns otherwise, on one
// processor.
type ahead struct {
	full  chan piece
	empty chan []byte
	quit  chan struct{}
	done  chan struct{}

	now  piece
	left []byte
}

// piece is what one read gave.
type piece struct {
	data []byte
	err  error
}

// readAhead begins to read r, which nobody else may use before stop returned.
func readAhead(r io.Reader) (a *ahead, stop func()) {
	a = &ahead{
		full: make(chan piece, aheadCount), empty: make(chan []byte, aheadCount),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	for range aheadCount {
		a.empty <- make([]byte, aheadSize)
	}
	go a.fill(r)
	return a, func() {
		close(a.quit)
		<-a.done
	}
}

func (a *ahead) fill(r io.Reader) {
	defer close(a.done)
	for {
		var p piece
		select {
		case p.data = <-a.empty:
		case <-a.quit:
			return
		}
		n, err := io.ReadFull(r, p.data)
		if errors.Is(err, io.ErrUnexpectedEOF) && n > 0 {
			// Whether r said so itself shows the next read.
			err = nil
		}
		p.data, p.err = p.data[:n], err
		a.full <- p // there is room for all pieces
		if err != nil {
			return
		}
	}
}

// Read implements io.Reader.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.left) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.data != nil {
			a.empty <- a.now.data[:aheadSize]
		}
		a.now = <-a.full
		a.left = a.now.data
	}
	n := copy(p, a.left)
	a.left = a.left[n:]
	return n, nil
}
