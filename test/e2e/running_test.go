package e2e

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// running is the program while it runs.
type running struct {
	*exec.Cmd
	output output
	done   chan struct{}
}

// output may be read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start runs the program, and does not wait for its end.
func start(t *testing.T, env []string, args ...string) *running {
	t.Helper()
	cmd := command(t, t.Context(), env, args...)
	r := &running{Cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &r.output, &r.output
	assert.NilError(t, cmd.Start())
	go func() {
		_ = cmd.Wait()
		close(r.done)
	}()
	return r
}

// end returns what the program left.
func (r *running) end(t *testing.T) result {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(4 * time.Minute):
		t.Fatal("the program does not end")
	}
	return result{code: r.ProcessState.ExitCode(), stderr: r.output.String()}
}

// says waits until the program shows a line, while it runs.
func (r *running) says(t *testing.T, line *regexp.Regexp) {
	t.Helper()
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		select {
		case <-r.done:
			return poll.Error(fmt.Errorf("the program has ended: %s", &r.output))
		default:
		}
		if !line.MatchString(r.output.String()) {
			return poll.Continue("no line is %s:\n%s", line, &r.output)
		}
		return poll.Success()
	}, poll.WithTimeout(2*time.Minute), poll.WithDelay(100*time.Millisecond))
}

// begun is the output of a step's echo: that has its number and time before it, the
// step's name has not.
var begun = regexp.MustCompile(`(?m)^#\d+ [0-9.]+ begun$`)
