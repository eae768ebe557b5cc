package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/org/kaniko-multiarch/internal/progress"
)

// display shows one Job: a step of ours until its container runs, then those of
// the build in it.
type display struct {
	to    progress.Reporter
	id    digest.Digest
	relay *progress.Relay

	mu    sync.Mutex
	began bool
	last  string
}

// display begins to show a Job.
func (d *Driver) display(t Task, name string) *display {
	v := &display{to: d.Progress, id: digest.FromString("kubernetes job " + name)}
	v.to.Plan(progress.Vertex{ID: v.id, Name: fmt.Sprintf("[%s] start Job %s", t.Platform, name)})
	v.to.Start(v.id)
	v.relay = progress.NewRelay(d.Progress, t.Platform, name)
	return v
}

// note shows why a Job waits.
func (v *display) note(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.began || text == v.last {
		return
	}
	v.last = text
	_, _ = io.WriteString(v.to.Log(v.id, 2), text+"\n")
}

// started tells that the build runs.
func (v *display) started(node string) {
	v.note("runs on node " + node)
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.began {
		v.began = true
		v.to.Done(v.id, false, nil)
	}
}

// line shows a line of the pod's log.
func (v *display) line(line []byte) { v.relay.Line(line) }

// errNotStarted stands for an error that is told in the end, once.
var errNotStarted = errors.New("the build did not start")

// close ends what is shown of a Job.
func (v *display) close(err error) {
	v.relay.Close(err)
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.began {
		v.began = true
		if err != nil && !errors.Is(err, context.Canceled) {
			err = errNotStarted
		}
		v.to.Done(v.id, false, err)
	}
}
