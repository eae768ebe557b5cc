package namespaces

import (
	"encoding/gob"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/identity"
)

const (
	// defaultHostname is BuildKit's, so that both build the same.
	defaultHostname = "buildkitsandbox"
	// defaultPath is BuildKit's for Unix.
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// spec is all that the child has to know. It is sent with encoding/gob, since
// arguments, variables and paths need not be UTF-8.
type spec struct {
	Root      string
	Args, Env []string
	Cwd       string
	UID, GID  int
	Groups    []int
	Hostname  string
	// Hosts is the content of /etc/hosts.
	Hosts     string
	NoNetwork bool
	Insecure  bool
	Limits    []limit
	Mounts    []sandbox.Mount
	// KeepTimes are directories of the root that keep their times although
	// mount points are made in them.
	KeepTimes []dirTimes
}

// limit is a resource limit as setrlimit(2) wants it.
type limit struct {
	Name       string
	Resource   int
	Soft, Hard uint64
}

// dirTimes are the times of a directory.
type dirTimes struct {
	Path         string
	Atime, Mtime unix.Timespec
}

// report is what the child says when it could not become the process. No report
// means that it did.
type report struct {
	Message string
	// Fix makes it a *sandbox.UnsupportedError.
	Fix string
	// NotRun means that all was ready but the command could not be run; Code is
	// then its exit code and Head the start of a file that the kernel refused.
	NotRun bool
	Code   int
	Head   []byte
}

func (r *report) receive(from io.Reader) {
	// The end of the stream without a report is the usual case.
	if err := gob.NewDecoder(from).Decode(r); err != nil && err != io.EOF {
		r.Message = "the process could not be set up: " + err.Error()
	}
}

func newSpec(root string, p sandbox.Process, user identity.User) (*spec, error) {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return nil, fmt.Errorf("running a process: there is no command")
	}
	if i := slices.IndexFunc(p.Args, hasNUL); i >= 0 {
		return nil, fmt.Errorf("running a process: argument %d contains a NUL byte", i)
	}
	if i := slices.IndexFunc(p.Env, hasNUL); i >= 0 {
		name, _, _ := strings.Cut(p.Env[i], "=")
		return nil, fmt.Errorf("running a process: environment variable %q contains a NUL byte", name)
	}
	limits, err := limitsOf(p.Ulimits)
	if err != nil {
		return nil, err
	}
	mounts, err := sortedMounts(p.Mounts)
	if err != nil {
		return nil, err
	}
	hostname := p.Hostname
	if hostname == "" {
		hostname = defaultHostname
	}
	return &spec{
		Root:      root,
		Args:      p.Args,
		Env:       environ(p.Env, user.Home),
		Cwd:       path.Join("/", p.Cwd),
		UID:       user.UID,
		GID:       user.GID,
		Groups:    user.Groups,
		Hostname:  hostname,
		Hosts:     hostsFile(hostname, p.ExtraHosts),
		NoNetwork: p.Network == sandbox.NetworkNone,
		Insecure:  p.Insecure,
		Limits:    limits,
		Mounts:    mounts,
	}, nil
}

func hasNUL(s string) bool { return strings.IndexByte(s, 0) >= 0 }

// environ keeps the last value of each variable, at the place of its first, and
// adds PATH and HOME. An empty HOME counts as unset, as in runc.
func environ(env []string, home string) []string {
	at := map[string]int{}
	var out []string
	for _, entry := range env {
		name, _, ok := strings.Cut(entry, "=")
		if !ok {
			continue
		}
		if i, seen := at[name]; seen {
			out[i] = entry
			continue
		}
		at[name] = len(out)
		out = append(out, entry)
	}
	if _, ok := at["PATH"]; !ok {
		out = append(out, "PATH="+defaultPath)
	}
	if i, ok := at["HOME"]; !ok {
		out = append(out, "HOME="+home)
	} else if out[i] == "HOME=" {
		out[i] = "HOME=" + home
	}
	return out
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

// sortedMounts puts parents before children. Of two mounts at one place the
// later wins, as in BuildKit.
func sortedMounts(mounts []sandbox.Mount) ([]sandbox.Mount, error) {
	var out []sandbox.Mount
	for _, m := range mounts {
		m.Dest = path.Join("/", m.Dest)
		if m.Dest == "/" {
			return nil, fmt.Errorf("mounting at /: the root directory cannot be replaced; mount at a directory below it")
		}
		if i := slices.IndexFunc(out, func(o sandbox.Mount) bool { return o.Dest == m.Dest }); i >= 0 {
			out[i] = m
			continue
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b sandbox.Mount) int { return strings.Compare(a.Dest, b.Dest) })
	return out, nil
}
