// Package registry talks to container registries: it finds credentials, pulls,
// pushes, mounts and copies manifests and blobs, retries what may work a moment
// later, and picks the image of a platform from an index.
//
// It is the only package that knows go-containerregistry; in its API appear
// only the types of image-spec and go-digest. It must not know what is in a
// layer, how an image is built or when a tag may move.
//
// Protocol: OCI distribution specification 1.1.
package registry

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

const (
	// defaultUserAgent names the program; operators of registries look for it.
	defaultUserAgent = "kaniko-multiarch"
	// smallTimeout ends one try of a request that carries no blob.
	smallTimeout = time.Minute
	// idleTimeout is how long a blob transfer may go without a byte before
	// its connection counts as broken.
	idleTimeout = time.Minute
)

// Options say how to reach registries. The zero value is usable.
type Options struct {
	// Insecure lists HOST[:PORT] where plain http or a certificate that cannot
	// be verified is allowed. A host without port stands for all its ports.
	// Loopback hosts are always allowed both, as docker does it.
	Insecure []string
	Retry    Retry
	// UserAgent is sent with every request; empty means "kaniko-multiarch".
	UserAgent string
	// Getenv reads DOCKER_CONFIG, DOCKER_AUTH_CONFIG and HOME; nil means
	// os.Getenv. Proxies and certificates are the standard library's business
	// and come from the process's environment.
	Getenv func(string) string
	// HomeDir is where .docker/config.json lies; empty means $HOME.
	HomeDir string
	// Log gets a warning for every retry; nil discards it.
	Log *slog.Logger
}

// Client talks to registries. It may be used by many goroutines.
type Client struct {
	retry Retry
	log   *slog.Logger
	trust trust
	creds *credentials
	idle  time.Duration

	// small retries requests whose answer is read at once, stream those whose
	// answer is a blob, slow those that the registry works on; single does not
	// retry, tokens leaves redirects to its caller. raw is below them and for
	// bodies of uploads: retryablehttp would keep those in memory.
	small, stream, slow, single, tokens *retryablehttp.Client
	raw                                 *http.Client

	mu    sync.Mutex
	hosts map[string]*host
}

// New checks the options and reads the credential files. A file or variable
// that is there but is not valid is an error; a file that is not there is none.
func New(o Options) (*Client, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.HomeDir == "" {
		o.HomeDir = o.Getenv("HOME")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.UserAgent == "" {
		o.UserAgent = defaultUserAgent
	}
	if o.Retry.InitialDelay < 0 || o.Retry.MaxDelay < 0 {
		return nil, errors.New("retry delays must not be negative")
	}
	for _, h := range o.Insecure {
		if h == "" || strings.ContainsAny(h, "/ ,") {
			return nil, fmt.Errorf("insecure registry %q: give HOST or HOST:PORT, without scheme and path", h)
		}
	}
	creds, err := loadCredentials(o.Getenv, o.HomeDir, o.Log)
	if err != nil {
		return nil, fmt.Errorf("reading registry credentials: %w", err)
	}
	c := &Client{
		retry: o.Retry.withDefaults(),
		log:   o.Log,
		trust: trust{insecure: o.Insecure},
		creds: creds,
		idle:  idleTimeout,
		hosts: map[string]*host{},
	}
	rt := newTransport(c.trust, o.UserAgent)
	c.raw = &http.Client{Transport: rt, CheckRedirect: checkRedirect}
	c.slow = c.retrying(c.raw)
	c.stream = c.retrying(&http.Client{Transport: &prompt{c, rt}, CheckRedirect: checkRedirect})
	c.small = c.retrying(&http.Client{Transport: rt, CheckRedirect: checkRedirect, Timeout: smallTimeout})
	c.single = c.retrying(c.small.HTTPClient)
	c.single.RetryMax = 0
	c.tokens = c.retrying(&http.Client{Transport: rt, CheckRedirect: keepRedirect, Timeout: smallTimeout})
	return c, nil
}
