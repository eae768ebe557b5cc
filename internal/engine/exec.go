package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/cyphar/filepath-securejoin"

	"github.com/org/kaniko-multiarch/internal/fileop"
	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/rootfs"
	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// execRun is one Exec vertex while it runs.
type execRun struct {
	*build
	vertex *graph.Vertex
	op     *graph.Exec
	// works are the writable trees by mount index; the rest are to release.
	works   map[int]rootfs.Work
	closers []func() error
	// slots are the locked directories of the cache mounts by their key.
	slots   map[string]string
	process sandbox.Process
}

func (b *build) exec(ctx context.Context, v *graph.Vertex, op *graph.Exec) (_ []tree, err error) {
	r := &execRun{build: b, vertex: v, op: op, works: map[int]rootfs.Work{}, slots: map[string]string{}}
	defer func() { err = errors.Join(err, r.release()) }()
	stdout, stderr := b.Progress.Log(v.Digest, 1), b.Progress.Log(v.Digest, 2)
	r.process = sandbox.Process{
		Args:        op.Args,
		Env:         slices.Concat(op.Env, op.ProxyEnv),
		Cwd:         op.Cwd,
		User:        op.User,
		Hostname:    op.Hostname,
		Insecure:    op.Insecure,
		RemoveStubs: op.RemoveStubs,
		Stdout:      stdout,
		Stderr:      stderr,
	}
	r.limits()
	if err := r.secretEnv(); err != nil {
		return nil, err
	}
	if err := r.lockCaches(ctx); err != nil {
		return nil, err
	}
	for i, m := range op.Mounts {
		if err := r.mount(ctx, i, m); err != nil {
			return nil, fmt.Errorf("mounting %s: %w", m.Dest, err)
		}
	}
	if err := b.Sandbox.Run(ctx, r.process); err != nil {
		var exit *sandbox.ExitError
		if errors.As(err, &exit) {
			return nil, fmt.Errorf("process %q did not complete successfully: %w", strings.Join(op.Args, " "), err)
		}
		return nil, err
	}
	return r.commit(ctx)
}

func (r *execRun) limits() {
	op := r.op
	if op.Network == graph.NetworkNone {
		r.process.Network = sandbox.NetworkNone
	}
	for _, h := range op.ExtraHosts {
		r.process.ExtraHosts = append(r.process.ExtraHosts, sandbox.HostIP(h))
	}
	for _, u := range op.Ulimits {
		r.process.Ulimits = append(r.process.Ulimits, sandbox.Ulimit(u))
	}
}

func (r *execRun) secretEnv() error {
	for _, s := range r.op.SecretEnv {
		value, ok := r.Secrets[s.ID]
		if !ok && !s.Optional {
			return &SecretError{ID: s.ID}
		}
		// An optional one that is missing is set and empty, as with BuildKit.
		r.process.Env = append(r.process.Env, s.Name+"="+string(value))
	}
	return nil
}

// SecretError is a step that wants a secret which the build was not given.
type SecretError struct{ ID string }

func (e *SecretError) Error() string {
	return fmt.Sprintf("secret %q is required and was not given: add --secret id=%s,src=FILE or --secret id=%s,env=NAME", e.ID, e.ID, e.ID)
}

// mount prepares one mount of the vertex.
func (r *execRun) mount(ctx context.Context, i int, m graph.Mount) error {
	switch m.Type {
	case graph.MountBind:
		return r.bind(ctx, i, m)
	case graph.MountTmpfs:
		r.add(sandbox.Mount{Dest: m.Dest, Size: m.TmpfsSize})
		return nil
	case graph.MountCache:
		return r.cache(ctx, m)
	case graph.MountSecret:
		return r.secret(m)
	case graph.MountSSH:
		return r.agent(m)
	}
	return fmt.Errorf("mount type %d is not supported", m.Type)
}

func (r *execRun) add(m sandbox.Mount) { r.process.Mounts = append(r.process.Mounts, m) }

func (r *execRun) bind(ctx context.Context, i int, m graph.Mount) error {
	from, store := r.build.input(r.vertex, m.Input), r.stageOf(r.vertex, m.Input).store
	root := m.Dest == "/"
	if readOnly(m) {
		v, err := r.view(ctx, store, from)
		if err != nil {
			return err
		}
		r.closers = append(r.closers, v.Release)
		source, err := within(v.Path(), m.Selector)
		if err != nil {
			return err
		}
		r.add(sandbox.Mount{Dest: m.Dest, Source: source, ReadOnly: true})
		return nil
	}
	// What is written here is seen by nobody else: a copy on write, which is
	// dropped unless the mount has an output.
	w, err := r.work(ctx, store, from)
	if err != nil {
		return err
	}
	r.works[i] = w
	if root {
		r.process.Root = w.Path()
		return nil
	}
	source, err := within(w.Path(), m.Selector)
	if err != nil {
		return err
	}
	r.add(sandbox.Mount{Dest: m.Dest, Source: source, ReadOnly: m.ReadOnly})
	return nil
}

// readOnly says that a bind mount is a view, not a work.
func readOnly(m graph.Mount) bool {
	return m.ReadOnly && m.Output == graph.None && m.Dest != "/"
}

func (r *execRun) secret(m graph.Mount) error {
	value, ok := r.Secrets[m.Secret.ID]
	if !ok {
		if m.Secret.Optional {
			return nil
		}
		return &SecretError{ID: m.Secret.ID}
	}
	r.add(sandbox.Mount{Dest: m.Dest, ReadOnly: true, File: &sandbox.File{
		Data: value, Mode: m.Secret.Mode, UID: m.Secret.UID, GID: m.Secret.GID,
	}})
	return nil
}

// agent gives the step a socket of an SSH agent. It lives as long as the step.
func (r *execRun) agent(m graph.Mount) error {
	if r.Agents == nil || !r.Agents.Has(m.Secret.ID) {
		if m.Secret.Optional {
			return nil
		}
		return &AgentError{ID: m.Secret.ID}
	}
	dir, err := os.MkdirTemp(r.SpoolDir, "ssh-")
	if err != nil {
		return err
	}
	r.closers = append(r.closers, func() error { return os.RemoveAll(dir) })
	socket, stop, err := r.Agents.Serve(m.Secret.ID, dir)
	if err != nil {
		return err
	}
	r.closers = append(r.closers, stop)
	if err := os.Chown(socket, m.Secret.UID, m.Secret.GID); err != nil {
		return err
	}
	if err := os.Chmod(socket, fs.FileMode(m.Secret.Mode).Perm()); err != nil {
		return err
	}
	r.add(sandbox.Mount{Dest: m.Dest, Source: socket, ReadOnly: true})
	return nil
}

// AgentError is a step that wants an SSH agent which the build was not given.
type AgentError struct{ ID string }

func (e *AgentError) Error() string {
	return fmt.Sprintf("ssh agent %q is required and was not given: add --ssh %s, which takes the agent of SSH_AUTH_SOCK, or --ssh %s=KEYFILE", e.ID, e.ID, e.ID)
}

// within resolves a path inside a tree, symbolic links included. It must exist.
func within(root, name string) (string, error) {
	p, err := securejoin.SecureJoin(root, name)
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(p); err != nil {
		return "", &fileop.NotFoundError{Path: name}
	}
	return p, nil
}

// commit makes a tree of each output.
func (r *execRun) commit(ctx context.Context) ([]tree, error) {
	var out []tree
	for i, m := range r.op.Mounts {
		if m.Output == graph.None {
			continue
		}
		w, ok := r.works[i]
		if !ok {
			return nil, fmt.Errorf("the mount at %s has an output but cannot be written to", m.Dest)
		}
		delete(r.works, i)
		t, err := r.build.commit(ctx, w, r.build.input(r.vertex, m.Input), graph.Edge{Vertex: r.vertex, Output: m.Output})
		if err != nil {
			return nil, err
		}
		for len(out) <= m.Output {
			out = append(out, nil)
		}
		out[m.Output] = t
	}
	return out, nil
}

func (r *execRun) release() error {
	var errs []error
	for _, w := range r.works {
		errs = append(errs, w.Discard())
	}
	for _, c := range slices.Backward(r.closers) {
		errs = append(errs, c())
	}
	for _, w := range []io.Writer{r.process.Stdout, r.process.Stderr} {
		if c, ok := w.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}
