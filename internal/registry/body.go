package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// errIdle is a connection on which nothing moved for idleTimeout.
var errIdle = errors.New("no data for too long")

// idleBody says errIdle where net/http would say that the context ended.
type idleBody struct {
	io.ReadCloser
	ctx context.Context
}

func (b *idleBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

// failing is a body that was lost.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
func (f failing) Close() error             { return nil }

// watchdog calls bite when nothing stopped it for a time.
type watchdog struct {
	timer *time.Timer
	after time.Duration
}

func newWatchdog(after time.Duration, bite func()) *watchdog {
	t := time.AfterFunc(after, bite)
	t.Stop()
	return &watchdog{timer: t, after: after}
}

func (w *watchdog) start()                   { w.timer.Reset(w.after) }
func (w *watchdog) startFor(d time.Duration) { w.timer.Reset(d) }
func (w *watchdog) stop()                    { w.timer.Stop() }

// prompt gives up on an answer that does not begin within the idle time.
type prompt struct {
	c    *Client
	next http.RoundTripper
}

func (p *prompt) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, stop := context.WithCancelCause(req.Context())
	watch := newWatchdog(p.c.idle, func() { stop(errIdle) })
	watch.start()
	resp, err := p.next.RoundTrip(req.WithContext(ctx))
	watch.stop()
	if err == nil {
		resp.Body = &closeThen{resp.Body, func() { stop(nil) }}
		return resp, nil
	}
	if req.Context().Err() == nil && ctx.Err() != nil {
		err = errIdle
	}
	stop(nil)
	return nil, err
}

// closeThen calls then after Close.
type closeThen struct {
	io.ReadCloser
	then func()
}

func (c *closeThen) Close() error {
	defer c.then()
	return c.ReadCloser.Close()
}

// uploadBody gives the content to net/http, which may go on reading after it
// answered; end stops that.
type uploadBody struct {
	content io.ReaderAt
	size    int64
	// growing says that the content's end is where it ends.
	growing  bool
	progress func(int64)
	watch    *watchdog

	mu    sync.Mutex
	ended bool
	err   error
}

func (b *uploadBody) from(offset int64) io.ReadCloser {
	b.watch.start()
	return &uploadReader{b, offset}
}

// end forbids further reads and returns the error that one of them had.
func (b *uploadBody) end() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	b.watch.stop()
	return b.err
}

type uploadReader struct {
	b      *uploadBody
	offset int64
}

// Read runs the watchdog only between reads: how long the content takes is not
// the connection's fault. After the last one the registry may think.
func (r *uploadReader) Read(p []byte) (int, error) {
	b := r.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return 0, io.ErrClosedPipe
	}
	if r.offset >= b.size {
		return 0, io.EOF
	}
	b.watch.stop()
	n, err := b.content.ReadAt(p[:min(int64(len(p)), b.size-r.offset)], r.offset)
	r.offset += int64(n)
	switch {
	case n > 0:
		// A reader may have reached its end exactly; if not, the next read
		// shows it.
		b.progress(r.offset)
		if r.offset < b.size {
			b.watch.start()
		} else {
			b.watch.startFor(headerTimeout)
		}
		return n, nil
	case err == io.EOF && b.growing:
		b.watch.startFor(headerTimeout)
		return 0, io.EOF
	case err == io.EOF || err == nil:
		b.err = fmt.Errorf("it ends after %d of %d bytes", r.offset, b.size)
	default:
		b.err = err
	}
	return 0, b.err
}

func (r *uploadReader) Close() error { return nil }
