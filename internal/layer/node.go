package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Node is a file, a directory or something else that a layer holds. Names that
// are hard links to each other have one Node.
type Node struct {
	// Mode is the type and the permissions, as in st_mode.
	Mode     uint32
	UID, GID int
	Mtime    unix.Timespec
	Xattrs   map[string]string
	// Size is that of a regular file, in bytes.
	Size int64
	// Target is where a symbolic link leads.
	Target string
	// Rdev is the number of a device.
	Rdev uint64
	// Links is how many names the layer has for a Node that is no directory.
	Links int

	// The rest is for directories.
	Children map[string]*Node
	// Whiteouts are the names that the layer hides of the layers below it, what
	// is in Children not counted; Opaque hides all.
	Whiteouts []string
	Opaque    bool

	// header and content are where the entry and its data start in the tar.
	header, content int64
	// sparse says that the data are not stored as one piece.
	sparse bool
}

// IsDir reports whether n is a directory.
func (n *Node) IsDir() bool { return n.Mode&unix.S_IFMT == unix.S_IFDIR }

// Open returns the content of a regular file, given the tar that was scanned.
func (n *Node) Open(from io.ReaderAt) (io.Reader, error) {
	if !n.sparse {
		return io.NewSectionReader(from, n.content, n.Size), nil
	}
	t := tar.NewReader(io.NewSectionReader(from, n.header, 1<<62))
	_, err := t.Next()
	return t, err
}

func (n *Node) attributes() attributes {
	return attributes{uid: n.UID, gid: n.GID, mode: n.Mode & 0o7777, mtime: n.Mtime, xattrs: n.Xattrs, bestEffort: true}
}

// Maker makes files of nodes. It is for one goroutine at a time.
type Maker struct{ copy copier }

// NewMaker returns a Maker.
func NewMaker() *Maker { return &Maker{copy: newCopier()} }

// Make makes n, whose content is in the tar that was scanned, under a new name
// in the open directory dir. Attributes that the file system or the kernel
// refuses are passed over, and a directory has none before Finish.
func (m *Maker) Make(ctx context.Context, n *Node, from io.ReaderAt, dir int, name string) error {
	attrs := n.attributes()
	switch kind := n.Mode & unix.S_IFMT; kind {
	case unix.S_IFDIR:
		return unix.Mkdirat(dir, name, 0o700)
	case unix.S_IFREG:
		if err := m.regular(ctx, n, from, dir, name); err != nil {
			return err
		}
	case unix.S_IFLNK:
		if err := unix.Symlinkat(n.Target, dir, name); err != nil {
			return err
		}
		return attrs.set(dir, name, false)
	default:
		if err := unix.Mknodat(dir, name, kind|0o600, int(n.Rdev)); err != nil {
			return err
		}
	}
	return attrs.set(dir, name, true)
}

func (m *Maker) regular(ctx context.Context, n *Node, from io.ReaderAt, dir int, name string) error {
	content, err := n.Open(from)
	if err != nil {
		return fmt.Errorf("reading its content: %w", err)
	}
	fd, err := createFile(dir, name)
	if err != nil {
		return err
	}
	err = m.copy.content(ctx, fd, content, n.Size)
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}

// Finish sets the attributes of an open directory once all that n's tree has in
// it was made: default ACLs and times are for what comes later.
func (n *Node) Finish(dir int) error {
	attrs := n.attributes()
	return attrs.setDir(dir)
}
