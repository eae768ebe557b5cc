package buildcontext

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// Selection picks files of a context, in .dockerignore syntax.
type Selection struct {
	// Include and FollowPaths name what to take; both empty means everything.
	// Links in FollowPaths are taken together with what they point to.
	Include, FollowPaths []string
	// Exclude names what to leave out of that.
	Exclude []string
}

// Materialize copies the selected files into dst, an empty directory that must
// not be a selected part of the context. Everything there belongs to 0:0; modes,
// times, links, devices, pipes and extended attributes are those of the context.
// Sockets are left out.
func (c *Context) Materialize(ctx context.Context, dst string, sel Selection) error {
	// The writer holds on to a context that only its parent ends.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := fsutil.NewDiskWriter(ctx, dst, fsutil.DiskWriterOpt{SyncDataCb: c.copyTo})
	if err != nil {
		return fmt.Errorf("copying the context: %w", err)
	}
	err = c.walk(ctx, dst, sel, func(p string, fi fs.FileInfo) error {
		return writeError(p, w.HandleChange(fsutil.ChangeKindAdd, p, fi, nil))
	})
	if err == nil {
		err = w.Wait(ctx)
	}
	if err != nil {
		return fmt.Errorf("copying the context: %w", err)
	}
	return nil
}

// walk calls fn for the selected files, among which dir, where the build works,
// must not be.
func (c *Context) walk(ctx context.Context, dir string, sel Selection, fn func(p string, fi fs.FileInfo) error) error {
	own, err := os.Stat(dir)
	if err != nil {
		return err
	}
	files, err := c.selected(sel)
	if err != nil {
		return fmt.Errorf("selecting files: %w", err)
	}
	return files.Walk(ctx, "", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if fi.IsDir() {
			if here, err := c.root.Stat(p); err == nil && os.SameFile(here, own) {
				return fmt.Errorf("%s is where the build works: exclude it in .dockerignore", p)
			}
		}
		return fn(p, fi)
	})
}

// selected is what Materialize copies.
func (c *Context) selected(sel Selection) (fsutil.FS, error) {
	files, err := fsutil.NewFilterFS(source{c}, &fsutil.FilterOpt{
		IncludePatterns: sel.Include,
		ExcludePatterns: sel.Exclude,
		FollowPaths:     sel.FollowPaths,
		Map: func(_ string, st *types.Stat) fsutil.MapResult {
			st.Uid, st.Gid = 0, 0
			return fsutil.MapResultKeep
		},
	})
	if err != nil {
		return nil, err
	}
	// A link to a file that is filtered out becomes a file.
	return fsutil.WithHardlinkReset(files), nil
}

// copyTo copies the content of a file. Between two files the kernel does it, or
// shares the blocks where the file system can.
func (c *Context) copyTo(_ context.Context, name string, w io.WriteCloser) error {
	f, err := c.root.Open(name)
	if err != nil {
		return readError(name, err)
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// writeError keeps fsutil from taking a failure to write as a file that is
// gone: it would skip the rest of the directory.
func writeError(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("writing %s: %v", name, err)
	}
	return err
}
