package process

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// Limit is a resource limit as setrlimit(2) wants it.
type Limit struct {
	Name       string
	Resource   int
	Soft, Hard uint64
}

// limitsOf translates the names of limits.conf(5). -1 means no limit.
func limitsOf(ulimits []sandbox.Ulimit) ([]Limit, error) {
	resources := map[string]int{
		"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
		"fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK,
		"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
		"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO, "rttime": unix.RLIMIT_RTTIME,
		"sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
	}
	var out []Limit
	for _, u := range ulimits {
		name := strings.ToLower(u.Name)
		resource, ok := resources[name]
		if !ok {
			return nil, fmt.Errorf("ulimit %q: there is no such limit; use one of %s", u.Name, strings.Join(slices.Sorted(maps.Keys(resources)), ", "))
		}
		out = append(out, Limit{Name: name, Resource: resource, Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
	}
	return out, nil
}

// allowLimits raises hard limits where needed, which takes the rights that
// dropRights gives up.
func allowLimits(limits []Limit) error {
	for _, l := range limits {
		var now unix.Rlimit
		if err := unix.Prlimit(0, l.Resource, nil, &now); err != nil {
			return fmt.Errorf("reading ulimit %s: %w", l.Name, err)
		}
		if l.Hard <= now.Max {
			continue
		}
		err := unix.Prlimit(0, l.Resource, &unix.Rlimit{Cur: now.Cur, Max: l.Hard}, nil)
		if errors.Is(err, unix.EPERM) {
			return &sandbox.UnsupportedError{
				What: fmt.Sprintf("cannot raise ulimit %s to %d:%d", l.Name, int64(l.Soft), int64(l.Hard)),
				Fix:  "give the builder CAP_SYS_RESOURCE or a higher hard limit",
			}
		}
		if err != nil {
			return fmt.Errorf("raising ulimit %s to %d:%d: %w", l.Name, int64(l.Soft), int64(l.Hard), err)
		}
	}
	return nil
}

// setLimits must come last: we could not open a file or start a thread under
// limits that are meant for the process.
func setLimits(limits []Limit) error {
	for _, l := range limits {
		if err := unix.Prlimit(0, l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
			return fmt.Errorf("setting ulimit %s to %d:%d: %w", l.Name, int64(l.Soft), int64(l.Hard), err)
		}
	}
	return nil
}
