// Package process is what every isolation does alike once a root directory is
// in place: it works out environment, user and limits of a process, and turns a
// helper, this program started again, into that process.
//
// It must not know how the root directory came to be, nor what keeps a process
// away from the rest of the machine.
package process

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/identity"
)

// defaultPath is BuildKit's for Unix.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Spec is what a helper has to know to become the process. It is sent with
// encoding/gob, since arguments, variables and paths need not be UTF-8.
type Spec struct {
	Args, Env []string
	Cwd       string
	UID, GID  int
	Groups    []int
	Insecure  bool
	Limits    []Limit
}

// NewSpec checks p and fills in its defaults.
func NewSpec(p sandbox.Process, user identity.User) (Spec, error) {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return Spec{}, fmt.Errorf("running a process: there is no command")
	}
	if i := slices.IndexFunc(p.Args, hasNUL); i >= 0 {
		return Spec{}, fmt.Errorf("running a process: argument %d contains a NUL byte", i)
	}
	if i := slices.IndexFunc(p.Env, hasNUL); i >= 0 {
		name, _, _ := strings.Cut(p.Env[i], "=")
		return Spec{}, fmt.Errorf("running a process: environment variable %q contains a NUL byte", name)
	}
	limits, err := limitsOf(p.Ulimits)
	if err != nil {
		return Spec{}, err
	}
	return Spec{
		Args:     p.Args,
		Env:      environ(p.Env, user.Home),
		Cwd:      path.Join("/", p.Cwd),
		UID:      user.UID,
		GID:      user.GID,
		Groups:   user.Groups,
		Insecure: p.Insecure,
		Limits:   limits,
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

// SortMounts puts parents before children. Of two mounts at one place the later
// wins, as in BuildKit.
func SortMounts(mounts []sandbox.Mount) ([]sandbox.Mount, error) {
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
