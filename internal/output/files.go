package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"

	"github.com/org/kaniko-multiarch/internal/engine"
	"github.com/org/kaniko-multiarch/internal/ids"
	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/platform"
)

// Tree is the files of one image: a copy in a directory, or a tar.
type Tree struct {
	// Dir is filled with the files, which belong to this process's user; Tar gets
	// them with their owners. One of them is set.
	Dir string
	Tar io.Writer
	// Split puts each platform into a directory of its own: linux_amd64.
	Split bool
	// Time, in seconds since 1970, is that of all files; nil keeps theirs.
	Time *int64
}

// Export writes the trees, as BuildKit's exporters local and tar do.
func (t *Tree) Export(ctx context.Context, images []engine.ImageFiles) error {
	var dirs []fsutil.Dir
	for _, img := range images {
		files, err := t.files(img)
		if err != nil {
			return err
		}
		d := fsutil.Dir{FS: files, Stat: &types.Stat{Mode: uint32(os.ModeDir | 0o755), Path: platformDir(img.Platform)}}
		if t.Time != nil {
			d.Stat.ModTime = nanoseconds(*t.Time)
		}
		dirs = append(dirs, d)
	}
	if !t.Split {
		for _, d := range dirs {
			if err := t.write(ctx, d.FS); err != nil {
				return err
			}
		}
		return nil
	}
	all, err := fsutil.SubDirFS(dirs)
	if err != nil {
		return err
	}
	return t.write(ctx, all)
}

func (t *Tree) write(ctx context.Context, files fsutil.FS) error {
	if t.Tar != nil {
		return fsutil.WriteTar(ctx, files, t.Tar)
	}
	return copyTree(ctx, files, t.Dir)
}

// files is a tree with what is asked for changed.
func (t *Tree) files(img engine.ImageFiles) (fsutil.FS, error) {
	files, err := fsutil.NewFS(img.Root)
	if err != nil {
		return nil, err
	}
	if img.StandIn != "" {
		files = &genuine{FS: files, img: img, owners: t.Tar != nil}
	}
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	return fsutil.NewFilterFS(files, &fsutil.FilterOpt{Map: func(_ string, st *types.Stat) fsutil.MapResult {
		if t.Tar == nil {
			st.Uid, st.Gid = uid, gid
		}
		if t.Time != nil {
			st.ModTime = nanoseconds(*t.Time)
		}
		delete(st.Xattrs, img.StandIn)
		return fsutil.MapResultKeep
	}})
}

// genuine refuses files that stand for what cannot be made here: nobody could
// tell them from the image's own.
type genuine struct {
	fsutil.FS
	img engine.ImageFiles
	// owners refuses those that differ in nothing but the owner, too.
	owners bool
}

// Walk implements fsutil.FS.
func (g *genuine) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	return g.FS.Walk(ctx, target, func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = g.check(name)
		}
		return fn(name, d, err)
	})
}

func (g *genuine) check(name string) error {
	err := layer.StandsFor(filepath.Join(g.img.Root, name), g.img.StandIn)
	missing, ok := errors.AsType[*ids.MissingError](err)
	if ok && !missing.Root && !g.owners {
		return nil
	}
	if err != nil {
		return fmt.Errorf("/%s cannot be exported: %w", name, err)
	}
	return nil
}

func nanoseconds(seconds int64) int64 { return time.Unix(seconds, 0).UnixNano() }

// copyTree adds files to the directory dir. What is there besides stays.
func copyTree(ctx context.Context, files fsutil.FS, dir string) error {
	// The writer holds on to a context that only its parent ends.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	w, err := fsutil.NewDiskWriter(ctx, dir, fsutil.DiskWriterOpt{SyncDataCb: func(_ context.Context, name string, w io.WriteCloser) error {
		f, err := files.Open(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, f)
		return errors.Join(err, f.Close())
	}})
	if err != nil {
		return err
	}
	err = files.Walk(ctx, "", func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if err := w.HandleChange(fsutil.ChangeKindAdd, name, info, nil); err != nil {
			return fmt.Errorf("writing %s: %w", filepath.Join(dir, name), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.Wait(ctx)
}

// platformDir is buildx's name for the directory of a platform.
func platformDir(p ocispecs.Platform) string {
	return strings.ReplaceAll(platform.Format(p), "/", "_")
}
