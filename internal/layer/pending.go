package layer

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Pending is a compressed layer that Compression.Fill makes. What there is of it
// can be read meanwhile, by many readers at once.
type Pending struct {
	mu   sync.Mutex
	more sync.Cond
	file *os.File
	size int64
	// blob or err is set at the end.
	blob *Blob
	err  error
}

// NewPending returns a layer that is empty so far.
func NewPending() *Pending {
	p := &Pending{}
	p.more.L = &p.mu
	return p
}

func (p *Pending) ended() bool { return p.blob != nil || p.err != nil }

// open makes the file, which has no name.
func (p *Pending) open(dir string) error {
	f, err := os.CreateTemp(dir, "layer-*")
	if err != nil {
		return fmt.Errorf("making a file for a compressed layer: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.file = f
	return nil
}

// Write is Fill's.
func (p *Pending) Write(data []byte) (int, error) {
	n, err := p.file.Write(data)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.size += int64(n)
	p.more.Broadcast()
	return n, err
}

func (p *Pending) end(b *Blob, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blob, p.err = b, err
	p.more.Broadcast()
}

// ReadAt implements io.ReaderAt for the whole layer: it waits for what is not
// there yet. When the layer cannot be made, the error is that of Fill.
func (p *Pending) ReadAt(data []byte, off int64) (int, error) {
	p.mu.Lock()
	for p.size < off+int64(len(data)) && !p.ended() {
		p.more.Wait()
	}
	f, size, err := p.file, p.size, p.err
	p.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if off >= size {
		return 0, io.EOF
	}
	return f.ReadAt(data, off)
}

// Reach waits until the layer has more than size bytes, or is complete. It is
// false when it ended with less.
func (p *Pending) Reach(ctx context.Context, size int64) (bool, error) {
	defer p.wake(ctx)()
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.size <= size && !p.ended() && ctx.Err() == nil {
		p.more.Wait()
	}
	if p.size <= size && !p.ended() {
		return false, context.Cause(ctx)
	}
	return p.size > size && p.err == nil, p.err
}

// Wait waits for the end and says what the whole layer is.
func (p *Pending) Wait(ctx context.Context) (ocispecs.Descriptor, error) {
	defer p.wake(ctx)()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.ended() && ctx.Err() == nil {
		p.more.Wait()
	}
	switch {
	case p.err != nil:
		return ocispecs.Descriptor{}, p.err
	case p.blob == nil:
		return ocispecs.Descriptor{}, context.Cause(ctx)
	}
	return p.blob.Descriptor, nil
}

// Blob is the whole layer, nil before it is complete.
func (p *Pending) Blob() *Blob {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.blob
}

// wake lets waiters see the end of ctx.
func (p *Pending) wake(ctx context.Context) func() bool {
	return context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.more.Broadcast()
	})
}
