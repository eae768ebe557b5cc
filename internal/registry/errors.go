package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// States that a caller branches on, for errors.Is. Every error names the full
// reference; none contains a token, a password or the query of a signed URL.
var (
	// ErrCorrupt is content that is not what its digest or size says.
	ErrCorrupt = errors.New("content does not match its digest or size")
	// ErrDenied is an answer 401 or 403 after all that was tried to log in.
	ErrDenied = errors.New("registry denied access")
	// ErrImmutable is a tag that the registry does not let move. It is an
	// ErrRejected.
	ErrImmutable = fmt.Errorf("%w: the tag is immutable", ErrRejected)
	// ErrNotFound is a manifest, blob or repository that is not there.
	ErrNotFound = errors.New("not found in registry")
	// ErrRejected is any other answer that a retry cannot change.
	ErrRejected = errors.New("registry rejected the request")
	// ErrUnavailable is a network or registry that failed in all tries.
	ErrUnavailable = errors.New("registry unavailable")
)

// PlatformError says that an image does not exist for a platform.
type PlatformError struct {
	Ref  Ref
	Want ocispecs.Platform
	// Have are the platforms that exist, as os/arch[/variant].
	Have []string
}

func (e *PlatformError) Error() string {
	have := "it has none"
	if len(e.Have) > 0 {
		have = "it has " + strings.Join(e.Have, ", ")
	}
	return fmt.Sprintf("%s has no image for %s: %s", e.Ref, platforms.Format(e.Want), have)
}

// failure is an error of a kind, with a text of its own. The kind is found by
// errors.Is but is no part of the text.
type failure struct {
	kind  error
	text  string
	cause error
	// codes are the error codes of the answer (OCI distribution, "Error codes").
	codes []string
}

func (e *failure) Error() string { return e.text }

func (e *failure) Unwrap() []error {
	if e.cause == nil {
		return []error{e.kind}
	}
	return []error{e.kind, e.cause}
}

func corrupt(format string, args ...any) error {
	return &failure{kind: ErrCorrupt, text: fmt.Sprintf(format, args...)}
}

// hasCode reports whether a registry answered with one of the error codes.
func hasCode(err error, codes ...transport.ErrorCode) bool {
	f, ok := errors.AsType[*failure](err)
	if !ok {
		return false
	}
	for _, have := range f.codes {
		for _, want := range codes {
			if have == string(want) {
				return true
			}
		}
	}
	return false
}

// answerError turns an answer of who that is no success into an error.
func (c *Client) answerError(r Ref, who string, status int, body []byte) error {
	codes, detail := diagnostics(body)
	f := &failure{kind: ErrRejected, codes: codes}
	said := fmt.Sprintf("%s answered %d %s", who, status, http.StatusText(status))
	if detail != "" {
		said += " (" + detail + ")"
	}
	if isImmutable(r, status, detail) {
		f.kind, f.text = ErrImmutable, said
		return f
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		f.kind = ErrDenied
		said += "; " + c.creds.advice(r)
	case http.StatusNotFound:
		f.kind = ErrNotFound
	}
	f.text = said
	return f
}

// isImmutable reports whether an answer is about a tag that must not move. ECR,
// Artifact Registry and Harbor have no code in common, but the word, which can be
// a part of the repository's name, too.
func isImmutable(r Ref, status int, detail string) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusTooManyRequests:
		return false
	}
	said := strings.ReplaceAll(strings.ToLower(detail), r.Repository, "")
	return status >= 400 && status < 500 && strings.Contains(said, "immutab")
}

// exhausted is what is left of a request after its last try.
type exhausted struct {
	tries  int
	status int
	detail string
	cause  error
}

func (e *exhausted) Error() string {
	if e.cause != nil {
		return clean(e.cause)
	}
	s := fmt.Sprintf("answered %d %s", e.status, http.StatusText(e.status))
	if e.detail != "" {
		s += " (" + e.detail + ")"
	}
	return s
}

func (e *exhausted) Unwrap() error { return e.cause }

// unavailable says how often and for how long a registry was tried.
func unavailable(registry string, tries int, took time.Duration, cause error) error {
	s := fmt.Sprintf("%s failed after %d tries in %s: %s", registry, tries, round(took), clean(cause))
	if tries == 1 {
		s = fmt.Sprintf("%s failed: %s", registry, clean(cause))
	}
	if h := hint(registry, cause); h != "" {
		s += "; " + h
	}
	return &failure{kind: ErrUnavailable, text: s, cause: bare(cause)}
}

func round(d time.Duration) time.Duration {
	if d > 10*time.Second {
		return d.Round(time.Second)
	}
	return d.Round(10 * time.Millisecond)
}

// diagnostics reads the error body of a registry; anything else, such as a
// proxy's page, is left out.
func diagnostics(body []byte) (codes []string, text string) {
	var e transport.Error
	if json.Unmarshal(body, &e) != nil {
		return nil, ""
	}
	var said []string
	for _, d := range e.Errors {
		codes = append(codes, string(d.Code))
		s := string(d.Code)
		if d.Message != "" {
			s += ": " + d.Message
		}
		said = append(said, s)
	}
	return codes, foreign(strings.Join(said, "; "))
}

// maxForeign bounds text that others wrote, in bytes.
const maxForeign = 300

// foreign makes text that a server or helper wrote fit for a log line.
func foreign(s string) string {
	s = scrub(strings.Join(strings.Fields(s), " "))
	if len(s) > maxForeign {
		s = strings.ToValidUTF8(s[:maxForeign], "") + "..."
	}
	return s
}

var (
	urlQuery = regexp.MustCompile(`(https?://[^\s"'?]*)\?[^\s"']*`)
	urlUser  = regexp.MustCompile(`(https?://)[^\s"'/@]*@`)
	authData = regexp.MustCompile(`(?i)\b(bearer|basic) [A-Za-z0-9._~+/=-]{8,}`)
)

// scrub removes what could be a secret: the queries of URLs (signatures), the
// user in a URL, and the values of Authorization headers.
func scrub(s string) string {
	s = urlUser.ReplaceAllString(s, "$1")
	s = urlQuery.ReplaceAllString(s, "$1")
	return authData.ReplaceAllString(s, "$1 ...")
}

// bare takes the URL off an error of net/http.
func bare(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// clean is the text of an error without the query of its URL.
func clean(err error) string {
	u, ok := errors.AsType[*url.Error](err)
	if !ok {
		return scrub(err.Error())
	}
	where := u.URL
	if p, perr := url.Parse(u.URL); perr == nil {
		where = p.Scheme + "://" + p.Host + p.Path
	}
	return scrub(fmt.Sprintf("%s %s: %s", strings.ToUpper(u.Op), where, u.Err))
}
