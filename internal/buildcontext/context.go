// Package buildcontext is about where the files of a build come from: it opens
// a context, reads single files of it, and copies a selection of it into a
// directory, with the metadata that BuildKit's client would send.
//
// It must not know what a Dockerfile or a graph is, nor which files a build
// needs.
package buildcontext

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	cfs "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// ErrUnsupported is a kind of context that this version cannot open.
var ErrUnsupported = errors.New("not supported in this version")

// Context is an open directory. It stays open, and its methods go on to work,
// when the directory is moved. It is safe for concurrent use.
type Context struct {
	root *os.Root
	dir  *os.File
	// path names dir by its descriptor, so it stays true when dir is moved.
	path string
	// hidden are files that no copy has.
	hidden []fs.FileInfo
}

// Hide leaves a file out of all copies, if it lies in the context: one with
// credentials, which a CI job may have to keep where its other files are. Its
// name there counts, and not links to it.
func (c *Context) Hide(file string) {
	if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
		c.hidden = append(c.hidden, info)
	}
}

// hides reports whether a file of the context is hidden.
func (c *Context) hides(d fs.DirEntry) bool {
	for _, h := range c.hidden {
		if h.Name() != d.Name() {
			continue
		}
		if info, err := d.Info(); err == nil && os.SameFile(info, h) {
			return true
		}
	}
	return false
}

// scheme matches what stands before the rest of a URL. A colon alone is part of
// a file name.
var scheme = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*)://`)

// Open opens the context at location: a directory, or the same as a file:// or
// dir:// URL. Other URLs are an ErrUnsupported. The errors name the fix.
func Open(location string) (*Context, error) {
	dir, err := localPath(location)
	if err != nil {
		return nil, err
	}
	// OpenRoot has no errno for a file.
	if fi, err := os.Stat(dir); err != nil {
		return nil, openError(dir, err)
	} else if !fi.IsDir() {
		return nil, openError(dir, syscall.ENOTDIR)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, openError(dir, err)
	}
	f, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, openError(dir, err)
	}
	path := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	return &Context{root: root, dir: f, path: path}, nil
}

// Dir is the directory of a context that is one, and empty for others.
func Dir(location string) string {
	dir, err := localPath(location)
	if err != nil {
		return ""
	}
	return dir
}

func localPath(path string) (string, error) {
	if path == "" {
		return "", errors.New("no context given: name a directory, \".\" for the current one")
	}
	if path == "-" {
		return "", unsupported("a context from standard input", "unpack it into a directory")
	}
	m := scheme.FindStringSubmatch(path)
	if m == nil {
		if strings.HasPrefix(path, "git@") && strings.Contains(path, ":") {
			return "", unsupported("a git context", "clone the repository")
		}
		return path, nil
	}
	// The rest of the URL stays out of messages: it can hold a password.
	switch s := strings.ToLower(m[1]); s {
	case "dir":
		return path[len(m[0]):], nil
	case "file":
		u, err := url.Parse(path)
		if err != nil || u.Path == "" || (u.Host != "" && u.Host != "localhost") {
			return "", errors.New("a file URL has an absolute path and no host: file:///path/to/directory")
		}
		return u.Path, nil
	case "git", "ssh":
		return "", unsupported("a "+s+":// context", "clone the repository")
	case "tar":
		return "", unsupported("a tar:// context", "unpack the archive")
	default:
		return "", unsupported("a "+s+":// context", "download and unpack it")
	}
}

func unsupported(what, first string) error {
	return fmt.Errorf("%s is %w: %s first and give the directory", what, ErrUnsupported, first)
}

func openError(dir string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("context directory %s does not exist: %w", dir, fs.ErrNotExist)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("context %s is not a directory: give the directory that the file is in: %w", dir, syscall.ENOTDIR)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("context directory %s: %w: run as a user who may read it", dir, fs.ErrPermission)
	}
	return fmt.Errorf("opening context directory: %w", err)
}

// Close makes the context unusable.
func (c *Context) Close() error {
	return errors.Join(c.dir.Close(), c.root.Close())
}

// ReadFile reads a regular file. Symbolic links are followed as if the context
// were "/". A missing file is an fs.ErrNotExist.
func (c *Context) ReadFile(name string) ([]byte, error) {
	name = strings.TrimPrefix(filepath.Join("/", name), "/")
	return fs.ReadFile(c.FS(), name)
}

// FS is the context as a file system, with the links of ReadFile. Only regular
// files and directories can be opened in it.
func (c *Context) FS() fs.FS { return contextFS{c} }

type contextFS struct{ c *Context }

func (x contextFS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	f, err := x.c.open(name)
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return f, nil
}

// Resolve returns the path in the context that a name leads to: links are followed
// as in ReadFile.
func (c *Context) Resolve(name string) (string, error) {
	real, err := cfs.RootPath(c.path, name)
	if err != nil {
		return "", err
	}
	return filepath.Rel(c.path, real)
}

func (c *Context) open(name string) (*os.File, error) {
	rel, err := c.Resolve(name)
	if err != nil {
		return nil, err
	}
	fi, err := c.root.Lstat(rel)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() && !fi.IsDir() {
		return nil, errors.New("neither a file nor a directory")
	}
	return c.root.OpenFile(rel, os.O_RDONLY|unix.O_NONBLOCK, 0)
}
