package inplace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// lockDelay is the time between two looks at a lock that another process holds.
const lockDelay = 20 * time.Millisecond

// lockRoot makes this the only process that swaps in a root: the lock is on the
// root directory, which no step can remove. It is held until the file and all
// its copies in other processes are closed.
func lockRoot(ctx context.Context, root string) (*os.File, error) {
	f, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("locking the root directory: %w", sandbox.Cause(err))
	}
	for {
		// A blocking flock cannot be cancelled.
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("locking the root directory: %w", err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(lockDelay):
		}
	}
}
