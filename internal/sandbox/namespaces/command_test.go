package namespaces

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox/process"
)

// Arguments and environment of a process can be read by every other process of
// the user.
func TestCommand_tells_nothing(t *testing.T) {
	t.Parallel()
	cmd := command(&spec{Spec: process.Spec{Args: []string{"login", "hunter2"}, Env: []string{"TOKEN=hunter2"}}}, nil, nil)
	assert.DeepEqual(t, cmd.Args, []string{childName})
	// nil would be our own environment.
	assert.Assert(t, cmd.Env != nil)
	assert.Equal(t, strings.Join(cmd.Env, ""), "")
}

func TestForward(t *testing.T) {
	t.Parallel()
	const end = syscall.Signal(0) // stands for the end of the context
	for name, tc := range map[string]struct{ events, want []os.Signal }{
		"signals":             {[]os.Signal{os.Interrupt, os.Interrupt}, []os.Signal{os.Interrupt, os.Interrupt}},
		"end":                 {[]os.Signal{end}, []os.Signal{syscall.SIGTERM}},
		"signal_ends_context": {[]os.Signal{os.Interrupt, end, os.Interrupt}, []os.Signal{os.Interrupt, os.Interrupt}},
		"end_is_seen_first":   {[]os.Signal{end, os.Interrupt, os.Interrupt}, []os.Signal{syscall.SIGTERM, os.Interrupt}},
		"window_is_no_end":    {[]os.Signal{syscall.SIGWINCH, end, syscall.SIGWINCH}, []os.Signal{syscall.SIGWINCH, syscall.SIGTERM, syscall.SIGWINCH}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				signals, stop := make(chan os.Signal), make(chan struct{})
				var got []os.Signal
				go forward(ctx, signals, stop, func(s os.Signal) { got = append(got, s) })
				for _, e := range tc.events {
					if e == end {
						cancel()
					} else {
						signals <- e
					}
					synctest.Wait()
				}
				close(stop)
				synctest.Wait()
				assert.DeepEqual(t, got, tc.want)
			})
		})
	}
}
