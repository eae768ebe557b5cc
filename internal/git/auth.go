package git

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/org/kaniko-multiarch/internal/graph"
)

// Agents are the SSH agents of a build.
type Agents interface {
	Agent(id string) (agent.Agent, io.Closer, error)
}

// auth finds what to log in with; nil is nothing. release ends its use.
func (c *Client) auth(s *graph.GitSource) (_ transport.AuthMethod, release func(), _ error) {
	release = func() {}
	e, err := transport.NewEndpoint(s.Remote)
	if err != nil {
		return nil, release, errors.New("its URL is malformed")
	}
	switch e.Protocol {
	case "http", "https":
		if e.User != "" || e.Password != "" {
			return &githttp.BasicAuth{Username: e.User, Password: e.Password}, release, nil
		}
		return c.token(s), release, nil
	case "ssh":
		return c.ssh(s, e.User)
	}
	return nil, release, nil
}

// token looks for the secrets as BuildKit does: those of the host go first.
func (c *Client) token(s *graph.GitSource) transport.AuthMethod {
	u, err := url.Parse(s.Remote)
	if err != nil {
		return nil
	}
	for _, suffix := range []string{"." + u.Host, ""} {
		if v, ok := c.Secrets[s.HeaderSecret+suffix]; ok && s.HeaderSecret != "" {
			return header(v)
		}
		if v, ok := c.Secrets[s.TokenSecret+suffix]; ok && s.TokenSecret != "" {
			return header("basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+string(v))))
		}
	}
	return nil
}

// header is the value of an Authorization header.
type header string

var _ githttp.AuthMethod = header("")

func (header) Name() string              { return "header" }
func (header) String() string            { return "header" }
func (h header) SetAuth(r *http.Request) { r.Header.Set("Authorization", string(h)) }

func (c *Client) ssh(s *graph.GitSource, user string) (_ transport.AuthMethod, release func(), err error) {
	release = func() {}
	if c.Agents == nil {
		return nil, release, fmt.Errorf("%w: it wants an SSH key: add --ssh %s", ErrDenied, cmp.Or(s.Agent, "default"))
	}
	keys, closer, err := c.Agents.Agent(cmp.Or(s.Agent, "default"))
	if err != nil {
		return nil, release, fmt.Errorf("%w: %w", ErrDenied, err)
	}
	release = func() { _ = closer.Close() }
	if s.KnownHosts == "" {
		return nil, release, errors.New("the key of its server is not known: the server did not answer, or this is a submodule, for which only https does")
	}
	f, err := os.CreateTemp(c.TempDir, "known-hosts-")
	if err != nil {
		return nil, release, err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(s.KnownHosts)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, release, err
	}
	check, err := knownhosts.New(f.Name())
	if err != nil {
		return nil, release, fmt.Errorf("reading the keys of its server: %w", err)
	}
	return &gitssh.PublicKeysCallback{
		User: user, Callback: keys.Signers,
		HostKeyCallbackHelper: gitssh.HostKeyCallbackHelper{HostKeyCallback: check},
	}, release, nil
}

// hostOnly is the name of a secret for one server, whatever else there is.
func hostOnly(secret, remote string) string {
	u, err := url.Parse(remote)
	if err != nil || secret == "" || u.Host == "" {
		return ""
	}
	return secret + "." + u.Host
}
