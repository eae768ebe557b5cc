package inplace

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// later reports whether a is after b.
func later(a, b unix.Timespec) bool {
	return a.Sec > b.Sec || a.Sec == b.Sec && a.Nsec > b.Nsec
}

// waitPast waits until the clock that file times come from has passed t: what
// is written then has another ctime than anything of before. That clock lags
// behind time.Now by up to a tick of the kernel. It does not wait long, in case
// the clock was set back.
func waitPast(ctx context.Context, t unix.Timespec) error {
	for range 1000 {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
			return err
		}
		if later(now, t) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(500 * time.Microsecond):
		}
	}
	return nil
}
