package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// minProgress is what a transfer has to move between two failures to get all
// its tries again, in bytes.
const minProgress = 64 << 10

// HasBlob reports whether the repository has a blob.
func (c *Client) HasBlob(ctx context.Context, repo Ref, d digest.Digest) (bool, error) {
	ok, err := c.hasBlob(ctx, repo, d, pullScope(repo))
	return ok, about(err, "looking up blob", repo.WithDigest(d))
}

func (c *Client) hasBlob(ctx context.Context, repo Ref, d digest.Digest, s scopes) (bool, error) {
	if err := d.Validate(); err != nil {
		return false, fmt.Errorf("digest %q: %w", d, err)
	}
	a, err := c.do(ctx, call{method: http.MethodHead, repo: repo, path: "blobs/" + d.String(), scopes: s}, http.StatusNotFound)
	if err != nil {
		return false, err
	}
	return a.status != http.StatusNotFound, nil
}

// Blob opens a blob. Its Read gives an error instead of io.EOF when size or
// digest are not those of desc; a connection that breaks is resumed where it
// broke. A limited number of blobs can be open for one host, so read each to
// its end or close it before opening the next few.
//
// Where repo has the tag or digest of an image that Image found, the blob comes
// from the same mirror, or when that fails from the next place that has it.
func (c *Client) Blob(ctx context.Context, repo Ref, desc ocispecs.Descriptor) (io.ReadCloser, error) {
	places := c.origins.of(repo)
	if len(places) == 0 {
		b, err := c.blob(ctx, repo, desc)
		if err != nil {
			return nil, about(err, "pulling blob", repo.WithDigest(desc.Digest))
		}
		return b, nil
	}
	b, err := fallThrough(ctx, c, repo, places, func(from *Client, place Ref) (*blobReader, error) {
		b, err := from.blob(ctx, place, desc)
		return b, about(err, "pulling blob", place.WithDigest(desc.Digest))
	})
	if err != nil {
		return nil, err
	}
	// What came this far is worth all tries.
	b.c = c.base
	return b, nil
}

func (c *Client) blob(ctx context.Context, repo Ref, desc ocispecs.Descriptor) (*blobReader, error) {
	h, err := c.host(ctx, repo)
	if err != nil {
		return nil, err
	}
	if err := h.downloads.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	b, err := c.openBlob(ctx, repo, desc, 0)
	if err != nil {
		h.downloads.Release(1)
		return nil, err
	}
	b.release = func() { h.downloads.Release(1) }
	return b, nil
}

// openBlob opens a blob at an offset. Only a blob that is read from its start
// can be verified.
func (c *Client) openBlob(ctx context.Context, repo Ref, desc ocispecs.Descriptor, offset int64) (*blobReader, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", desc.Digest, err)
	}
	b := &blobReader{c: c, ctx: ctx, repo: repo, desc: desc, offset: offset, release: func() {}}
	if offset == 0 {
		b.verifier = desc.Digest.Verifier()
	}
	if err := b.connect(); err != nil {
		return nil, err
	}
	return b, nil
}

// blobReader reads one blob over as many connections as it takes.
type blobReader struct {
	c        *Client
	ctx      context.Context
	repo     Ref
	desc     ocispecs.Descriptor
	verifier digest.Verifier
	// offset is how much was read of the blob.
	offset int64

	body    io.ReadCloser
	watch   *watchdog
	stop    context.CancelCauseFunc
	release func()

	// fails counts the connections that broke since the one at good.
	fails int
	good  int64
	since time.Time
	err   error
}

func (b *blobReader) Read(p []byte) (int, error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	n, err := b.read(p)
	if err != nil {
		b.end(err)
	}
	return n, b.err
}

// end keeps the error that all further reads give and frees the connection.
func (b *blobReader) end(err error) {
	if err != io.EOF {
		err = about(err, "pulling blob", b.repo.WithDigest(b.desc.Digest))
	}
	b.err = err
	b.disconnect()
	b.release()
	b.release = func() {}
}

// Close frees the connection. Closing before the end is no error.
func (b *blobReader) Close() error {
	if b.err == nil {
		b.end(errors.New("it is closed"))
	}
	return nil
}

func (b *blobReader) read(p []byte) (int, error) {
	for {
		n, err := b.readOnce(p)
		if n > 0 || err == nil || err == io.EOF || errors.Is(err, ErrCorrupt) {
			return n, err
		}
		if err := b.resume(err); err != nil {
			return 0, err
		}
	}
}

// readOnce reads from the connection there is. One byte more than is missing
// is asked for, so that a blob that is too long shows.
func (b *blobReader) readOnce(p []byte) (int, error) {
	left := b.desc.Size - b.offset
	if int64(len(p)) > left+1 {
		p = p[:left+1]
	}
	b.watch.start()
	n, err := b.body.Read(p)
	b.watch.stop()
	if int64(n) > left {
		return 0, corrupt("%s sent more than its %d bytes", b.repo.Registry, b.desc.Size)
	}
	b.offset += int64(n)
	if b.verifier != nil {
		// A hash never returns an error.
		_, _ = b.verifier.Write(p[:n])
	}
	if n > 0 || err == nil {
		return n, nil
	}
	if b.offset < b.desc.Size {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	if b.verifier != nil && !b.verifier.Verified() {
		return 0, corrupt("what %s sent has another digest", b.repo.Registry)
	}
	return 0, io.EOF
}

// resume opens a new connection after cause broke the last one.
func (b *blobReader) resume(cause error) error {
	b.disconnect()
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	if b.fails == 0 || b.offset-b.good >= minProgress {
		b.fails, b.good, b.since = 0, b.offset, time.Now()
	}
	b.fails++
	if b.fails > b.c.retry.Count {
		return unavailable(b.repo.Registry, b.fails, time.Since(b.since), cause)
	}
	b.c.log.Warn("download broke, resuming", "blob", b.repo.WithDigest(b.desc.Digest), "at", b.offset, "of", b.desc.Size, "error", clean(cause))
	if err := b.c.wait(b.ctx, b.fails-1, nil); err != nil {
		return err
	}
	return b.connect()
}

// connect opens the blob at the offset: by Range, or from the start when the
// registry does not do ranges, throwing away what is known.
func (b *blobReader) connect() error {
	ctx, stop := context.WithCancelCause(b.ctx)
	b.stop = stop
	b.watch = newWatchdog(b.c.idle, func() { stop(errIdle) })
	q := call{method: http.MethodGet, repo: b.repo, path: "blobs/" + b.desc.Digest.String(), scopes: pullScope(b.repo)}
	if b.offset > 0 && b.offset < b.desc.Size {
		q.header = header("Range", fmt.Sprintf("bytes=%d-%d", b.offset, b.desc.Size-1))
	}
	resp, err := b.c.open(ctx, q, http.StatusRequestedRangeNotSatisfiable)
	if err == nil && (resp.StatusCode == http.StatusRequestedRangeNotSatisfiable || !rangeStarts(resp, b.offset)) {
		resp.Body.Close()
		q.header = nil
		resp, err = b.c.open(ctx, q)
	}
	if err != nil {
		stop(nil)
		return err
	}
	b.body = &idleBody{resp.Body, ctx}
	if resp.StatusCode == http.StatusPartialContent {
		return nil
	}
	if resp.ContentLength >= 0 && resp.ContentLength != b.desc.Size {
		b.disconnect()
		return corrupt("%s has %d bytes of it instead of %d", b.repo.Registry, resp.ContentLength, b.desc.Size)
	}
	return b.skip()
}

// skip reads what is known already. A connection that breaks here fails in the
// next Read, too, which resumes.
func (b *blobReader) skip() error {
	buf := make([]byte, 32<<10)
	for left := b.offset; left > 0; {
		b.watch.start()
		n, err := b.body.Read(buf[:min(left, int64(len(buf)))])
		b.watch.stop()
		left -= int64(n)
		if err != nil && left > 0 {
			b.disconnect()
			b.body = failing{err}
			return nil
		}
	}
	return nil
}

func (b *blobReader) disconnect() {
	if b.body != nil {
		b.body.Close()
	}
	b.body = failing{io.ErrClosedPipe}
	b.watch.stop()
	b.stop(nil)
}

// rangeStarts reports whether a partial answer starts where it was asked to.
func rangeStarts(resp *http.Response, offset int64) bool {
	if resp.StatusCode != http.StatusPartialContent {
		return true
	}
	rest, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes ")
	first, _, cut := strings.Cut(rest, "-")
	n, err := strconv.ParseInt(first, 10, 64)
	return ok && cut && err == nil && n == offset
}
