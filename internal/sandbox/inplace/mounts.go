package inplace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// mounts are those of one process, by where they are made: in the tree before
// it is moved in, in the container's /dev after that, or as content of a file
// that the container has mounted.
type mounts struct {
	tree, dev []sandbox.Mount
	// etc has the path of a file in /etc, and its content.
	etc map[string][]byte
}

// sortOut checks sorted mounts and splits them.
func sortOut(tree string, sorted []sandbox.Mount) (mounts, error) {
	out := mounts{etc: map[string][]byte{}}
	for i, m := range sorted {
		if m.Source != "" {
			source, err := filepath.EvalSymlinks(m.Source)
			if err != nil {
				return out, fmt.Errorf("mounting %s: its source: %w", m.Dest, sandbox.Cause(err))
			}
			sorted[i].Source, m.Source = source, source
		}
		at, err := securejoin.SecureJoin(tree, m.Dest)
		if err != nil {
			return out, fmt.Errorf("mounting %s: making the mount point: %w", m.Dest, sandbox.Cause(err))
		}
		rel := strings.TrimPrefix(at, tree+"/")
		top, _, below := strings.Cut(rel, "/")
		switch {
		case top == "proc" || top == "sys" || rel == "dev":
			return out, unsupportedMount(m.Dest)
		case rel == "dev/shm" && m.Source == "" && m.File == nil:
			// It is a tmpfs already, and nobody may mount one of another size.
		case top == "dev" && below:
			if m.Source != "" && !m.ReadOnly || slices.Contains([]string{"dev/shm", "dev/pts", "dev/mqueue"}, rel) {
				return out, unsupportedMount(m.Dest)
			}
			m.Dest = rel
			out.dev = append(out.dev, m)
		case slices.Contains(etcFiles(), rel):
			content, err := contentOf(m)
			if err != nil {
				return out, fmt.Errorf("mounting %s: %w", m.Dest, sandbox.Cause(err))
			}
			out.etc[rel] = content
		default:
			out.tree = append(out.tree, m)
		}
	}
	return out, out.overlap()
}

func unsupportedMount(dest string) error {
	return &sandbox.UnsupportedError{
		What: "a mount at " + dest + " while building in place",
		Fix:  "mount it elsewhere, or use --isolation=namespaces",
	}
}

func contentOf(m sandbox.Mount) ([]byte, error) {
	if m.File != nil {
		return m.File.Data, nil
	}
	if info, err := os.Stat(m.Source); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(errors.New("a directory cannot be mounted on a file"), err)
	}
	return os.ReadFile(m.Source)
}

// overlap refuses what would take moving one directory to two places.
func (m mounts) overlap() error {
	for i, a := range m.tree {
		if a.Source == "" || a.ReadOnly {
			continue
		}
		for j, b := range m.tree {
			if i == j || b.Source != a.Source && !strings.HasPrefix(b.Source, a.Source+"/") && !strings.HasPrefix(a.Source, b.Source+"/") || b.Source == "" {
				continue
			}
			return &sandbox.UnsupportedError{
				What: fmt.Sprintf("one cache or directory at both %s and %s while building in place", a.Dest, b.Dest),
				Fix:  "mount it once and make the other path a symbolic link, or use --isolation=namespaces",
			}
		}
	}
	return nil
}

// mountAll makes the mounts of the tree, parents first.
func (s *swap) mountAll(ctx context.Context, asides string, list []sandbox.Mount) error {
	for i, m := range list {
		if err := s.mount(ctx, filepath.Join(asides, strconv.Itoa(i)), m); err != nil {
			return fmt.Errorf("mounting %s: %w", m.Dest, err)
		}
	}
	return nil
}

func (s *swap) mount(ctx context.Context, aside string, m sandbox.Mount) error {
	at, err := securejoin.SecureJoin(s.Tree, m.Dest)
	if err != nil {
		return err
	}
	dir := m.File == nil && (m.Source == "" || isDir(m.Source))
	made, err := mountPoint(at, dir)
	if err != nil {
		return err
	}
	parent := filepath.Dir(at)
	looks, err := readAttrs(parent)
	if err != nil {
		return err
	}
	b := binding{At: at, Aside: aside, Source: m.Source, Kind: kindOf(m, dir)}
	if err := s.note(record{Mount: &b}); err != nil {
		return err
	}
	if err := unix.Rename(at, aside); err != nil {
		return err
	}
	if err := s.bind(ctx, &b, m, dir, made); err != nil {
		return err
	}
	if err := looks.applyTimes(parent); err != nil {
		return err
	}
	if err := b.hold(); err != nil {
		return err
	}
	b.Done = true
	return s.note(record{Mount: &b})
}

// bind puts the source of a mount at its place.
func (s *swap) bind(ctx context.Context, b *binding, m sandbox.Mount, dir, made bool) error {
	switch b.Kind {
	case secret:
		return writeSecret(b.At, m.File)
	case temporary:
		// As under runc, a tmpfs over a directory has that one's mode.
		mode := uint32(0o1777)
		if !made {
			hidden, err := readAttrs(b.Aside)
			if err != nil {
				return err
			}
			mode = hidden.Mode
		}
		if err := os.Mkdir(b.At, 0o700); err != nil {
			return err
		}
		return unix.Chmod(b.At, mode)
	case moved:
		err := unix.Rename(m.Source, b.At)
		if !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EBUSY) {
			return err
		}
		b.Kind = synced
		if err := s.note(record{Mount: b}); err != nil {
			return err
		}
	}
	if isSocket(m.Source) {
		// Another name of the same socket: who connects reaches who listens.
		return os.Link(m.Source, b.At)
	}
	if dir {
		return copyDir(ctx, m.Source, b.At)
	}
	return copyFile(m.Source, b.At)
}

func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&os.ModeSocket != 0
}

// mountPoint makes what is missing. made tells that it was.
func mountPoint(at string, dir bool) (made bool, err error) {
	info, err := os.Lstat(at)
	if errors.Is(err, os.ErrNotExist) {
		made = true
		err = makeMountPoint(at, dir)
	}
	if err != nil {
		return false, fmt.Errorf("making the mount point: %w", sandbox.Cause(err))
	}
	if made {
		return true, nil
	}
	if info.IsDir() && !dir {
		return false, errors.New("a file cannot be mounted on a directory")
	}
	if !info.IsDir() && dir {
		return false, errors.New("a directory cannot be mounted on a file")
	}
	return false, nil
}

func makeMountPoint(at string, dir bool) error {
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	if dir {
		return os.Mkdir(at, 0o755)
	}
	f, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func writeSecret(at string, file *sandbox.File) error {
	f, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(file.Data); err != nil {
		return err
	}
	if err := f.Chown(file.UID, file.GID); err != nil {
		return err
	}
	return unix.Fchmod(int(f.Fd()), file.Mode&0o7777)
}

// mountDevices makes the mounts below /dev, where nothing can be moved to. They
// are removed with all else that is new there.
func mountDevices(ctx context.Context, root string, list []sandbox.Mount) error {
	for _, m := range list {
		at := filepath.Join(root, m.Dest)
		err := os.MkdirAll(filepath.Dir(at), 0o755)
		switch {
		case err != nil:
		case m.File != nil:
			err = writeSecret(at, m.File)
		case m.Source == "":
			if err = os.Mkdir(at, 0o700); err == nil {
				err = unix.Chmod(at, 0o1777)
			}
		case isDir(m.Source):
			err = copyDir(ctx, m.Source, at)
		default:
			err = copyFile(m.Source, at)
		}
		if err != nil {
			return fmt.Errorf("mounting /%s: %w", m.Dest, sandbox.Cause(err))
		}
	}
	return nil
}
