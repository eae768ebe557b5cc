package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// UnpackOptions say how to read a tar. The zero value unpacks an archive that
// is no layer, as ADD does.
type UnpackOptions struct {
	// Whiteout is called for each whiteout, after everything else has been
	// unpacked and before the times of directories are set. When it is nil,
	// names that start with .wh. are like any other.
	Whiteout func(Whiteout) error
	// Dangling makes an entry behind a link that leads nowhere an error. Otherwise
	// the link's target is made.
	Dangling bool
	// Mtime replaces the time of an entry; it is called once for each, in their
	// order. Nil keeps them.
	Mtime func() (time.Time, error)
	// Chown is the owner of all entries instead of the archive's.
	Chown *Owner
	// Xattr renames or drops extended attributes; nil keeps them as they are.
	Xattr Rename
	// BestEffortXattrs passes over attributes that the file system or the
	// kernel refuses (ENOTSUP and EPERM).
	BestEffortXattrs bool
	// StandIn is the name of an extended attribute; see StandsFor. It is for
	// trees in a user namespace. Empty makes an error of what cannot be made.
	StandIn string
	// StoodIn, if any, is called for each stand-in for an owner.
	StoodIn func(Copy)
}

// Owner is a user and a group.
type Owner struct{ UID, GID int }

// Whiteout says that a layer hides something of the layers below it.
type Whiteout struct {
	// Dir is open for reading.
	Dir *os.File
	// Name is what is hidden in Dir; "" hides all that is in it. What this
	// layer has in Dir is not hidden.
	Name string
}

// Unpack unpacks an uncompressed tar below dir, which exists. Nothing outside
// of dir is read or written, whatever names and links the tar has: they are
// resolved as if dir were "/".
//
// Later entries replace earlier ones and what was there before; only a
// directory over a directory keeps what is in it. Directories that the tar has
// entries below but does not name belong to root, have mode 0755 and the time
// of the first such entry. An entry for dir itself is passed over, as in
// BuildKit. Unpack stops at the end of the tar, which need not be that of r.
func Unpack(ctx context.Context, r io.Reader, dir string, opts UnpackOptions) error {
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{
		ctx:  ctx,
		root: int(root.Fd()),
		tar:  tar.NewReader(r),
		opts: opts,
		dirs: map[string]attributes{},
		copy: newCopier(),
	}
	defer u.forget()
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		hdr, err := u.tar.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("reading a tar: %w", err)
		}
		if opts.Mtime != nil {
			if hdr.ModTime, err = opts.Mtime(); err != nil {
				return fmt.Errorf("unpacking %q: %w", hdr.Name, err)
			}
		}
		if err := u.next(hdr); err != nil {
			return fmt.Errorf("unpacking %q: %w", hdr.Name, err)
		}
	}
	for _, w := range u.whiteouts {
		if err := u.whiteout(w); err != nil {
			return fmt.Errorf("hiding %q: %w", path.Join(w.dir, w.name), err)
		}
	}
	return u.finishDirs()
}

type unpacker struct {
	ctx  context.Context
	root int
	tar  *tar.Reader
	opts UnpackOptions

	// parent is the directory of the last entry, whose name in the tar was
	// parentName. Nothing but the removal of an entry can make this wrong.
	parent     *directory
	parentName string
	// dirs are the directories whose attributes are set at the end, by the
	// paths of package directory: default ACLs, set-group-ID bits and times are
	// for what comes later, not for what this tar puts there.
	dirs      map[string]attributes
	whiteouts []whiteout

	copy copier
}

type whiteout struct {
	dir, name string
	time      time.Time
}

func (u *unpacker) next(hdr *tar.Header) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name := path.Clean("/" + hdr.Name)[1:]
	if name == "" {
		return nil
	}
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	if u.opts.Whiteout != nil {
		hidden, is, err := whiteoutOf(dir, base)
		if is && hidden != nil {
			u.whiteouts = append(u.whiteouts, whiteout{dir, *hidden, hdr.ModTime})
		}
		if is || err != nil {
			return err
		}
	}
	parent, err := u.directory(dir, hdr.ModTime)
	if err != nil {
		return err
	}
	return u.entry(parent, base, hdr)
}

// whiteoutOf reports whether the name base in dir is a whiteout, and what it
// hides there: everything when that is "", nothing when it is nil, as for what
// aufs left in old images.
func whiteoutOf(dir, base string) (hidden *string, is bool, err error) {
	name, ok := strings.CutPrefix(base, whiteoutPrefix)
	switch {
	case base == opaqueName:
		name = ""
	case strings.HasPrefix(base, aufsPrefix) || strings.Contains("/"+dir, "/"+aufsPrefix):
		return nil, true, nil
	case !ok:
		return nil, false, nil
	case name == "" || name == "." || name == "..":
		return nil, true, errors.New("this whiteout hides no name")
	}
	return &name, true, nil
}

func (u *unpacker) whiteout(w whiteout) error {
	dir, err := u.directory(w.dir, w.time)
	if err != nil {
		return err
	}
	f, err := dir.reopen()
	if err != nil {
		return err
	}
	defer f.Close()
	// What the handler removes may be on the way to the directory.
	defer u.forget()
	return u.opts.Whiteout(Whiteout{Dir: f, Name: w.name})
}

// directory opens the directory name; missing ones are made. The result is
// valid until the next call of directory or forget.
func (u *unpacker) directory(name string, mtime time.Time) (*directory, error) {
	if u.parent != nil && u.parentName == name {
		return u.parent, nil
	}
	u.forget()
	dir, err := openDirectory(u.root, name, func(parent *directory, name string, linked bool) error {
		if linked && u.opts.Dangling {
			return &os.PathError{Op: "open", Path: parent.entry(name), Err: unix.ENOENT}
		}
		if err := unix.Mkdirat(parent.fd, name, 0o700); err != nil {
			return err
		}
		u.dirs[parent.entry(name)] = u.attributes(&tar.Header{Mode: 0o755, ModTime: mtime})
		return nil
	})
	if err != nil {
		return nil, err
	}
	u.parent, u.parentName = dir, name
	return dir, nil
}

func (u *unpacker) forget() {
	if u.parent != nil {
		u.parent.close()
		u.parent = nil
	}
}

// finishDirs sets what waited for the end of the tar.
func (u *unpacker) finishDirs() error {
	names := make([]string, 0, len(u.dirs))
	for name := range u.dirs {
		names = append(names, name)
	}
	slices.SortFunc(names, comparePaths)
	for _, name := range names {
		if err := u.finishDir(name); err != nil {
			return fmt.Errorf("unpacking %q: %w", name, err)
		}
	}
	return nil
}

func (u *unpacker) finishDir(name string) error {
	dir, err := openDirectory(u.root, name, nil)
	// A later entry may have replaced it, or a directory above it.
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.close()
	if dir.path != name {
		return nil
	}
	f, err := dir.reopen()
	if err != nil {
		return err
	}
	defer f.Close()
	attrs := u.dirs[name]
	if err := attrs.setDir(int(f.Fd())); err != nil {
		return err
	}
	u.stoodIn(attrs, unix.S_IFDIR, 0)
	return nil
}

// reopen opens d for more than looking things up in it.
func (d *directory) reopen() (*os.File, error) {
	fd, err := unix.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: d.path, Err: err}
	}
	return os.NewFile(uintptr(fd), d.path), nil
}
