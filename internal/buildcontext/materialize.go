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
	own, err := os.Stat(dst)
	if err != nil {
		return fmt.Errorf("copying the context: %w", err)
	}
	files, err := c.selected(sel)
	if err != nil {
		return fmt.Errorf("selecting files of the context: %w", err)
	}
	w, err := fsutil.NewDiskWriter(ctx, dst, fsutil.DiskWriterOpt{SyncDataCb: c.copyTo})
	if err != nil {
		return fmt.Errorf("copying the context: %w", err)
	}
	err = files.Walk(ctx, "", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if fi.IsDir() {
			if err := c.apart(p, own); err != nil {
				return err
			}
		}
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

// apart makes sure that a directory of the context is not own.
func (c *Context) apart(p string, own fs.FileInfo) error {
	if here, err := c.root.Stat(p); err == nil && os.SameFile(here, own) {
		return fmt.Errorf("%s is where the build works: exclude it in .dockerignore", p)
	}
	return nil
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
