package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Scan reads an uncompressed layer and returns the root of what Unpack, with a
// handler for whiteouts, would make of it in an empty directory. Contents stay
// in the tar. A tar that can be sought in is read from its current position,
// which counts as its start and must be the start of the file; that of others
// is read up to its end, and no further.
func Scan(ctx context.Context, r io.Reader) (*Node, error) {
	pos := &position{r: r}
	if seeker, ok := r.(io.ReadSeeker); ok {
		pos.seeker = seeker
		r = seeker
	} else {
		r = pos
	}
	s := &scanner{
		tar:  tar.NewReader(r),
		root: &Node{Mode: unix.S_IFDIR | 0o755, Children: map[string]*Node{}},
	}
	for next := int64(0); ; {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		hdr, err := s.tar.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading a tar: %w", err)
		}
		content, err := pos.offset()
		if err != nil {
			return nil, err
		}
		if err := s.next(hdr, next, content); err != nil {
			return nil, fmt.Errorf("reading %q: %w", hdr.Name, err)
		}
		if next, err = s.end(hdr, content, pos); err != nil {
			return nil, fmt.Errorf("reading %q: %w", hdr.Name, err)
		}
	}
	for _, w := range s.whiteouts {
		dir, err := s.directory(w.dir, w.time)
		if err != nil {
			return nil, fmt.Errorf("hiding %q: %w", path.Join(w.dir, w.name), err)
		}
		if w.name == "" {
			dir.Opaque = true
		} else {
			dir.Whiteouts = append(dir.Whiteouts, w.name)
		}
	}
	return s.root, nil
}

// position counts what was read of a stream, or asks a file.
type position struct {
	r      io.Reader
	n      int64
	seeker io.Seeker
}

func (p *position) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n += int64(n)
	return n, err
}

func (p *position) offset() (int64, error) {
	if p.seeker != nil {
		return p.seeker.Seek(0, io.SeekCurrent)
	}
	return p.n, nil
}

type scanner struct {
	tar  *tar.Reader
	root *Node
	// last is the directory lastName; nil after something was replaced.
	last      *Node
	lastName  string
	whiteouts []whiteout
}

const block = 512

// end returns where the next entry starts.
func (s *scanner) end(hdr *tar.Header, content int64, pos *position) (int64, error) {
	switch {
	case isSparse(hdr):
		if _, err := io.Copy(io.Discard, s.tar); err != nil {
			return 0, err
		}
		var err error
		if content, err = pos.offset(); err != nil {
			return 0, err
		}
	case isRegular(hdr):
		content += hdr.Size
	}
	return (content + block - 1) / block * block, nil
}

func isRegular(hdr *tar.Header) bool {
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return true
	}
	return false
}

func isSparse(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for record := range hdr.PAXRecords {
		if strings.HasPrefix(record, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (s *scanner) next(hdr *tar.Header, header, content int64) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name := path.Clean("/" + hdr.Name)[1:]
	if name == "" {
		return nil
	}
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	hidden, is, err := whiteoutOf(dir, base)
	if is && hidden != nil {
		s.whiteouts = append(s.whiteouts, whiteout{dir, *hidden, hdr.ModTime})
	}
	if is || err != nil {
		return err
	}
	parent, err := s.directory(dir, hdr.ModTime)
	if err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeLink {
		return s.link(parent, base, hdr.Linkname)
	}
	n, err := newNode(hdr)
	if err != nil {
		return err
	}
	n.header, n.content = header, content
	old := parent.Children[base]
	if n.IsDir() && old != nil && old.IsDir() {
		n.Children = old.Children
		*old = *n
		return nil
	}
	s.place(parent, base, n)
	return nil
}

func (s *scanner) place(dir *Node, name string, n *Node) {
	if old := dir.Children[name]; old != nil {
		s.last = nil
		old.forget()
	}
	dir.Children[name] = n
}

// forget keeps Links right when a name goes.
func (n *Node) forget() {
	n.Links--
	for _, c := range n.Children {
		c.forget()
	}
}

func newNode(hdr *tar.Header) (*Node, error) {
	a := attributesOf(hdr, UnpackOptions{})
	if err := a.check(); err != nil {
		return nil, err
	}
	n := &Node{Mode: a.mode, UID: a.uid, GID: a.gid, Mtime: a.mtime, Xattrs: a.xattrs, Links: 1}
	switch hdr.Typeflag {
	case tar.TypeDir:
		n.Mode |= unix.S_IFDIR
		n.Children = map[string]*Node{}
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		n.Mode |= unix.S_IFREG
		n.Size = hdr.Size
		n.sparse = isSparse(hdr)
	case tar.TypeSymlink:
		n.Mode |= unix.S_IFLNK
		n.Target = hdr.Linkname
	case tar.TypeFifo:
		n.Mode |= unix.S_IFIFO
	case tar.TypeChar, tar.TypeBlock:
		n.Mode |= unix.S_IFCHR
		if hdr.Typeflag == tar.TypeBlock {
			n.Mode ^= unix.S_IFCHR ^ unix.S_IFBLK
		}
		n.Rdev = unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))
	default:
		return nil, fmt.Errorf("entries of type %q are unknown", hdr.Typeflag)
	}
	return n, nil
}

func (s *scanner) link(dir *Node, name, target string) error {
	target = path.Clean("/" + target)[1:]
	targetDir, targetName := path.Split(target)
	from, err := s.walk(targetDir, nil)
	if err != nil {
		return fmt.Errorf("finding what it is a link to: %w", err)
	}
	if from == dir && targetName == name {
		return nil
	}
	n := from.Children[targetName]
	if n == nil {
		return fmt.Errorf("finding what it is a link to, %q: %w", target, unix.ENOENT)
	}
	if n.IsDir() {
		return fmt.Errorf("it is a hard link to a directory, %q", target)
	}
	n.Links++
	s.place(dir, name, n)
	return nil
}

// directory finds the directory name; missing ones are made.
func (s *scanner) directory(name string, mtime time.Time) (*Node, error) {
	if s.last != nil && s.lastName == name {
		return s.last, nil
	}
	dir, err := s.walk(name, func() (*Node, error) {
		return newNode(&tar.Header{Typeflag: tar.TypeDir, Mode: 0o755, ModTime: mtime})
	})
	if err != nil {
		return nil, err
	}
	s.last, s.lastName = dir, name
	return dir, nil
}

// walk is openDirectory for nodes.
func (s *scanner) walk(name string, missing func() (*Node, error)) (*Node, error) {
	above := []*Node{s.root}
	links := 0
	rest := strings.Split(name, "/")
	for len(rest) > 0 {
		step := rest[0]
		rest = rest[1:]
		here := above[len(above)-1]
		switch step {
		case "", ".":
			continue
		case "..":
			if len(above) > 1 {
				above = above[:len(above)-1]
			}
			continue
		}
		n := here.Children[step]
		if n == nil {
			if missing == nil {
				return nil, &os.PathError{Op: "open", Path: name, Err: unix.ENOENT}
			}
			var err error
			if n, err = missing(); err != nil {
				return nil, err
			}
			here.Children[step] = n
		}
		switch n.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			above = append(above, n)
			continue
		case unix.S_IFLNK:
		default:
			return nil, &os.PathError{Op: "open", Path: name, Err: unix.ENOTDIR}
		}
		if links++; links > maxLinks {
			return nil, &os.PathError{Op: "open", Path: name, Err: unix.ELOOP}
		}
		if n.Target == "" {
			return nil, &os.PathError{Op: "open", Path: name, Err: errors.New("an empty symbolic link")}
		}
		if strings.HasPrefix(n.Target, "/") {
			above = above[:1]
		}
		rest = append(strings.Split(n.Target, "/"), rest...)
	}
	return above[len(above)-1], nil
}
