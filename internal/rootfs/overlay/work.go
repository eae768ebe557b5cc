package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// tree is a layer: one directory in a stack.
type tree struct {
	dir string
	// name leads from the build's directory to dir and is short.
	name string
	// plain says that dir shows the layer without overlayfs.
	plain bool
	// opaque says that nothing below this layer is seen.
	opaque bool
	// made says that a work committed the layer, and changes what is in it.
	made    bool
	changes []layer.Change
	naming  naming
}

// WriteTar implements rootfs.Layer.
func (t *tree) WriteTar(ctx context.Context, w io.Writer, opts rootfs.TarOptions) error {
	if !t.made {
		return errors.New("a base layer is not made by this build: take its blob from the image")
	}
	return layer.Write(ctx, w, t.dir, t.changes, layer.WriteOptions{MaxTime: opts.MaxTime, Xattr: t.naming.unescape})
}

// stack returns the trees that count, bottom first. Of one that is there twice,
// as empty layers of images often are, the upper one decides everything that
// the lower one could; overlayfs refuses both.
func stack(layers []rootfs.Layer) ([]*tree, error) {
	var trees []*tree
	seen := map[string]bool{}
	for _, l := range slices.Backward(layers) {
		t, ok := l.(*tree)
		if !ok {
			return nil, fmt.Errorf("a layer of type %T is not from this store", l)
		}
		if seen[t.dir] {
			continue
		}
		seen[t.dir] = true
		trees = append(trees, t)
		if t.opaque {
			break
		}
	}
	slices.Reverse(trees)
	return trees, nil
}

func names(trees []*tree) []string {
	out := make([]string, len(trees))
	for i, t := range trees {
		out[i] = t.name
	}
	return out
}

// View implements rootfs.Store. A tree that one directory shows is that
// directory: it is up to the caller not to write there.
func (s *Store) View(ctx context.Context, layers []rootfs.Layer) (rootfs.View, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	trees, err := stack(layers)
	if err != nil {
		return nil, err
	}
	release, err := s.state.Hold()
	if err != nil {
		return nil, err
	}
	defer release()
	v, err := s.view(trees)
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (s *Store) view(trees []*tree) (*view, error) {
	if len(trees) == 0 {
		return &view{store: s, path: s.path(emptyName)}, nil
	}
	if len(trees) == 1 && trees[0].plain {
		return &view{store: s, path: trees[0].dir}, nil
	}
	name, err := s.newDir("v")
	if err != nil {
		return nil, err
	}
	v := &view{store: s, path: s.path(name), mounted: true}
	options := slices.DeleteFunc(slices.Clone(s.options), func(o string) bool { return o == volatile })
	if err := mount(s.state.Dir(), v.path, names(trees), "", "", options); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting %d layers: %w", len(trees), err), os.Remove(v.path))
	}
	return v, nil
}

type view struct {
	store   *Store
	path    string
	mounted bool
}

func (v *view) Path() string { return v.path }

// StandIn implements rootfs.View.
func (v *view) StandIn() string { return v.store.standIn() }

// Release implements rootfs.View; it does nothing the second time and after the
// store was closed.
func (v *view) Release() error {
	if !v.mounted {
		return nil
	}
	release, err := v.store.state.Hold()
	if err != nil {
		return nil
	}
	defer release()
	return v.unmount()
}

func (v *view) unmount() error {
	if !v.mounted {
		return nil
	}
	v.mounted = false
	return errors.Join(unmount(v.path), os.Remove(v.path))
}

// Work implements rootfs.Store.
func (s *Store) Work(ctx context.Context, parents []rootfs.Layer) (rootfs.Work, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	trees, err := stack(parents)
	if err != nil {
		return nil, err
	}
	release, err := s.state.Hold()
	if err != nil {
		return nil, err
	}
	defer release()
	name, err := s.newDir("w")
	if err != nil {
		return nil, err
	}
	w := &work{store: s, parents: trees, name: name}
	if err := w.open(); err != nil {
		return nil, errors.Join(err, w.remove())
	}
	return w, nil
}

// work is a tree that is written to. In its directory are u, the upper
// directory, and w and m, which overlayfs works in and shows the tree at.
type work struct {
	store   *Store
	parents []*tree
	name    string
	mounted bool
	ended   bool
}

func (w *work) upper() string  { return w.store.path(w.name + "/u") }
func (w *work) merged() string { return w.store.path(w.name + "/m") }

// Path implements rootfs.Work. A tree without parents is a plain directory: in
// one that overlayfs shows, new directories would be marked to hide what is
// below them, and COPY --link puts such a layer on top of others.
func (w *work) Path() string {
	if len(w.parents) == 0 {
		return w.upper()
	}
	return w.merged()
}

func (w *work) open() error {
	if err := os.Mkdir(w.upper(), 0o755); err != nil {
		return err
	}
	if len(w.parents) == 0 {
		return os.Chmod(w.upper(), 0o755)
	}
	for _, dir := range []string{w.store.path(w.name + "/w"), w.merged()} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	// The root of the tree is what the upper directory itself is.
	if err := copyAttributes(w.parents[len(w.parents)-1].dir, w.upper()); err != nil {
		return fmt.Errorf("making the root of a tree: %w", err)
	}
	err := mount(w.store.state.Dir(), w.merged(), names(w.parents), w.name+"/u", w.name+"/w", w.store.options)
	if err != nil {
		return fmt.Errorf("mounting a tree of %d layers: %w", len(w.parents), err)
	}
	w.mounted = true
	return nil
}

func copyAttributes(from, to string) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return err
	}
	return errors.Join(
		unix.Lchown(to, int(st.Uid), int(st.Gid)),
		unix.Chmod(to, st.Mode&0o7777),
		unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW),
	)
}

// Commit implements rootfs.Work. When it fails the tree is gone. A layer is a
// directory of its own, whatever becomes of it.
func (w *work) Commit(ctx context.Context, _ ...rootfs.Hint) (_ rootfs.Layer, err error) {
	if w.ended {
		return nil, errors.New("the tree was committed or discarded before")
	}
	release, err := w.store.state.Hold()
	if err != nil {
		return nil, err
	}
	defer release()
	w.ended = true
	defer func() {
		if err != nil {
			err = errors.Join(err, w.remove())
		}
	}()
	if err := w.unmount(); err != nil {
		return nil, err
	}
	lower, err := w.store.view(w.parents)
	if err != nil {
		return nil, err
	}
	d := &differ{
		ctx: ctx, upper: w.upper(), lower: lower.Path(), scratch: len(w.parents) == 0,
		naming: w.store.naming, standIn: w.store.standIn(), looksLikeStandIn: w.store.looksLikeStandIn,
	}
	err = errors.Join(d.run(), lower.unmount())
	if err != nil {
		return nil, fmt.Errorf("finding what changed: %w", err)
	}
	if len(w.parents) > 0 {
		if err := errors.Join(os.Remove(w.merged()), os.RemoveAll(w.store.path(w.name+"/w"))); err != nil {
			return nil, err
		}
	}
	return w.store.keep(&tree{
		dir:     w.upper(),
		name:    w.name + "/u",
		plain:   d.scratch && !d.escaped,
		made:    true,
		changes: d.changes,
		naming:  w.store.naming,
	}), nil
}

// keep notes a layer that a work made.
func (s *Store) keep(t *tree) *tree {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made = append(s.made, t)
	return t
}

// Discard implements rootfs.Work; it does nothing after Commit.
func (w *work) Discard() error {
	if w.ended {
		return nil
	}
	release, err := w.store.state.Hold()
	if err != nil {
		// Close has removed the tree.
		return nil
	}
	defer release()
	w.ended = true
	return w.remove()
}

func (w *work) unmount() error {
	if !w.mounted {
		return nil
	}
	w.mounted = false
	return unmount(w.merged())
}

func (w *work) remove() error {
	return errors.Join(w.unmount(), os.RemoveAll(w.store.path(w.name)))
}
