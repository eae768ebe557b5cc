// Package progress is what a person sees of a build: a live view on a terminal,
// plain lines with a heartbeat in CI, events as JSON for programs.
//
// It must not know how a build runs: it is told.
package progress

import (
	"io"
	"time"

	"github.com/opencontainers/go-digest"
)

// Reporter is told what happens. It is safe for concurrent use and never
// blocks for long.
type Reporter interface {
	// Plan announces vertices that will run or be found done.
	Plan(vertices ...Vertex)
	// Start, Done and Log report on one planned vertex. Done with a nil error
	// and cached set means that no work was needed.
	Start(id digest.Digest)
	Done(id digest.Digest, cached bool, err error)
	// Log returns a writer for the output of a vertex. stream is 1 or 2.
	Log(id digest.Digest, stream int) io.Writer
	// Status reports a transfer or a similar task within a vertex: name
	// identifies it, current and total are bytes (total 0: unknown).
	Status(id digest.Digest, name string, current, total int64, done bool)
	// Warn shows a warning of the Dockerfile's checks or of the build.
	Warn(w Warning)
}

// Vertex is a planned piece of work.
type Vertex struct {
	ID     digest.Digest
	Inputs []digest.Digest
	Name   string
}

// Warning is something that does not stop the build.
type Warning struct {
	// File and Line are where; empty when it has no place.
	File   string
	Line   int
	Text   string
	URL    string
	Detail string
}

// ImageRow is a line of the final table.
type ImageRow struct {
	Platform, Digest string
	// Size is the sum of the compressed sizes of all layers, in bytes.
	Size                      int64
	LayersReused, LayersBuilt int
	Time                      time.Duration
	Emulated                  bool
}
