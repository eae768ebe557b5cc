// Package filetree reads trees of files wherever they are, and finds in them
// what the copier finds on a disk: symbolic links are followed as if the tree
// were "/", and wildcards match as BuildKit's do.
//
// It must not know what a tree is for.
package filetree

import (
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/layer"
)

// Tree is a tree of files. Names are clean and begin with "/". What is not there
// is an fs.ErrNotExist. It is safe for concurrent use.
type Tree interface {
	// Lstat does not follow a link at the end of name.
	Lstat(name string) (*Stat, error)
	// ReadDir returns the sorted names in a directory.
	ReadDir(name string) ([]string, error)
	// Xattrs are those that a layer carries.
	Xattrs(name string) (map[string]string, error)
	// Open opens a regular file.
	Open(name string) (io.ReadCloser, error)
}

// Stat is what is known of a file without reading it.
type Stat struct {
	// Mode is st_mode, with the type of the file.
	Mode, UID, GID uint32
	// Rdev is the number of a device, 0 for others.
	Rdev uint64
	// Target is where a symbolic link leads.
	Target string
	// Links identifies a file that has several names; nil for others.
	Links any
}

func (s *Stat) kind() uint32 { return s.Mode & unix.S_IFMT }

// IsDir reports whether it is a directory.
func (s *Stat) IsDir() bool { return s.kind() == unix.S_IFDIR }

// IsLink reports whether it is a symbolic link.
func (s *Stat) IsLink() bool { return s.kind() == unix.S_IFLNK }

// IsRegular reports whether it is a file with content.
func (s *Stat) IsRegular() bool { return s.kind() == unix.S_IFREG }

// Dir is the tree in a directory.
type Dir string

var _ Tree = Dir("")

type inode struct{ dev, ino uint64 }

// Lstat implements Tree.
func (d Dir) Lstat(name string) (*Stat, error) {
	file := string(d) + name
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: file, Err: err}
	}
	s := &Stat{Mode: st.Mode, UID: st.Uid, GID: st.Gid}
	switch s.kind() {
	case unix.S_IFCHR, unix.S_IFBLK:
		s.Rdev = uint64(st.Rdev)
	case unix.S_IFLNK:
		var err error
		if s.Target, err = os.Readlink(file); err != nil {
			return nil, err
		}
	}
	if !s.IsDir() && st.Nlink > 1 {
		s.Links = inode{uint64(st.Dev), st.Ino}
	}
	return s, nil
}

// ReadDir implements Tree.
func (d Dir) ReadDir(name string) ([]string, error) {
	list, err := os.ReadDir(string(d) + name)
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names, err
}

// Xattrs implements Tree.
func (d Dir) Xattrs(name string) (map[string]string, error) {
	return layer.Xattrs(string(d)+name, nil)
}

// Open implements Tree.
func (d Dir) Open(name string) (io.ReadCloser, error) {
	return os.OpenFile(string(d)+name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
}
