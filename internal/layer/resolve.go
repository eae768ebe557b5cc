package layer

import (
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links one path may go through, as in the
// kernel.
const maxLinks = 40

// directory is an open directory (O_PATH) within a root.
type directory struct {
	fd int
	// path has no symbolic link in it; "." is the root.
	path string
}

func (d *directory) close() { unix.Close(d.fd) }

// entry is the path of something in d.
func (d *directory) entry(name string) string { return path.Join(d.path, name) }

// openDirectory opens the directory name as a process would whose "/" is root:
// neither ".." nor a symbolic link leads out. Missing directories are made by
// mkdir, which is told whether a link leads there; a nil mkdir makes them an error.
//
// openat2(2) with RESOLVE_IN_ROOT would do the first part; walking works where
// it is not allowed as well, and is needed to make directories behind links.
func openDirectory(root int, name string, mkdir func(parent *directory, name string, linked bool) error) (_ *directory, err error) {
	top, err := openStep(root, ".")
	if err != nil {
		return nil, err
	}
	above := []*directory{{top, "."}}
	defer func() {
		for _, d := range above {
			d.close()
		}
	}()

	links := 0
	// ofLinks is how many of the steps ahead are links' targets'.
	ofLinks := 0
	rest := strings.Split(name, "/")
	for len(rest) > 0 {
		step := rest[0]
		rest = rest[1:]
		linked := ofLinks > 0
		ofLinks = max(0, ofLinks-1)
		here := above[len(above)-1]
		switch step {
		case "", ".":
			continue
		case "..":
			if len(above) > 1 {
				here.close()
				above = above[:len(above)-1]
			}
			continue
		}

		fd, err := openStep(here.fd, step)
		if errors.Is(err, unix.ENOENT) && mkdir != nil {
			if err := mkdir(here, step, linked); err != nil {
				return nil, err
			}
			fd, err = openStep(here.fd, step)
		}
		if err == nil {
			above = append(above, &directory{fd, here.entry(step)})
			continue
		}
		if !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			return nil, &os.PathError{Op: "open", Path: here.entry(step), Err: err}
		}

		target, lerr := readlinkat(here.fd, step)
		if lerr != nil {
			return nil, &os.PathError{Op: "open", Path: here.entry(step), Err: unix.ENOTDIR}
		}
		if links++; links > maxLinks {
			return nil, &os.PathError{Op: "open", Path: name, Err: unix.ELOOP}
		}
		if strings.HasPrefix(target, "/") {
			for _, d := range above[1:] {
				d.close()
			}
			above = above[:1]
		}
		steps := strings.Split(target, "/")
		ofLinks += len(steps)
		rest = append(steps, rest...)
	}

	last := above[len(above)-1]
	above = above[:len(above)-1]
	return last, nil
}

func openStep(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func readlinkat(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
