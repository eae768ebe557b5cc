package layer

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// found is what there is to say about a name of a tree.
type found struct {
	is     unix.Stat_t
	xattrs map[string]string
	// content is that of a small file which was read.
	content []byte
	read    bool
	err     error
}

const (
	// smallSize is the most that a file has, in bytes, that is read before its turn.
	smallSize = 32 << 10
	// batchSize is how many names one goroutine looks at.
	batchSize = 32
)

// lookAhead calls add for all changes, one after the other. Calls of look, which
// takes the time of several calls to the system, are ahead of that, side by side.
// The memory that they take has a limit.
func lookAhead(ctx context.Context, changes []Change, look func(name string) *found, add func(Change, *found) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var looking sync.WaitGroup
	defer looking.Wait()
	defer cancel()
	queue := make(chan chan []*found, runtime.GOMAXPROCS(0))
	looking.Go(func() {
		for batch := range slices.Chunk(changes, batchSize) {
			out := make(chan []*found, 1)
			select {
			case queue <- out:
			case <-ctx.Done():
				return
			}
			looking.Go(func() { out <- lookAt(ctx, batch, look) })
		}
	})
	for batch := range slices.Chunk(changes, batchSize) {
		// What was begun comes to its end, cancelled or not.
		var out chan []*found
		select {
		case out = <-queue:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for i, f := range <-out {
			if err := add(batch[i], f); err != nil {
				return err
			}
		}
	}
	return nil
}

// lookAt returns what look says about the names that are there.
func lookAt(ctx context.Context, batch []Change, look func(name string) *found) []*found {
	out := make([]*found, len(batch))
	for i, c := range batch {
		switch err := context.Cause(ctx); {
		case err != nil:
			out[i] = &found{err: err}
		case c.Kind == Modify:
			out[i] = look(c.Path)
		}
	}
	return out
}

// look finds out about a name.
func (t *writer) look(name string) *found {
	f, full := &found{}, t.full(name)
	if f.err = unix.Lstat(full, &f.is); f.err != nil {
		return f
	}
	kind := f.is.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK {
		return f
	}
	if f.xattrs, f.err = Xattrs(full, t.opts.Xattr); f.err != nil {
		return f
	}
	// Of a file with several names only the first is read.
	if kind == unix.S_IFREG && f.is.Size <= smallSize && f.is.Nlink == 1 && !t.opts.NoContent {
		f.content, f.err = readSmall(full, f.is.Size)
		f.read = true
	}
	return f
}

// readSmall reads at most size bytes of a file.
func readSmall(name string, size int64) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	buf := make([]byte, size)
	n := 0
	for n < len(buf) {
		m, err := unix.Read(fd, buf[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: name, Err: err}
		}
		if m == 0 {
			break
		}
		n += m
	}
	return buf[:n], nil
}
