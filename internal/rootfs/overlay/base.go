package overlay

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

const (
	// partSuffix ends the name of a layer that is being unpacked.
	partSuffix = ".part"
	// lockDelay is the time between two looks at a lock that another process
	// holds.
	lockDelay = 20 * time.Millisecond
)

// baseInfo is what a base layer's directory does not show.
type baseInfo struct {
	// Plain says that the directory has nothing in it that only overlayfs
	// understands.
	Plain bool `json:"plain"`
	// Opaque says that all layers below are hidden. Overlayfs does not look for
	// that on the root of a layer.
	Opaque bool `json:"opaque"`
}

// Base implements rootfs.Store.
func (s *Store) Base(ctx context.Context, diffID digest.Digest, open func(context.Context) (io.ReadCloser, error)) (rootfs.Layer, error) {
	if err := diffID.Validate(); err != nil {
		return nil, fmt.Errorf("diff ID %q: %w", diffID, err)
	}
	release, err := s.hold()
	if err != nil {
		return nil, err
	}
	defer release()
	for {
		l, err, _ := s.flights.Do(diffID.String(), func() (any, error) {
			l, err := s.base(ctx, diffID, open)
			if err != nil && ctx.Err() != nil {
				err = &abandonedError{err}
			}
			return l, err
		})
		if err == nil {
			return l.(*tree), nil
		}
		if _, ok := errors.AsType[*abandonedError](err); ok && ctx.Err() == nil {
			if err := pause(ctx); err != nil {
				return nil, err
			}
			continue
		}
		return nil, err
	}
}

// abandonedError is what others get when the caller that did the work for them
// was cancelled.
type abandonedError struct{ err error }

func (e *abandonedError) Error() string { return e.err.Error() }
func (e *abandonedError) Unwrap() error { return e.err }

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(lockDelay):
		return nil
	}
}

func (s *Store) base(ctx context.Context, diffID digest.Digest, open func(context.Context) (io.ReadCloser, error)) (*tree, error) {
	s.mu.Lock()
	known := s.bases[diffID]
	s.mu.Unlock()
	if known != nil {
		return known, nil
	}
	dir := filepath.Join(s.state, "layers", diffID.Encoded())
	info, err := readInfo(dir)
	if errors.Is(err, os.ErrNotExist) {
		info, err = s.unpack(ctx, dir, diffID, open)
	}
	if err != nil {
		return nil, err
	}
	t := &tree{
		dir:    filepath.Join(dir, "fs"),
		name:   filepath.Join("l", s.newName()),
		plain:  info.Plain,
		opaque: info.Opaque,
	}
	if err := os.Symlink(t.dir, s.path(t.name)); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.bases[diffID] = t
	s.mu.Unlock()
	return t, nil
}

func readInfo(dir string) (info baseInfo, err error) {
	data, err := os.ReadFile(filepath.Join(dir, "info.json"))
	if err != nil {
		return info, err
	}
	if err := json.Unmarshal(data, &info); err != nil {
		return info, fmt.Errorf("reading %s: %w: remove the directory", dir, err)
	}
	return info, nil
}

// unpack makes the directory dir of a base layer, complete or not at all.
func (s *Store) unpack(ctx context.Context, dir string, diffID digest.Digest, open func(context.Context) (io.ReadCloser, error)) (_ baseInfo, err error) {
	l, err := lock(ctx, s.lockName(diffID.Encoded()))
	if err != nil {
		return baseInfo{}, err
	}
	defer l.Close()
	info, err := readInfo(dir)
	if !errors.Is(err, os.ErrNotExist) {
		return info, err
	}

	part := dir + partSuffix
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(part))
		}
	}()
	root := filepath.Join(part, "fs")
	if err := errors.Join(os.RemoveAll(part), os.MkdirAll(root, 0o755), os.Chmod(root, 0o755)); err != nil {
		return info, err
	}
	if info, err = unpackTar(ctx, root, diffID, open); err != nil {
		return info, err
	}
	// The root's time is no part of a layer; steps see it nevertheless.
	if err := os.Chtimes(root, time.Time{}, time.Unix(0, 0)); err != nil {
		return info, err
	}
	data, err := json.Marshal(info)
	if err != nil {
		return info, err
	}
	if err := os.WriteFile(filepath.Join(part, "info.json"), data, 0o600); err != nil {
		return info, err
	}
	return info, os.Rename(part, dir)
}

func unpackTar(ctx context.Context, root string, diffID digest.Digest, open func(context.Context) (io.ReadCloser, error)) (info baseInfo, err error) {
	r, err := open(ctx)
	if err != nil {
		return info, err
	}
	defer r.Close()
	verifier := diffID.Verifier()
	content := bufio.NewReaderSize(io.TeeReader(r, verifier), 1<<20)
	info.Plain = true
	err = layer.Unpack(ctx, content, root, layer.UnpackOptions{
		Whiteout: func(w layer.Whiteout) error {
			info.Plain = false
			if w.Name == "" && w.Dir.Name() == "." {
				info.Opaque = true
			}
			return hide(w)
		},
		Xattr: func(name string) (string, bool) {
			info.Plain = info.Plain && !strings.HasPrefix(name, private)
			return escape(name), true
		},
		// As other engines do. Base layers go into the image as they came,
		// whatever is lost here.
		BestEffortXattrs: true,
	})
	if err != nil {
		return info, err
	}
	// What follows the end of the tar counts for the digest.
	if _, err := io.Copy(io.Discard, content); err != nil {
		return info, fmt.Errorf("reading to the end: %w", err)
	}
	if !verifier.Verified() {
		return info, fmt.Errorf("the content does not have the diff ID %s that the image's config states", diffID)
	}
	return info, nil
}

// hide puts a whiteout into a lower directory.
func hide(w layer.Whiteout) error {
	dir := int(w.Dir.Fd())
	if w.Name == "" {
		return setOpaque(dir)
	}
	err := unix.Mknodat(dir, w.Name, unix.S_IFCHR, 0)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	// This layer has the name again. Only of a directory more would be seen
	// than this layer has.
	fd, err := unix.Openat(dir, w.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return setOpaque(fd)
}
