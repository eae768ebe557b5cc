package inplace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/identity"
	"github.com/org/kaniko-multiarch/internal/sandbox/process"
	"github.com/org/kaniko-multiarch/internal/sandbox/stub"
)

// Run implements sandbox.Runner. p.Root is a directory in the state directory
// that nobody else uses meanwhile; afterwards it has what the process left. A
// source of a mount that is not read-only is moved, so nobody may use that
// either. When ctx is cancelled the error is its cause, unless the process ends
// well all the same. A command that cannot be started is an *sandbox.ExitError
// with code 127 (not found) or 126, and a line on p.Stderr.
//
// A *ConflictError is a tree that does not fit in here. A *LostError or a
// *MovedError is a process that reached for what is not its own.
func (r *Runner) Run(ctx context.Context, p sandbox.Process) (err error) {
	if err := refuse(p); err != nil {
		return err
	}
	if err := canAdopt(); err != nil {
		return err
	}
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// Another builder may have been killed while we waited.
	if err := Recover(ctx, r.opts.StateDir); err != nil {
		return err
	}
	lock, err := lockRoot(ctx, r.opts.Root)
	if err != nil {
		return err
	}
	defer lock.Close()

	tree, err := resolve(p.Root)
	if err != nil {
		return fmt.Errorf("finding the root directory: %w", err)
	}
	if !strings.HasPrefix(tree, r.opts.StateDir+"/") {
		return fmt.Errorf("the root directory %s is not in the state directory %s", tree, r.opts.StateDir)
	}
	user, err := identity.Lookup(tree, p.User)
	if err != nil {
		return err
	}
	made := stub.Find(tree, p.Mounts, p.RemoveStubs)
	defer func() { err = errors.Join(err, made.Remove()) }()
	if err := stub.MakeCwd(tree, p.Cwd, user); err != nil {
		return err
	}
	spec, err := process.NewSpec(p, user)
	if err != nil {
		return err
	}
	sorted, err := process.SortMounts(p.Mounts)
	if err != nil {
		return err
	}
	list, err := sortOut(tree, sorted)
	if err != nil {
		return err
	}
	for _, m := range list.tree {
		if m.Size > 0 {
			r.opts.Log.Debug("the size of a tmpfs is not enforced while building in place", "mount", m.Dest)
		}
	}
	space, err := mountSpace()
	if err != nil {
		return err
	}
	begin := state{Root: r.opts.Root, Tree: tree, Stash: filepath.Join(r.opts.StateDir, stashName), Space: space}
	return r.inside(ctx, begin, lock, list, made.Parents(), start{Spec: spec, Root: r.opts.Root}, p)
}

// inside has the root for itself. Whatever happens, at its end all is back.
func (r *Runner) inside(ctx context.Context, begin state, lock *os.File, list mounts, keep []stub.Times, st start, p sandbox.Process) (err error) {
	if err := removeRest(r.opts.StateDir); err != nil {
		return err
	}
	if err := reserve(r.opts.StateDir); err != nil {
		return err
	}
	j, file, err := newJournal(filepath.Join(r.opts.StateDir, journalName), begin)
	if err != nil {
		return err
	}
	g, err := startGuard(file, lock, p.Stdout, p.Stderr)
	if err != nil {
		return errors.Join(err, j.close())
	}
	types, _, err := mountPoints(r.opts.Root)
	if err != nil {
		return errors.Join(err, g.dismiss(), j.close())
	}
	s := &swap{journal: j, own: r.opts.Own, points: map[string]bool{}}
	for point := range types {
		s.points[point] = true
	}
	var carried map[int]string
	var own []ownFile
	after := func(context.Context) error { return nil }
	defer func() {
		if carried != nil {
			err = errors.Join(err, bringBackMounts(r.opts.Root, carried))
		}
		back := j.leave()
		if back == nil {
			back = errors.Join(j.blame(), putRight(own), j.finish(r.opts.StateDir))
		}
		// A cancelled build is not looked after.
		if ctx.Err() == nil {
			back = errors.Join(back, after(ctx))
		}
		// The guard holds the journal until here, for the case that we die.
		err = errors.Join(err, back, g.dismiss())
	}()
	if err := s.prepare(ctx, types, list, keep, st.Cwd, p); err != nil {
		return err
	}
	if err := s.enter(); err != nil {
		return err
	}
	if _, carried, err = mountPoints(r.opts.Root); err != nil {
		return err
	}
	if err := mountDevices(ctx, r.opts.Root, list.dev); err != nil {
		return err
	}
	if err := s.showFiles(list, p.ExtraHosts); err != nil {
		return err
	}
	before := s.inSight()
	if own, err = s.ownFiles(); err != nil {
		return err
	}
	done, err := r.opts.Watch(sources(p))
	if err != nil {
		return err
	}
	after = done
	if err := g.run(ctx, &st, r.opts, p.Stderr); err != nil {
		return err
	}
	return s.written(before)
}

// sources are the paths of what a process may change.
func sources(p sandbox.Process) []string {
	out := []string{p.Root}
	for _, m := range p.Mounts {
		if m.Source != "" && !m.ReadOnly {
			out = append(out, m.Source)
		}
	}
	return out
}

// prepare makes the tree ready: mount points, mounts, working directory.
func (s *swap) prepare(ctx context.Context, types map[string]string, list mounts, keep []stub.Times, cwd string, p sandbox.Process) error {
	files, err := saveFiles(s.Root)
	if err != nil {
		return err
	}
	devices, err := saveDevices(s.inRoot("dev"), types)
	if err != nil {
		return err
	}
	if len(files) > 0 {
		if err := s.note(record{Files: files}); err != nil {
			return err
		}
	}
	if len(devices) > 0 {
		if err := s.note(record{Devices: devices}); err != nil {
			return err
		}
	}
	if err := s.mountSystem(); err != nil {
		return err
	}
	asides := filepath.Join(filepath.Dir(s.Stash), asidesName)
	if err := os.Mkdir(asides, 0o700); err != nil {
		return fmt.Errorf("making room in the state directory: %w", err)
	}
	if err := s.mountAll(ctx, asides, list.tree); err != nil {
		return err
	}
	dir, err := securejoin.SecureJoin(s.Tree, cwd)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return fmt.Errorf("making the working directory %s: %w", cwd, sandbox.Cause(err))
	}
	for _, k := range keep {
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, k.Path, []unix.Timespec{k.Atime, k.Mtime}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("restoring the times of %s: %w", strings.TrimPrefix(k.Path, s.Tree), err)
		}
	}
	return nil
}

// mountSystem makes the mount points that every process finds. Those of the
// kernel stay in the tree, as they do under BuildKit.
func (s *swap) mountSystem() error {
	for _, name := range append(system(), "etc") {
		dir := s.inTree(name)
		info, err := os.Lstat(dir)
		switch {
		case errors.Is(err, os.ErrNotExist):
			err = os.Mkdir(dir, 0o755)
		case err == nil && !info.IsDir() && name != "etc" && name != "dev":
			return fmt.Errorf("mounting /%s: it is a symbolic link in the image; it must be a directory", name)
		}
		if err != nil {
			return fmt.Errorf("mounting /%s: %w", name, sandbox.Cause(err))
		}
	}
	return nil
}

// showFiles changes what the container has in /etc, where it must.
func (s *swap) showFiles(list mounts, extra []sandbox.HostIP) error {
	for _, f := range s.Files {
		data, ok := list.etc[f.Path]
		delete(list.etc, f.Path)
		if f.Path == "etc/hosts" && len(extra) > 0 && !ok {
			data, ok = hostsWith(f.Data, extra), true
			extra = nil
		}
		if !ok {
			continue
		}
		if err := f.show(s.Root, data); err != nil {
			return err
		}
	}
	for p := range list.etc {
		return unsupportedMount("/" + p)
	}
	if len(extra) > 0 {
		return &sandbox.UnsupportedError{What: "extra hosts (--add-host) in a container without /etc/hosts", Fix: "use --isolation=namespaces, or a container that has one"}
	}
	return nil
}

// canAdopt reports whether the kernel gives us the orphans of a step. QEMU does
// not pass the question on.
func canAdopt() error {
	adopts := int32(0)
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&adopts)), 0, 0, 0)
	if err == nil {
		return nil
	}
	return &sandbox.UnsupportedError{
		What: fmt.Sprintf("running a step in place with a builder that seems to be emulated (%v)", err),
		Fix:  "run the builder's image for this machine's own architecture: the steps of other platforms are emulated all the same",
	}
}
