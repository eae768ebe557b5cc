package namespaces

import (
	"fmt"
	"strings"

	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/identity"
	"github.com/org/kaniko-multiarch/internal/sandbox/process"
	"github.com/org/kaniko-multiarch/internal/sandbox/stub"
)

// defaultHostname is BuildKit's, so that both build the same.
const defaultHostname = "buildkitsandbox"

// spec is all that the child has to know. It is sent with encoding/gob.
type spec struct {
	process.Spec
	Root     string
	Hostname string
	// Hosts is the content of /etc/hosts.
	Hosts     string
	NoNetwork bool
	Mounts    []sandbox.Mount
	// KeepTimes are directories of the root that keep their times although
	// mount points are made in them.
	KeepTimes []stub.Times
}

func newSpec(root string, p sandbox.Process, user identity.User) (*spec, error) {
	s, err := process.NewSpec(p, user)
	if err != nil {
		return nil, err
	}
	mounts, err := process.SortMounts(p.Mounts)
	if err != nil {
		return nil, err
	}
	hostname := p.Hostname
	if hostname == "" {
		hostname = defaultHostname
	}
	return &spec{
		Spec:      s,
		Root:      root,
		Hostname:  hostname,
		Hosts:     hostsFile(hostname, p.ExtraHosts),
		NoNetwork: p.Network == sandbox.NetworkNone,
		Mounts:    mounts,
	}, nil
}

// hostsFile is what BuildKit writes.
func hostsFile(hostname string, extra []sandbox.HostIP) string {
	var b strings.Builder
	fmt.Fprintf(&b, "127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n", hostname)
	for _, h := range extra {
		fmt.Fprintf(&b, "%s\t%s\n", h.IP, h.Host)
	}
	return b.String()
}
