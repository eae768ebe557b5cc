package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/org/kaniko-multiarch/internal/newfile"
	"github.com/org/kaniko-multiarch/internal/progress"
)

// profile is where the time and the memory of a build went: of this process, and
// by step.
type profile struct {
	dir string
	cpu *os.File
}

// startProfile makes dir and begins. The file is open from now on: while a step
// is in place, its name may lead elsewhere.
func startProfile(dir string) (_ *profile, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("--profile: %w", err)
		}
	}()
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &profile{dir: dir, cpu: f}, nil
}

// timelineStep is a step in timeline.json.
type timelineStep struct {
	Name    string    `json:"name"`
	Start   time.Time `json:"start"`
	Seconds float64   `json:"seconds"`
	Cached  bool      `json:"cached,omitempty"`
	Failed  bool      `json:"failed,omitempty"`
}

// end writes everything. Steps are shown without secrets.
func (p *profile) end(steps []progress.Span, secrets []string) error {
	pprof.StopCPUProfile()
	errs := []error{p.cpu.Close()}
	list := []timelineStep{}
	for _, s := range steps {
		list = append(list, timelineStep{
			Name: progress.Redact(s.Name, secrets), Start: s.Start.UTC(), Seconds: s.End.Sub(s.Start).Seconds(),
			Cached: s.Cached, Failed: s.Failed,
		})
	}
	data, err := json.MarshalIndent(list, "", "  ")
	errs = append(errs, err, newfile.Put(filepath.Join(p.dir, "timeline.json"), append(data, '\n')))
	// What is no longer in use is not of the heap.
	runtime.GC()
	errs = append(errs, newfile.Write(filepath.Join(p.dir, "heap.pprof"), func(w io.Writer) error { return pprof.Lookup("heap").WriteTo(w, 0) }))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("--profile: %w", err)
	}
	return nil
}
