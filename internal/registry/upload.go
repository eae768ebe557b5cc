package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// PushBlob stores a blob unless the repository has it. A broken upload goes on
// where the registry says, or starts anew. progress, which may be nil, gets the
// number of bytes that were sent; it goes back when an upload starts anew and
// ends at desc.Size, also when nothing had to be sent. It is not called after
// PushBlob returned, nor is content read.
func (c *Client) PushBlob(ctx context.Context, repo Ref, desc ocispecs.Descriptor, content io.ReaderAt, progress func(sent int64)) error {
	return about(c.pushBlob(ctx, repo, desc, content, progress), "pushing blob", repo.WithDigest(desc.Digest))
}

func (c *Client) pushBlob(ctx context.Context, repo Ref, desc ocispecs.Descriptor, content io.ReaderAt, progress func(sent int64)) error {
	if progress == nil {
		progress = func(int64) {}
	}
	// Some registries deny to look into a repository that is not there yet.
	have, err := c.hasBlob(ctx, repo, desc.Digest, pushScope(repo))
	if err != nil && !errors.Is(err, ErrDenied) {
		return err
	}
	if have {
		progress(desc.Size)
		return nil
	}
	u, done, err := c.newUpload(ctx, repo, desc)
	if err != nil {
		return err
	}
	defer done()
	u.content, u.progress, u.whole = content, progress, desc.Size <= smallBlob
	return u.run(ctx)
}

// newUpload waits until the registry may get one more upload; done ends it.
func (c *Client) newUpload(ctx context.Context, repo Ref, desc ocispecs.Descriptor) (u *upload, done func(), err error) {
	h, err := c.host(ctx, repo)
	if err != nil {
		return nil, nil, err
	}
	if err := h.uploads.Acquire(ctx, 1); err != nil {
		return nil, nil, context.Cause(ctx)
	}
	return &upload{c: c, host: h, repo: repo, scopes: pushScope(repo), desc: desc}, func() { h.uploads.Release(1) }, nil
}

// smallBlob is the size up to which a blob is not worth a request of its own, in
// bytes: configs, and layers of a few files.
const smallBlob = 64 << 10

// upload is one blob on its way (OCI distribution, "Pushing Blobs"). It sends
// everything in one PATCH, as docker does, since only that can be resumed. What is
// small goes with the PUT that ends the upload.
type upload struct {
	c        *Client
	host     *host
	repo     Ref
	scopes   scopes
	desc     ocispecs.Descriptor
	content  io.ReaderAt
	progress func(int64)
	// growing is content that is not complete; nil when desc says what it is.
	growing Growing

	// location is the session's URL, nil without session; offset is what the
	// registry has of it.
	location *url.URL
	offset   int64
	// whole sends the blob in the closing PUT: a small one, or to a registry without
	// PATCH.
	whole bool
	// mangled is set once the registry got other bytes than were sent.
	mangled bool
}

// broken is a try that failed in a way that another one may not.
type broken struct {
	cause  error
	header http.Header
	// lost means that the registry forgot the session.
	lost bool
}

func (b *broken) Error() string { return clean(b.cause) }
func (b *broken) Unwrap() error { return b.cause }

func (u *upload) run(ctx context.Context) error {
	start, fails, best := time.Now(), 0, int64(0)
	for {
		err := u.try(ctx)
		b, again := errors.AsType[*broken](err)
		switch {
		case err == nil:
			u.progress(u.desc.Size)
			return nil
		case ctx.Err() != nil:
			err = context.Cause(ctx)
			again = false
		}
		if !again {
			if !errors.Is(err, ErrUnavailable) {
				u.cancel(ctx)
			}
			return err
		}
		if err := u.complete(ctx); err != nil {
			u.cancel(ctx)
			return err
		}
		if !b.lost {
			if err := u.locate(ctx); err != nil {
				return err
			}
		} else {
			u.location, u.offset = nil, 0
		}
		if u.offset-best >= minProgress {
			start, fails, best = time.Now(), 0, u.offset
		}
		fails++
		if fails > u.c.retry.Count {
			u.cancel(ctx)
			return unavailable(u.repo.Registry, fails, time.Since(start), b.cause)
		}
		u.c.log.Warn("upload broke, resuming", "blob", u.repo.WithDigest(u.desc.Digest), "at", u.offset, "of", u.desc.Size, "error", b)
		if err := u.c.wait(ctx, fails-1, b.header); err != nil {
			u.cancel(ctx)
			return err
		}
	}
}

// try opens a session if there is none, sends the rest and commits.
func (u *upload) try(ctx context.Context) error {
	if u.location == nil {
		if err := u.open(ctx); err != nil {
			return err
		}
	}
	if u.whole && u.desc.Size > 0 {
		return u.putWhole(ctx)
	}
	if u.offset < u.desc.Size {
		if err := u.patch(ctx); err != nil {
			return err
		}
	}
	return u.commit(ctx)
}

// complete waits for a blob that is still being made: only the rest of a whole
// one can be sent again.
func (u *upload) complete(ctx context.Context) (err error) {
	if u.growing == nil {
		return nil
	}
	if u.desc, err = u.growing.Wait(ctx); err != nil {
		return fmt.Errorf("making its content: %w", err)
	}
	u.growing = nil
	return nil
}

func (u *upload) open(ctx context.Context) error {
	a, err := u.c.do(ctx, call{method: http.MethodPost, repo: u.repo, path: "blobs/uploads/", scopes: u.scopes})
	if err != nil {
		return err
	}
	u.offset = 0
	return u.follow(a)
}

// follow takes the session's new URL from an answer. It may be relative, and
// its query belongs to the registry.
func (u *upload) follow(a *answer) error {
	l := a.header.Get("Location")
	if l == "" {
		if u.location != nil {
			return nil
		}
		return &failure{kind: ErrRejected, text: u.repo.Registry + " opened an upload without saying where"}
	}
	to, err := a.url.Parse(l)
	if err != nil {
		return &failure{kind: ErrRejected, text: u.repo.Registry + " gave a location that is no URL"}
	}
	u.location = to
	return nil
}

func (u *upload) patch(ctx context.Context) error {
	q := call{method: http.MethodPatch, repo: u.repo, location: u.location, scopes: u.scopes, header: header("Content-Type", "application/octet-stream")}
	if u.offset > 0 {
		q.header.Set("Content-Range", fmt.Sprintf("%d-%d", u.offset, u.desc.Size-1))
	}
	a, err := u.send(ctx, q)
	if err != nil {
		return err
	}
	switch a.status {
	case http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusUnsupportedMediaType, http.StatusLengthRequired, http.StatusBadRequest:
		if u.offset == 0 {
			u.c.log.Debug("registry refused PATCH, sending the blob in one PUT", "registry", u.repo.Registry, "status", a.status)
			u.cancel(ctx)
			u.whole = true
			return &broken{cause: u.c.answerError(u.repo, u.repo.Registry, a.status, a.body), lost: true}
		}
	}
	if err := u.check(a); err != nil {
		return err
	}
	if err := u.complete(ctx); err != nil {
		return err
	}
	u.offset = u.desc.Size
	return u.follow(a)
}

func (u *upload) putWhole(ctx context.Context) error {
	u.offset = 0
	a, err := u.send(ctx, u.closing())
	if err == nil {
		err = u.check(a)
	}
	if b, ok := errors.AsType[*broken](err); ok {
		b.lost = true
	}
	if err != nil {
		return err
	}
	return u.confirm(a)
}

func (u *upload) closing() call {
	return call{
		method: http.MethodPut, repo: u.repo, location: u.location, scopes: u.scopes, slow: true,
		query: url.Values{"digest": {u.desc.Digest.String()}}, header: header("Content-Type", "application/octet-stream"),
	}
}

// commit ends the session. The registry checks the digest.
func (u *upload) commit(ctx context.Context) error {
	a, err := u.c.do(ctx, u.closing(), http.StatusBadRequest, http.StatusNotFound, http.StatusRequestedRangeNotSatisfiable)
	if err != nil {
		return err
	}
	if a.status == http.StatusNotFound {
		// An answer that was lost on the way ended the session, too.
		if have, err := u.c.hasBlob(ctx, u.repo, u.desc.Digest, u.scopes); err != nil || have {
			return err
		}
	}
	if err := u.check(a); err != nil {
		return err
	}
	return u.confirm(a)
}

func (u *upload) confirm(a *answer) error {
	said := digest.Digest(a.header.Get("Docker-Content-Digest"))
	if said.Validate() == nil && said.Algorithm() == u.desc.Digest.Algorithm() && said != u.desc.Digest {
		return corrupt("%s stored it as %s", u.repo.Registry, said)
	}
	return nil
}

// check sorts the answers to what was sent: fine, worth another try, or final.
func (u *upload) check(a *answer) error {
	if a.status < 300 {
		return nil
	}
	err := u.c.answerError(u.repo, u.repo.Registry, a.status, a.body)
	switch {
	case a.status == http.StatusNotFound:
		return &broken{cause: err, lost: true}
	case temporary(a.status), a.status == http.StatusRequestedRangeNotSatisfiable:
		return &broken{cause: err, header: a.header}
	case hasCode(err, transport.BlobUploadUnknownErrorCode, transport.BlobUploadInvalidErrorCode):
		return &broken{cause: err, lost: true}
	case hasCode(err, transport.DigestInvalidErrorCode, transport.SizeInvalidErrorCode) && !u.mangled:
		// Once, in case a resumed upload was put together wrongly.
		u.mangled = true
		return &broken{cause: err, lost: true}
	}
	return err
}

// send sends the rest of the blob as the body of one request. Errors of the
// network are broken, those of the content are not.
func (u *upload) send(ctx context.Context, q call) (*answer, error) {
	g, err := u.c.authorize(ctx, u.host, u.repo, q.scopes)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	body := &uploadBody{content: u.content, size: u.desc.Size, growing: u.growing != nil, progress: u.progress, watch: newWatchdog(u.c.idle, func() { stop(errIdle) })}
	defer body.end()

	to := u.host.url(q)
	req, err := http.NewRequestWithContext(onBehalf(ctx, u.host.name), q.method, to.String(), body.from(u.offset))
	if err != nil {
		return nil, errors.New(clean(err))
	}
	req.ContentLength = u.desc.Size - u.offset
	if u.growing != nil {
		req.ContentLength = -1
	}
	// For redirects, and connections that turn out to be closed.
	req.GetBody = func() (io.ReadCloser, error) { return body.from(u.offset), nil }
	req.Header = u.host.headerFor(q, g, to)
	resp, err := u.c.raw.Do(req)
	if readErr := body.end(); readErr != nil {
		if err == nil {
			resp.Body.Close()
		}
		return nil, fmt.Errorf("reading its content: %w", readErr)
	}
	if err != nil {
		if ctx.Err() != nil && errors.Is(context.Cause(ctx), errIdle) {
			return nil, &broken{cause: errIdle}
		}
		if !retriable(ctx, err) {
			return nil, unavailable(u.repo.Registry, 1, 0, err)
		}
		return nil, &broken{cause: err}
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		if u.c.refused(ctx, u.host, u.repo, q.scopes, g, resp) {
			return nil, &broken{cause: u.c.answerError(u.repo, u.repo.Registry, resp.StatusCode, nil)}
		}
	}
	body.watch.start()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	body.watch.stop()
	if err != nil {
		return nil, &broken{cause: err}
	}
	return &answer{status: resp.StatusCode, header: resp.Header, body: text, url: resp.Request.URL}, nil
}

// locate asks the registry how far it got (OCI distribution, "Pushing a blob
// in chunks"). Where it does not say, the upload starts anew.
func (u *upload) locate(ctx context.Context) error {
	if u.whole || u.location == nil {
		u.location, u.offset = nil, 0
		return nil
	}
	a, err := u.c.do(ctx, call{method: http.MethodGet, repo: u.repo, location: u.location, scopes: u.scopes})
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrRejected) || errors.Is(err, ErrDenied) {
		u.location, u.offset = nil, 0
		return nil
	}
	if err != nil {
		return err
	}
	end, ok := rangeEnd(a.header.Get("Range"))
	if !ok || end <= 0 || end >= u.desc.Size || u.follow(a) != nil {
		// Also "0-0", which is one byte or none.
		u.cancel(ctx)
		u.location, u.offset = nil, 0
		return nil
	}
	u.offset = end + 1
	return nil
}

// rangeEnd reads the last byte of "0-N", which some write as "bytes=0-N".
func rangeEnd(s string) (int64, bool) {
	first, last, ok := strings.Cut(strings.TrimPrefix(s, "bytes="), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	return n, ok && err == nil && first == "0"
}
