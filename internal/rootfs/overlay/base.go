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
	"github.com/org/kaniko-multiarch/internal/rootfs/state"
)

// baseInfo is what a base layer's directory does not show.
type baseInfo struct {
	// Plain says that the directory has nothing in it that only overlayfs
	// understands.
	Plain bool `json:"plain"`
	// Opaque says that all layers below are hidden. Overlayfs does not look for
	// that on the root of a layer.
	Opaque bool `json:"opaque"`
	// StandIns are what copies of the stand-ins for owners would have.
	StandIns []layer.Copy `json:"standIns,omitempty"`
}

// Base implements rootfs.Store.
func (s *Store) Base(ctx context.Context, diffID digest.Digest, open func(context.Context) (io.ReadCloser, error)) (rootfs.Layer, error) {
	if err := s.state.Base(ctx, diffID, func() error { return s.base(ctx, diffID, open) }); err != nil {
		return nil, err
	}
	return s.known(diffID), nil
}

// Has reports whether a base layer is in the store, of this build or an earlier
// one.
func (s *Store) Has(diffID digest.Digest) bool {
	_, err := os.Lstat(s.state.Thing(diffID.Encoded()))
	return err == nil
}

func (s *Store) known(diffID digest.Digest) *tree {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bases[diffID]
}

func (s *Store) base(ctx context.Context, diffID digest.Digest, open func(context.Context) (io.ReadCloser, error)) error {
	if s.known(diffID) != nil {
		return nil
	}
	name := diffID.Encoded()
	err := s.state.Make(ctx, name, func(part string) error { return s.unpack(ctx, part, diffID, open) })
	if err != nil {
		return err
	}
	dir := s.state.Thing(name)
	info, err := readInfo(dir)
	if err != nil {
		return err
	}
	t := &tree{
		dir:    filepath.Join(dir, "fs"),
		name:   filepath.Join("l", s.state.NewName()),
		plain:  info.Plain,
		opaque: info.Opaque,
		naming: s.naming,
	}
	if err := os.Symlink(t.dir, s.path(t.name)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bases[diffID] = t
	for _, c := range info.StandIns {
		s.standIns[c] = true
	}
	return nil
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

// unpack makes the directory dir of a base layer.
func (s *Store) unpack(ctx context.Context, dir string, diffID digest.Digest, open func(context.Context) (io.ReadCloser, error)) error {
	root := filepath.Join(dir, "fs")
	if err := errors.Join(os.MkdirAll(root, 0o755), os.Chmod(root, 0o755)); err != nil {
		return err
	}
	info, err := s.unpackTar(ctx, root, diffID, open)
	if err != nil {
		return err
	}
	// The root's time is no part of a layer; steps see it nevertheless.
	if err := os.Chtimes(root, time.Time{}, time.Unix(0, 0)); err != nil {
		return err
	}
	data, err := json.Marshal(info)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "info.json"), data, 0o600)
}

func (s *Store) unpackTar(ctx context.Context, root string, diffID digest.Digest, open func(context.Context) (io.ReadCloser, error)) (info baseInfo, err error) {
	info.Plain = true
	options := layer.UnpackOptions{
		Whiteout: func(w layer.Whiteout) error {
			info.Plain = false
			if w.Name == "" && w.Dir.Name() == "." {
				info.Opaque = true
			}
			return s.naming.hide(w)
		},
		Xattr: func(name string) (string, bool) {
			info.Plain = info.Plain && !strings.HasPrefix(name, string(s.naming))
			return s.naming.escape(name), true
		},
		// As other engines do. Base layers go into the image as they came,
		// whatever is lost here.
		BestEffortXattrs: true,
		StandIn:          s.standIn(),
		StoodIn:          func(c layer.Copy) { info.StandIns = append(info.StandIns, c) },
	}
	err = state.ReadBase(ctx, diffID, open, func(r io.Reader) error {
		return layer.Unpack(ctx, bufio.NewReaderSize(r, 1<<20), root, options)
	})
	return info, err
}

// hide puts a whiteout into a lower directory.
func (n naming) hide(w layer.Whiteout) error {
	dir := int(w.Dir.Fd())
	if w.Name == "" {
		return n.setOpaque(dir)
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
	return n.setOpaque(fd)
}
