package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// WriteOptions change what a tar says about the files.
type WriteOptions struct {
	// MaxTime, in seconds since 1970, replaces all later modification times;
	// nil keeps them.
	MaxTime *int64
	// NoContent leaves out what is in files: the tar says what there is, and is no
	// layer.
	NoContent bool
	// Xattr renames or drops extended attributes; nil keeps them as they are.
	Xattr Rename
}

// Write writes changes of the tree at root as an uncompressed OCI layer. The
// order of changes does not matter.
//
// Equal trees give equal bytes: entries are sorted, each after its parent
// directories, which are added when they did not change themselves. A PAX
// record is there only for what a ustar header cannot say. There are no user or
// group names and no access times. The first of several changed names of a file
// holds it, the others are links to that. A deletion is a plain whiteout of
// 1970. The root itself and sockets are left out, as BuildKit does.
func Write(ctx context.Context, w io.Writer, root string, changes []Change, opts WriteOptions) error {
	sorted := slices.SortedFunc(slices.Values(changes), func(a, b Change) int { return comparePaths(a.Path, b.Path) })
	t := &writer{
		tar:   tar.NewWriter(w),
		root:  root,
		opts:  opts,
		dirs:  map[string]bool{".": true},
		links: map[inode]string{},
		buf:   make([]byte, 256<<10),
	}
	for i, c := range sorted {
		if err := c.check(); err != nil {
			return err
		}
		if i > 0 && sorted[i-1].Path == c.Path {
			return fmt.Errorf("%q is listed as changed twice", c.Path)
		}
	}
	err := lookAhead(ctx, sorted, t.look, func(c Change, f *found) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := t.change(ctx, c, f); err != nil {
			return fmt.Errorf("adding %q to the layer: %w", c.Path, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return t.tar.Close()
}

type inode struct{ dev, ino uint64 }

type writer struct {
	tar  *tar.Writer
	root string
	opts WriteOptions
	// dirs are the directories that the tar holds already.
	dirs map[string]bool
	// links are the names under which files with several names are in the tar.
	links map[inode]string
	buf   []byte
}

func (t *writer) change(ctx context.Context, c Change, f *found) error {
	if c.Kind == Delete {
		if err := t.parents(c.Path); err != nil {
			return err
		}
		dir, base := path.Split(c.Path)
		return t.tar.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg,
			Name:     dir + whiteoutPrefix + base,
			ModTime:  time.Unix(0, 0),
			Format:   tar.FormatPAX,
		})
	}
	if f.err != nil {
		return f.err
	}
	if f.is.Mode&unix.S_IFMT == unix.S_IFSOCK {
		return nil
	}
	if err := t.parents(c.Path); err != nil {
		return err
	}
	if f.is.Mode&unix.S_IFMT == unix.S_IFDIR {
		return t.dir(c.Path, f)
	}
	return t.file(ctx, c.Path, f)
}

func (t *writer) full(name string) string { return filepath.Join(t.root, name) }

// parents writes the directories above name that are not in the tar yet.
func (t *writer) parents(name string) error {
	dir := path.Dir(name)
	if t.dirs[dir] {
		return nil
	}
	if err := t.parents(dir); err != nil {
		return err
	}
	f := t.look(dir)
	if f.err != nil {
		return f.err
	}
	if f.is.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("%q is not a directory", dir)
	}
	return t.dir(dir, f)
}

func (t *writer) dir(name string, f *found) error {
	t.dirs[name] = true
	hdr := t.header(name+"/", &f.is)
	hdr.Typeflag = tar.TypeDir
	if err := addXattrs(hdr, f.xattrs); err != nil {
		return err
	}
	return t.tar.WriteHeader(hdr)
}

func (t *writer) file(ctx context.Context, name string, f *found) error {
	st := &f.is
	hdr := t.header(name, st)
	if st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino}
		if first, ok := t.links[id]; ok {
			hdr.Typeflag, hdr.Linkname = tar.TypeLink, first
			return t.tar.WriteHeader(hdr)
		}
		t.links[id] = name
	}
	if err := addXattrs(hdr, f.xattrs); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		switch {
		case f.read:
			return t.small(hdr, f)
		case !t.opts.NoContent:
			return t.regular(ctx, name, hdr)
		}
		hdr.Typeflag = tar.TypeReg
	case unix.S_IFLNK:
		target, err := os.Readlink(t.full(name))
		if err != nil {
			return err
		}
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, target
	case unix.S_IFIFO:
		hdr.Typeflag = tar.TypeFifo
	case unix.S_IFCHR:
		hdr.Typeflag = tar.TypeChar
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	case unix.S_IFBLK:
		hdr.Typeflag = tar.TypeBlock
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	default:
		return fmt.Errorf("unknown file type %#o", st.Mode&unix.S_IFMT)
	}
	return t.tar.WriteHeader(hdr)
}

func (t *writer) regular(ctx context.Context, name string, hdr *tar.Header) error {
	f, err := os.OpenFile(t.full(name), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	hdr.Typeflag, hdr.Size = tar.TypeReg, fi.Size()
	if err := t.tar.WriteHeader(hdr); err != nil {
		return err
	}
	n, err := io.CopyBuffer(t.tar, io.LimitReader(contextReader{ctx, f}, hdr.Size), t.buf)
	if err != nil {
		return err
	}
	return shrank(hdr.Size, n)
}

// small writes a file that was read before.
func (t *writer) small(hdr *tar.Header, f *found) error {
	hdr.Typeflag, hdr.Size = tar.TypeReg, f.is.Size
	if err := shrank(hdr.Size, int64(len(f.content))); err != nil {
		return err
	}
	if err := t.tar.WriteHeader(hdr); err != nil {
		return err
	}
	_, err := t.tar.Write(f.content)
	return err
}

func shrank(from, to int64) error {
	if from != to {
		return fmt.Errorf("the file shrank from %d to %d bytes while it was read", from, to)
	}
	return nil
}

// header is what all types of entries have.
func (t *writer) header(name string, st *unix.Stat_t) *tar.Header {
	mtime := time.Unix(st.Mtim.Unix())
	if t.opts.MaxTime != nil && mtime.After(time.Unix(*t.opts.MaxTime, 0)) {
		mtime = time.Unix(*t.opts.MaxTime, 0)
	}
	return &tar.Header{
		Name:    name,
		Mode:    int64(st.Mode & 0o7777),
		Uid:     int(st.Uid),
		Gid:     int(st.Gid),
		ModTime: mtime,
		Format:  tar.FormatPAX,
	}
}

func addXattrs(hdr *tar.Header, attrs map[string]string) error {
	if len(attrs) == 0 {
		return nil
	}
	hdr.PAXRecords = make(map[string]string, len(attrs))
	for attr, value := range attrs {
		if strings.Contains(attr, "=") {
			return fmt.Errorf("a tar cannot hold the extended attribute %q, whose name has a '=' in it: remove it in the step that sets it", attr)
		}
		hdr.PAXRecords[paxXattr+attr] = value
	}
	return nil
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
