package inplace

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/process"
)

// keeper is the builder's side of a guard.
type keeper struct {
	cmd     *exec.Cmd
	orderW  *os.File
	orders  *gob.Encoder
	resultR *os.File
	results *gob.Decoder
	output  *output
}

// startGuard starts it before anything is moved. /proc/self/exe is our program
// even when its file has been deleted.
func startGuard(journal, lock *os.File, stdout, stderr io.Writer) (_ *keeper, err error) {
	var opened []*os.File
	defer func() {
		if err != nil {
			err = fmt.Errorf("starting a guard: %w", err)
			closeAll(opened)
		}
	}()
	pipe := func() (r, w *os.File) {
		if err == nil {
			r, w, err = os.Pipe()
			opened = append(opened, r, w)
		}
		return r, w
	}
	orderR, orderW := pipe()
	resultR, resultW := pipe()
	outR, outW := pipe()
	errR, errW := pipe()
	if err != nil {
		return nil, err
	}
	// Writers need not be safe for use at once, so one of both gets one stream.
	if same(stdout, stderr) {
		closeAll([]*os.File{errR, errW})
		errR, errW = nil, outW
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe",
		Args: []string{guardName},
		Env:  []string{},
		Dir:  "/",
		// Always a pipe: the process must not get hold of our terminal.
		Stdout:      outW,
		Stderr:      errW,
		ExtraFiles:  []*os.File{orderR, resultW, journal, lock},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	closeAll([]*os.File{orderR, resultW, outW, errW})
	return &keeper{
		cmd: cmd, orderW: orderW, orders: gob.NewEncoder(orderW), resultR: resultR, results: gob.NewDecoder(resultR),
		output: copyOutput([]*os.File{outR, errR}, []io.Writer{stdout, stderr}),
	}, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		// Nothing is written through these, and nil ones and closed ones do no
		// harm.
		_ = f.Close()
	}
}

// run has the guard run a process to its end, and returns when all that it
// printed is written.
func (g *keeper) run(ctx context.Context, st *start, o Options, stderr io.Writer) error {
	if err := g.orders.Encode(order{Start: st}); err != nil {
		return fmt.Errorf("starting a process: %w", err)
	}
	stopped := context.AfterFunc(ctx, func() {
		// It fails when the guard has gone, and then so has the process.
		_ = g.orders.Encode(order{Stop: true, Grace: o.Grace})
	})
	defer stopped()
	var end result
	if err := g.results.Decode(&end); err != nil {
		return fmt.Errorf("running a process: its guard was killed: %w", err)
	}
	writeErr := g.output.wait()
	status := syscall.WaitStatus(end.Status)
	switch {
	case ctx.Err() != nil && status != 0:
		return context.Cause(ctx)
	case end.Failed != "":
		return errors.New(end.Failed)
	}
	if err := end.Report.Err(o.Explain, stderr); err != nil {
		return err
	}
	if status != 0 {
		return &sandbox.ExitError{Code: process.ExitCode(status)}
	}
	if writeErr != nil {
		return fmt.Errorf("running a process: writing its output: %w", writeErr)
	}
	return nil
}

// dismiss lets the guard go.
func (g *keeper) dismiss() error {
	// One that was killed does not listen; we know from its result.
	_ = g.orders.Encode(order{Done: true})
	_ = g.orderW.Close()
	_ = g.cmd.Wait()
	g.output.stop()
	return g.resultR.Close()
}

// output is what a process prints, on its way to our writers. It must be
// written before any file is changed that the process has seen: a pipe that was
// filled with sendfile(2) refers to the file's pages.
type output struct {
	pipes   []*os.File
	errs    []error
	running sync.WaitGroup
}

func copyOutput(pipes []*os.File, to []io.Writer) *output {
	o := &output{pipes: pipes, errs: make([]error, len(pipes))}
	for i, r := range pipes {
		if r == nil {
			continue
		}
		w := to[i]
		if w == nil {
			w = io.Discard
		}
		o.running.Go(func() {
			_, o.errs[i] = io.Copy(w, r)
			// A process that prints goes on when nobody wants it.
			_, _ = io.Copy(io.Discard, r)
		})
	}
	return o
}

// wait returns when all processes have closed their end.
func (o *output) wait() error {
	o.running.Wait()
	return errors.Join(o.errs...)
}

// stop is for a process of which nothing is known: it may live on.
func (o *output) stop() {
	closeAll(o.pipes)
	o.running.Wait()
}

// same tells whether two writers are one. What cannot be compared is not.
func same(a, b io.Writer) (is bool) {
	defer func() { _ = recover() }()
	return a == b
}
