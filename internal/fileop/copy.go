package fileop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	cfs "github.com/containerd/continuity/fs"
	"github.com/tonistiigi/fsutil"
	fscopy "github.com/tonistiigi/fsutil/copy"

	"github.com/org/kaniko-multiarch/internal/graph"
)

// Copy copies c.Src from the tree at src to c.Dest in the tree at dst, or
// unpacks it there. A nil owner keeps the owners of the source. The error is a
// *NotFoundError when the source does not exist.
func Copy(ctx context.Context, dst, src string, c *graph.Copy, owner *ID, warn Warn) error {
	return copyFrom(ctx, dst, Source{Dir: src}, c, owner, warn)
}

func copyFrom(ctx context.Context, dst string, src Source, c *graph.Copy, owner *ID, warn Warn) error {
	job := copyJob{
		Copy:  c,
		src:   filepath.Clean(src.Dir),
		dst:   filepath.Clean(dst),
		to:    cleanPath(c.Dest),
		owner: owner,
		warn:  warn,
		spare: src.Spare,
	}
	err := job.run(ctx)
	if _, ok := errors.AsType[*NotFoundError](err); ok || err == nil {
		return err
	}
	return fmt.Errorf("copying %s to %s: %w", c.Src, c.Dest, inTree(err, job.dst, job.src))
}

type copyJob struct {
	*graph.Copy
	src, dst string
	// to is the clean Dest; a slash at its end counts.
	to    string
	owner *ID
	warn  Warn
	spare bool
}

func (j *copyJob) run(ctx context.Context) error {
	if !j.MakeDest {
		if err := j.checkParent(); err != nil {
			return err
		}
	}
	sources, err := j.sources()
	if err != nil {
		return err
	}
	req := newRequired(j.Copy)
	for _, name := range sources {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := j.one(ctx, name, req); err != nil {
			return err
		}
	}
	return req.check()
}

func (j *copyJob) checkParent() error {
	p, err := cfs.RootPath(j.dst, filepath.Join("/", j.Dest))
	if err != nil {
		return err
	}
	_, err = os.Lstat(filepath.Dir(p))
	return err
}

// sources lists what Src stands for.
func (j *copyJob) sources() ([]string, error) {
	from := cleanPath(j.Src)
	if !j.Wildcard {
		return []string{from}, nil
	}
	found, err := fscopy.ResolveWildcards(j.src, from, j.FollowSymlink)
	if isMissing(err) {
		return nil, &NotFoundError{Path: filepath.Clean(from)}
	}
	if err != nil {
		return nil, err
	}
	if len(found) == 0 && !j.AllowEmpty {
		return nil, &NotFoundError{Path: filepath.Clean(from)}
	}
	return found, nil
}

func (j *copyJob) one(ctx context.Context, name string, req *required) (err error) {
	fi, err := j.stat(name)
	if isMissing(err) {
		return &NotFoundError{Path: req.first(path.Join("/", name))}
	}
	if err != nil {
		return err
	}
	if j.Unpack {
		if done, err := j.unpack(ctx, name); done || err != nil {
			return err
		}
	}
	notify, err := j.notifier(name, fi.IsDir(), req)
	if err != nil {
		return err
	}
	if !j.movable(fi) {
		return j.copy(ctx, name, notify)
	}
	aside, err := os.MkdirTemp(filepath.Dir(j.src), "moved-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(aside)) }()
	list, err := j.setAside(name, aside)
	if err != nil {
		return err
	}
	if err := j.copy(ctx, name, notify); err != nil {
		return err
	}
	return bring(list)
}

func (j *copyJob) copy(ctx context.Context, name string, notify fsutil.ChangeFunc) error {
	return fscopy.Copy(ctx, j.src, name, j.dst, j.to, func(ci *fscopy.CopyInfo) {
		ci.Chown = chowner(j.owner)
		ci.Utime = j.Time
		ci.IncludePatterns = j.Include
		ci.ExcludePatterns = j.Exclude
		ci.CopyDirContents = j.ContentsOnly
		ci.FollowLinks = j.FollowSymlink
		ci.AlwaysReplaceExistingDestPaths = j.Replace
		ci.XAttrErrorHandler = j.xattrFailed
		ci.ChangeFunc = notify
		if j.ModeString != "" {
			ci.ModeStr = j.ModeString
		} else if j.Mode != nil {
			m := int(*j.Mode)
			ci.Mode = &m
		}
	})
}

// stat looks at what will be copied: at the target of a link that Src is, when
// links are to be followed.
func (j *copyJob) stat(name string) (fs.FileInfo, error) {
	p, err := j.resolve(name)
	if err != nil {
		return nil, err
	}
	return os.Lstat(p)
}

// resolve is where the source name is on the disk.
func (j *copyJob) resolve(name string) (string, error) {
	name = filepath.Join("/", name)
	if j.FollowSymlink || name == "/" {
		return cfs.RootPath(j.src, name)
	}
	dir, err := cfs.RootPath(j.src, filepath.Dir(name))
	return filepath.Join(dir, filepath.Base(name)), err
}

// notifier tells req what is copied. The copier reports paths in dst, required
// paths are those in src.
func (j *copyJob) notifier(name string, isDir bool, req *required) (fsutil.ChangeFunc, error) {
	if req == nil {
		return nil, nil
	}
	landing, err := j.landing(name, isDir)
	if err != nil {
		return nil, err
	}
	landing = path.Join("/", strings.TrimPrefix(landing, j.dst))
	return func(_ fsutil.ChangeKind, p string, _ fs.FileInfo, _ error) error {
		req.copied(path.Join("/", name, strings.TrimPrefix(path.Join("/", p), landing)))
		return nil
	}, nil
}

// landing is where the copy of the source name will be on the disk.
func (j *copyJob) landing(name string, isDir bool) (string, error) {
	landing, err := cfs.RootPath(j.dst, filepath.Clean(j.to))
	if err != nil {
		return "", err
	}
	if !isDir || !j.ContentsOnly {
		if fi, err := os.Stat(landing); err == nil && fi.IsDir() {
			landing = filepath.Join(landing, filepath.Base(name))
		}
	}
	return landing, nil
}

// xattrFailed carries on without the attribute, as BuildKit does: many file
// systems lack some. A lost capability breaks programs, so it is not silent.
func (j *copyJob) xattrFailed(dst, _, key string, err error) error {
	if key == "security.capability" {
		errno, _ := errors.AsType[syscall.Errno](err)
		j.warn.say("%s lost its capabilities, which its file system here cannot hold: %v", filepath.Base(dst), errno)
	}
	return nil
}

// required keeps track of the paths that must have been copied.
type required struct {
	paths []string
	found map[string]bool
}

func newRequired(c *graph.Copy) *required {
	if len(c.Required) == 0 || len(c.Include) == 0 {
		return nil
	}
	return &required{paths: c.Required, found: map[string]bool{}}
}

// first is the path to complain about when nothing at all is there.
func (r *required) first(other string) string {
	if r == nil {
		return other
	}
	return r.paths[0]
}

func (r *required) copied(p string) {
	for _, want := range r.paths {
		if strings.HasPrefix(p, want) {
			r.found[want] = true
		}
	}
}

func (r *required) check() error {
	if r == nil {
		return nil
	}
	for _, want := range r.paths {
		if !r.found[want] {
			return &NotFoundError{Path: want}
		}
	}
	return nil
}

// cleanPath makes p absolute and clean, but keeps "/" or "/." at its end: they
// say that p is a directory.
func cleanPath(p string) string {
	clean := path.Join("/", p)
	if clean == "/" {
		return clean
	}
	switch {
	case strings.HasSuffix(p, "/."):
		return clean + "/."
	case strings.HasSuffix(p, "/"):
		return clean + "/"
	}
	return clean
}
