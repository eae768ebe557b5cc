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
	// InsecurePull and InsecurePush say the same of all hosts: of those that
	// base images are pulled from (Image, and Blob of what Image found), and of
	// those that everything else talks to.
	InsecurePull, InsecurePush bool
	// SkipVerifyRegistries lists HOST[:PORT] whose certificates are not
	// verified, nor those of the token server and the store they send us to.
	// They still have to speak https.
	SkipVerifyRegistries []string
	// SkipVerifyPull and SkipVerifyPush say the same of all hosts, divided as
	// InsecurePull and InsecurePush are.
	SkipVerifyPull, SkipVerifyPush bool
	// Certificates are files of authorities in PEM by HOST[:PORT] of the
	// registry. They are trusted beside the system's, for that registry, its
	// token server and its store.
	Certificates map[string]string
	// ClientCerts are shown to the HOST[:PORT] that asks for one.
	ClientCerts map[string]ClientCert

	// Mirrors are HOST[:PORT][/PATH] that are asked for the base images of
	// Docker Hub before Docker Hub is.
	Mirrors []string
	// Maps are such mirrors by the HOST[:PORT][/PATH] that they stand for: the
	// path of the mirror takes the place of the path of the key. Where several
	// keys fit, the longest comes first; Mirrors come last.
	Maps map[string][]string
	// SkipDefaultFallback leaves out the registry itself where it has mirrors.
	SkipDefaultFallback bool

	// Logins are asked before everything else. Those without a password are
	// ignored.
	Logins []Login
	// CredentialHelpers are the built-in sources of credentials that are asked
	// after docker's configuration: env, gitlab, google, ecr, acr, github. Nil
	// means all, empty means none.
	CredentialHelpers []string

	Retry Retry
	// UserAgent is sent with every request; empty means "kaniko-multiarch".
	UserAgent string
	// Getenv reads DOCKER_CONFIG, DOCKER_AUTH_CONFIG, HOME and the variables of
	// the helpers env, gitlab, acr and github; nil means os.Getenv. Proxies,
	// the system's certificates, and the configuration of AWS and Google are
	// their libraries' business and come from the process's environment.
	Getenv func(string) string
	// HomeDir is where .docker/config.json lies; empty means $HOME.
	HomeDir string
	// Log gets a warning for every retry; nil discards it.
	Log *slog.Logger
}

// Login is a user of a registry; an empty Registry is Docker Hub.
type Login struct {
	Registry string `yaml:"registry"`
	Username string `yaml:"username"`
	Password string `yaml:"password"`
}

// ClientCert are the files of a certificate and its key in PEM.
type ClientCert struct{ Cert, Key string }

// Client talks to registries. It may be used by many goroutines.
type Client struct {
	retry Retry
	log   *slog.Logger
	trust trust
	creds *credentials
	idle  time.Duration
	hosts *hostTable

	// base pulls base images: c itself, or one with another trust. hasty is
	// like it but gives up early, for where there is another place to ask.
	base, hasty *Client
	mirrors     mirrors
	origins     origins

	// small retries requests whose answer is read at once, stream those whose
	// answer is a blob, slow those that the registry works on; single does not
	// retry, tokens leaves redirects to its caller. raw is below them and for
	// bodies of uploads: retryablehttp would keep those in memory.
	small, stream, slow, single, tokens *retryablehttp.Client
	raw                                 *http.Client
}

// New checks the options and reads the credential files and certificates. A
// file or variable that is there but is not valid is an error; so is a
// certificate that is not there, but not a credential file.
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
	if err := checkHosts("insecure registry", o.Insecure); err != nil {
		return nil, err
	}
	if err := checkHosts("registry whose certificate is not verified", o.SkipVerifyRegistries); err != nil {
		return nil, err
	}
	mirrors, err := parseMirrors(o)
	if err != nil {
		return nil, err
	}
	keys, err := loadKeys(o)
	if err != nil {
		return nil, err
	}
	creds, err := loadCredentials(o)
	if err != nil {
		return nil, fmt.Errorf("reading registry credentials: %w", err)
	}
	if creds.builtins, err = builtins(o); err != nil {
		return nil, err
	}
	push := trust{insecure: o.Insecure, anyInsecure: o.InsecurePush, unverified: o.SkipVerifyRegistries, noneVerified: o.SkipVerifyPush}
	pull := push
	pull.anyInsecure, pull.noneVerified = o.InsecurePull, o.SkipVerifyPull

	c := &Client{retry: o.Retry.withDefaults(), log: o.Log, trust: push, creds: creds, mirrors: mirrors}
	c.connect(newTransport(push, keys, o.UserAgent))
	c.base = c
	if o.InsecurePull != o.InsecurePush || o.SkipVerifyPull != o.SkipVerifyPush {
		c.base = &Client{retry: c.retry, log: c.log, trust: pull, creds: creds}
		c.base.connect(newTransport(pull, keys, o.UserAgent))
	}
	c.hasty = &Client{retry: c.retry.hasty(), log: c.log, trust: pull, creds: creds, hosts: c.base.hosts}
	c.hasty.connect(c.base.raw.Transport)
	return c, nil
}

// connect makes the clients above a transport.
func (c *Client) connect(rt http.RoundTripper) {
	c.idle = idleTimeout
	if c.hosts == nil {
		c.hosts = &hostTable{known: map[string]*host{}}
	}
	c.raw = &http.Client{Transport: rt, CheckRedirect: checkRedirect}
	c.slow = c.retrying(c.raw)
	c.stream = c.retrying(&http.Client{Transport: &prompt{c, rt}, CheckRedirect: checkRedirect})
	c.small = c.retrying(&http.Client{Transport: rt, CheckRedirect: checkRedirect, Timeout: smallTimeout})
	c.single = c.retrying(c.small.HTTPClient)
	c.single.RetryMax = 0
	c.tokens = c.retrying(&http.Client{Transport: rt, CheckRedirect: keepRedirect, Timeout: smallTimeout})
}

func checkHosts(what string, hosts []string) error {
	for _, h := range hosts {
		if h == "" || strings.ContainsAny(h, "/ ,") {
			return fmt.Errorf("%s %q: give HOST or HOST:PORT, without scheme and path", what, h)
		}
	}
	return nil
}
