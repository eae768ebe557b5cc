package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	fscopy "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// cacheKey identifies the directory of a cache mount.
func (r *execRun) cacheKey(m graph.Mount) string {
	key := "mount\x00" + m.Cache.ID
	if m.Input != graph.None {
		in := r.vertex.Inputs[m.Input]
		key += fmt.Sprintf("\x00%s\x00%d\x00%s", in.Vertex.Digest, in.Output, m.Selector)
	}
	return key
}

// lockCaches locks the caches of all mounts: each once, however many mounts
// show it, and in one order, so that no two steps wait for each other.
func (r *execRun) lockCaches(ctx context.Context) error {
	wanted := map[string]graph.Cache{}
	for _, m := range r.op.Mounts {
		if m.Type != graph.MountCache {
			continue
		}
		key := r.cacheKey(m)
		c, ok := wanted[key]
		if !ok || m.Cache.Sharing > c.Sharing {
			c = m.Cache
		}
		wanted[key] = c
	}
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		dir, err := r.Store.CacheDir(key)
		if err != nil {
			return err
		}
		slot, unlock, err := lockSlot(ctx, dir, wanted[key].Sharing)
		if err != nil {
			return fmt.Errorf("locking cache %q: %w", wanted[key].ID, err)
		}
		r.closers = append(r.closers, unlock)
		r.slots[key] = slot
	}
	return nil
}

// cache gives the step a directory that outlives the build. It is one of
// several for a key when steps that do not share want one at the same time.
func (r *execRun) cache(ctx context.Context, m graph.Mount) error {
	data, err := r.cacheData(ctx, r.slots[r.cacheKey(m)], m)
	if err != nil {
		return fmt.Errorf("preparing cache %q: %w", m.Cache.ID, err)
	}
	r.add(sandbox.Mount{Dest: m.Dest, Source: data, ReadOnly: m.ReadOnly})
	return nil
}

// lockSlot locks a directory below dir as the sharing mode wants it and returns
// its path.
func lockSlot(ctx context.Context, dir string, sharing graph.Sharing) (string, func() error, error) {
	for n := 0; ; n++ {
		slot := filepath.Join(dir, strconv.Itoa(n))
		if err := os.MkdirAll(slot, 0o700); err != nil {
			return "", nil, err
		}
		how := unix.LOCK_EX
		if sharing == graph.SharingShared {
			how = unix.LOCK_SH
		}
		// A private cache goes on to the next slot instead of waiting.
		unlock, err := flock(ctx, filepath.Join(slot, "lock"), how, sharing != graph.SharingPrivate)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue
		}
		return slot, unlock, err
	}
}

// flock locks a file. When it is taken and wait is false, the error is
// EWOULDBLOCK.
func flock(ctx context.Context, name string, how int, wait bool) (func() error, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || !wait {
			_ = f.Close()
			return nil, err
		}
		// A blocking flock cannot be cancelled.
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// cacheData returns the slot's directory, filled from the mount's input when it
// is new.
func (r *execRun) cacheData(ctx context.Context, slot string, m graph.Mount) (string, error) {
	unlock, err := flock(ctx, filepath.Join(slot, "filling"), unix.LOCK_EX, true)
	if err != nil {
		return "", err
	}
	defer func() { _ = unlock() }()
	data := filepath.Join(slot, "data")
	if _, err := os.Stat(data); err == nil {
		return data, nil
	}
	fresh := data + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return "", err
	}
	if m.Input == graph.None {
		if err := os.Mkdir(fresh, 0o755); err != nil {
			return "", err
		}
		if err := os.Chmod(fresh, 0o755); err != nil {
			return "", err
		}
		return data, os.Rename(fresh, data)
	}
	v, err := r.view(ctx, r.stageOf(r.vertex, m.Input).store, r.build.input(r.vertex, m.Input))
	if err != nil {
		return "", err
	}
	defer func() { _ = v.Release() }()
	source, err := within(v.Path(), m.Selector)
	if err != nil {
		return "", err
	}
	if err := copyDir(ctx, source, fresh); err != nil {
		return "", err
	}
	return data, os.Rename(fresh, data)
}

// copyDir makes dst a copy of the directory src, its own mode and owner
// included.
func copyDir(ctx context.Context, src, dst string) error {
	var st unix.Stat_t
	if err := unix.Stat(src, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return errors.New("its source is not a directory")
	}
	if err := os.Mkdir(dst, 0o700); err != nil {
		return err
	}
	contents := fscopy.WithCopyInfo(fscopy.CopyInfo{CopyDirContents: true})
	if err := fscopy.Copy(ctx, src, ".", dst, ".", contents); err != nil {
		return err
	}
	if err := os.Chown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Chmod(dst, st.Mode&0o7777)
}
