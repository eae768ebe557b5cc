// Package inplace runs a process in the builder's own "/", where nothing can be
// mounted: a default container. The process's tree is moved there name by name,
// after what stands in the way was moved aside together with the mounts in it,
// and back when the process has ended, however it ended.
//
// Compared with namespaces: files that would be mounts are moved or copied to
// their place, so nothing is read-only, and what is written where it should not
// be is dropped; a tmpfs is a directory on disk and has no size; /proc, /sys,
// /dev, the network, the host name and /etc/{hosts,hostname,resolv.conf} are
// the container's, and changes to these are undone. Mount points at the top of
// the container's root and the builder's own directory cannot be hidden from
// the process, which runs as root: it can read and delete what is there.
//
// That cannot be helped in a default container (tried on Linux 6.18, docker's
// default seccomp profile). Landlock and a seccomp filter both take
// no_new_privs, which breaks sudo in a step, or CAP_SYS_ADMIN; and Landlock's
// rules allow what is below a directory, so to leave out one directory of "/" is
// to leave out what the step makes there. A root directory of its own, by
// chroot(2), has no /proc: mount points at the top do not move. Rights of files
// are nothing to CAP_DAC_OVERRIDE. So it is found out afterwards: what a step
// did to files that are not its own is undone, or fails the step (own.go,
// Options.Watch).
//
// A program that uses this package calls Child first in main. Between Run's
// start and end the builder must use the state directory only: "/" is not its
// own. The package must not know what a Dockerfile, a vertex or a layer is.
package inplace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/process"
)

// DefaultGrace is how long a cancelled process may take to end after SIGTERM.
const DefaultGrace = 5 * time.Second

// Options are what a Runner needs.
type Options struct {
	// StateDir has the trees. It lies on the file system of the root, not on a
	// volume.
	StateDir string
	// Root is "/" when empty. Another one is for tests: a process is locked into
	// it with chroot(2).
	Root string
	// Own are directories of the builder that stay where they are: that of its
	// binary. StateDir is one always.
	Own []string
	// Watch, if any, is called when all is ready for a process, with the paths of
	// files that it may change, and done when all is back: whoever keeps files in
	// the state directory finds out whether the process was there.
	Watch func(own []string) (done func(context.Context) error, err error)
	// Explain is asked about programs of another architecture.
	Explain process.Explainer
	// Grace is what a cancelled process has to end after SIGTERM; see
	// DefaultGrace.
	Grace time.Duration
	// Log gets what a user may wonder about later; nil means nobody.
	Log *slog.Logger
}

// Runner is a sandbox.Runner. It runs one process at a time, in all builders of
// a container: the others wait.
type Runner struct {
	opts Options
	turn chan struct{}
}

var _ sandbox.Runner = (*Runner)(nil)

// New recovers from a build that was killed, and makes sure that trees can be
// moved between the state directory and the root. It also makes this process
// invisible to steps, which run as the same user: they cannot read its memory,
// environment and descriptors (PR_SET_DUMPABLE).
//
// It does not ask whether this is a place to build in; Check does.
func New(ctx context.Context, o Options) (*Runner, error) {
	var err error
	if o.Root == "" {
		o.Root = "/"
	}
	for _, dir := range []*string{&o.Root, &o.StateDir} {
		if *dir, err = resolve(*dir); err != nil {
			return nil, fmt.Errorf("preparing to build in place: %w", err)
		}
	}
	own := []string{o.StateDir}
	for _, dir := range o.Own {
		if dir, err = resolve(dir); err == nil {
			own = append(own, dir)
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("preparing to build in place: %w", err)
		}
	}
	o.Own = nil
	for _, dir := range own {
		rel, err := filepath.Rel(o.Root, dir)
		if err != nil || rel == "." || strings.HasPrefix(rel, "..") {
			return nil, fmt.Errorf("preparing to build in place: %s is not below %s; name a directory there with --state-dir", dir, o.Root)
		}
		o.Own = append(o.Own, rel)
	}
	if o.Watch == nil {
		o.Watch = func([]string) (func(context.Context) error, error) {
			return func(context.Context) error { return nil }, nil
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("preparing to build in place: %w", err)
	}
	if err := Recover(ctx, o.StateDir); err != nil {
		return nil, err
	}
	if err := tryMove(o.StateDir, o.Root); err != nil {
		return nil, err
	}
	return &Runner{opts: o, turn: make(chan struct{}, 1)}, nil
}

func resolve(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// tryMove finds out whether a directory can be moved to the root: device
// numbers do not tell, since a volume may be of the same file system. The root
// keeps its times.
func tryMove(stateDir, root string) error {
	looks, err := readAttrs(root)
	if err != nil {
		return fmt.Errorf("preparing to build in place: %w", err)
	}
	from, err := os.MkdirTemp(stateDir, "trial-")
	if err != nil {
		return fmt.Errorf("preparing to build in place: %w", err)
	}
	to := filepath.Join(root, "."+filepath.Base(from))
	err = unix.Rename(from, to)
	switch {
	case err == nil:
		return errors.Join(os.Remove(to), looks.applyTimes(root))
	case errors.Is(err, unix.EXDEV):
		err = &sandbox.UnsupportedError{
			What: fmt.Sprintf("building in place with %s on another file system than %s", stateDir, root),
			Fix:  "name a directory that is on no volume with --state-dir",
		}
	case errors.Is(err, unix.EROFS):
		err = &sandbox.UnsupportedError{
			What: "building in place with a read-only root file system",
			Fix:  "make it writable (docker: no --read-only; Kubernetes: readOnlyRootFilesystem: false)",
		}
	default:
		err = fmt.Errorf("preparing to build in place: moving a directory to %s: %w", root, err)
	}
	return errors.Join(err, os.Remove(from))
}

// refuse names what cannot be had without namespaces.
func refuse(p sandbox.Process) error {
	const fix = "remove it, or use --isolation=namespaces where the builder may create namespaces"
	switch {
	case p.Network == sandbox.NetworkNone:
		return &sandbox.UnsupportedError{What: "a step without a network (--network=none) while building in place", Fix: fix}
	case p.Insecure:
		return &sandbox.UnsupportedError{What: "an insecure step (--security=insecure) while building in place", Fix: fix}
	case p.Hostname != "":
		return &sandbox.UnsupportedError{What: "a host name of its own for a step while building in place", Fix: fix}
	}
	return nil
}
