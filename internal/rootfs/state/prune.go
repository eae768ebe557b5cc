package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// ErrInUse is a state directory that a build uses now.
var ErrInUse = errors.New("a build uses the state directory")

// Pruned says what Prune did. Sizes are bytes on the disk.
type Pruned struct {
	Removed     int
	Freed, Left int64
}

// kinds are the directories of what outlives a build.
func kinds() []string { return []string{"layers", "tars", "cache"} }

// Prune removes base layers and cache directories, the longest unused first,
// until they take at most keep bytes. What builds left that were killed, or that
// had no time to remove it, goes in any case and does not count. A directory that
// is not there is empty.
// The error is ErrInUse while a build may use any of them.
func Prune(ctx context.Context, dir string, keep int64) (Pruned, error) {
	var p Pruned
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	users := flock.New(filepath.Join(dir, usersName))
	free, err := users.TryLock()
	if err != nil {
		return p, fmt.Errorf("locking the state directory: %w", err)
	}
	if !free {
		return p, ErrInUse
	}
	defer users.Close()
	// The next build says what is wrong with what cannot be removed.
	_ = (&State{root: dir, remove: RemoveAll}).sweepBuilds()
	list, err := things(ctx, dir)
	if err != nil {
		return p, fmt.Errorf("looking through the state directory: %w", err)
	}
	for _, t := range list {
		p.Left += t.size
	}
	for _, t := range list {
		if p.Left <= keep {
			break
		}
		if err := context.Cause(ctx); err != nil {
			return p, err
		}
		if err := t.remove(); err != nil {
			return p, fmt.Errorf("removing %s: %w", t.path, err)
		}
		p.Removed++
		p.Freed += t.size
		p.Left -= t.size
	}
	return p, nil
}

// thing is something that outlives a build.
type thing struct {
	path, lock string
	used       time.Time
	size       int64
}

// remove moves t out of the way first: half of it must never be found.
func (t thing) remove() error {
	part := t.path
	if !strings.HasSuffix(part, partSuffix) {
		part += partSuffix
		if err := os.RemoveAll(part); err != nil {
			return err
		}
		if err := os.Rename(t.path, part); err != nil {
			return err
		}
	}
	if err := os.Remove(t.lock); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(part)
}

// things lists what is there, the longest unused first.
func things(ctx context.Context, dir string) ([]thing, error) {
	var list []thing
	for _, kind := range kinds() {
		entries, err := os.ReadDir(filepath.Join(dir, kind))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			t := thing{path: filepath.Join(dir, kind, e.Name()), lock: filepath.Join(dir, "locks", strings.TrimSuffix(e.Name(), partSuffix))}
			if t.size, err = diskUsage(ctx, t.path); err != nil {
				return nil, err
			}
			if info, err := os.Stat(t.lock); err == nil {
				t.used = info.ModTime()
			}
			list = append(list, t)
		}
	}
	slices.SortStableFunc(list, func(a, b thing) int {
		return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.path, b.path))
	})
	return list, nil
}

// diskUsage is what name and all below it take; a file with several names counts
// once.
func diskUsage(ctx context.Context, name string) (int64, error) {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	total := int64(0)
	err := filepath.WalkDir(name, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return &os.PathError{Op: "lstat", Path: p, Err: err}
		}
		if id := (inode{uint64(st.Dev), st.Ino}); st.Nlink < 2 || d.IsDir() || !seen[id] {
			seen[id] = true
			total += st.Blocks * 512
		}
		return nil
	})
	return total, err
}

// used notes that somebody wants a thing, which is what Prune goes by. It is
// kept beside the thing, whose own times are those of its files.
func (s *State) used(name string) error {
	lock, now := s.LockName(name), time.Now()
	err := os.Chtimes(lock, now, now)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(lock, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}
