package cli

import (
	"net/netip"
	"strings"

	"github.com/docker/go-units"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/sshagent"
)

// stepFlags say what the steps of a build find and may do.
type stepFlags struct {
	AddHost []string `sep:"none" help:"HOST:IP for /etc/hosts of the steps."`
	SSH     []string `name:"ssh" sep:"none" help:"default, or ID=SOCKET or ID=KEYFILE[,KEYFILE] for RUN --mount=type=ssh and git."`
	Network string   `enum:"default,host,none" default:"default" help:"Network of the steps: default, host or none."`
	Allow   []string `sep:"none" help:"Rights that steps may ask for: security.insecure, network.host."`
	Ulimit  []string `sep:"none" help:"NAME=SOFT[:HARD], a limit of every step."`
	ShmSize string   `help:"Size of /dev/shm: 64m."`
}

func (f stepFlags) options(o *build.Options) error {
	o.Network = f.Network
	for _, line := range splitLines(f.AddHost) {
		host, err := parseHost(line)
		if err != nil {
			return err
		}
		o.AddHosts = append(o.AddHosts, host)
	}
	for _, name := range splitList(f.Allow) {
		switch name {
		case "security.insecure":
			o.AllowInsecure = true
		case "network.host": // every step has the builder's network
		default:
			return usagef("--allow %q: use security.insecure or network.host", name)
		}
	}
	for _, limit := range splitLines(f.Ulimit) {
		if _, err := units.ParseUlimit(limit); err != nil {
			return usagef("--ulimit %q: %w: want NAME=SOFT[:HARD], as nofile=1024:2048", limit, err)
		}
		o.Ulimits = append(o.Ulimits, limit)
	}
	if f.ShmSize != "" {
		size, err := units.RAMInBytes(f.ShmSize)
		if err != nil || size <= 0 {
			return usagef("--shm-size %q: want a size, as 64m", f.ShmSize)
		}
		o.ShmSize = size
	}
	for _, line := range splitLines(f.SSH) {
		agent, err := parseSSH(line)
		if err != nil {
			return err
		}
		o.SSH = append(o.SSH, agent)
	}
	return nil
}

// parseHost makes HOST:IP and HOST=IP the latter. An IPv6 address may stand in
// brackets.
func parseHost(line string) (string, error) {
	i := strings.IndexAny(line, ":=")
	if i <= 0 {
		return "", usagef("--add-host %q: want HOST:IP", line)
	}
	host, ip := line[:i], line[i+1:]
	if ip == "host-gateway" {
		return "", usagef("--add-host %q: a build here has no network of its own and so no gateway: give the address", line)
	}
	if inner, ok := strings.CutPrefix(ip, "["); ok && strings.HasSuffix(inner, "]") {
		ip = strings.TrimSuffix(inner, "]")
	}
	if _, err := netip.ParseAddr(ip); err != nil {
		return "", usagef("--add-host %q: %q is no IP address", line, ip)
	}
	return host + "=" + ip, nil
}

// parseSSH reads ID, or ID=PATH[,PATH].
func parseSSH(line string) (build.SSH, error) {
	id, paths, ok := strings.Cut(line, "=")
	if id == "" {
		return build.SSH{}, usagef("--ssh %q: want default, ID=SOCKET or ID=KEYFILE[,KEYFILE]", line)
	}
	agent := build.SSH{ID: id}
	if !ok {
		return agent, nil
	}
	for path := range strings.SplitSeq(paths, ",") {
		if path == "" || strings.HasPrefix(path, "raw=") {
			return agent, usagef("--ssh %q: want ID=SOCKET or ID=KEYFILE[,KEYFILE]; raw is not supported", line)
		}
		agent.Paths = append(agent.Paths, path)
	}
	return agent, nil
}

func openAgents(list []build.SSH, getenv func(string) string) (*sshagent.Agents, error) {
	var sources []sshagent.Source
	for _, s := range list {
		sources = append(sources, sshagent.Source(s))
	}
	agents, err := sshagent.Open(sources, getenv)
	if err != nil {
		return nil, usagef("--ssh: %w", err)
	}
	return agents, nil
}
