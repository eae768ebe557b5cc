package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/ocicontext"
)

// fetch brings a context that is somewhere else into a new directory in dir, and
// a Dockerfile. What it returns names directories and files only. done removes
// what was brought.
func (d *Driver) fetch(ctx context.Context, o build.Options, dir string) (_ build.Options, done func() error, err error) {
	f := &fetcher{Driver: d, o: o, in: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.remove())
		}
	}()
	if !inRepository(o.Context) { // which openContexts brings
		if err := f.main(ctx); err != nil {
			return o, nil, err
		}
	}
	if strings.HasPrefix(o.Dockerfile, "https://") || strings.HasPrefix(o.Dockerfile, "http://") {
		f.o.Dockerfile, err = f.download(ctx, o.Dockerfile, "Dockerfile")
	}
	return f.o, f.remove, err
}

// main brings the main context.
func (f *fetcher) main(ctx context.Context) error {
	at, err := buildcontext.Parse(f.o.Context)
	if err != nil {
		return &ContextError{Name: mainContext, Err: err}
	}
	if at.Kind != buildcontext.Directory {
		if f.o.Context, err = f.context(ctx, at); err != nil {
			return err
		}
	}
	if sub := filepath.Join(at.SubPath, f.o.ContextSubPath); sub != "" {
		if f.o.Context, err = buildcontext.Below(buildcontext.Dir(f.o.Context), sub); err != nil {
			return &ContextError{Name: mainContext, Err: err}
		}
	}
	return nil
}

type fetcher struct {
	*Driver
	o build.Options
	// dir is made in in when needed.
	in, dir string
}

func (f *fetcher) remove() error {
	if f.dir == "" {
		return nil
	}
	return os.RemoveAll(f.dir)
}

func (f *fetcher) make(name string) (string, error) {
	if f.dir == "" {
		if err := os.MkdirAll(f.in, 0o700); err != nil {
			return "", fmt.Errorf("making a directory for the context: %w", err)
		}
		dir, err := os.MkdirTemp(f.in, "context-")
		if err != nil {
			return "", fmt.Errorf("making a directory for the context: %w", err)
		}
		f.dir = dir
	}
	return filepath.Join(f.dir, name), nil
}

func (f *fetcher) context(ctx context.Context, at buildcontext.Location) (string, error) {
	dir, err := f.make("context")
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	switch at.Kind {
	case buildcontext.Git:
		err = cloneContext(ctx, at, dir, f.o.Git, f.getenv)
	case buildcontext.Stdin:
		err = unpack(ctx, cmp.Or[io.Reader](f.Stdin, strings.NewReader("")), "the standard input", dir)
	case buildcontext.Archive:
		err = unpackFile(ctx, at.Path, at.Path, dir)
	case buildcontext.Registry:
		err = ocicontext.Fetch(ctx, f.Registry, at.URL, dir)
	case buildcontext.Download:
		var name string
		if name, err = f.download(ctx, at.URL, "context.tar"); err != nil {
			return "", err
		}
		err = errors.Join(unpackFile(ctx, name, redacted(at.URL), dir), os.Remove(name))
	}
	if err != nil {
		return "", &ContextError{Name: mainContext, Err: err}
	}
	return dir, nil
}

func (f *fetcher) download(ctx context.Context, address, name string) (string, error) {
	name, err := f.make(name)
	if err != nil {
		return "", err
	}
	file, err := os.Create(name)
	if err != nil {
		return "", err
	}
	_, _, err = newDownloader(f.o.Registries.Retry).Download(ctx, address, file, func(int64, int64) {})
	return name, errors.Join(err, file.Close())
}

func unpackFile(ctx context.Context, name, display, dir string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	return unpack(ctx, file, display, dir)
}

// unpack unpacks a tar, compressed or not. All of it is ours, as the files of a
// directory are: who owns a context's files is of no account in a build, and only
// root could have it otherwise.
func unpack(ctx context.Context, from io.Reader, display, dir string) error {
	r, err := layer.Decompress(from)
	if err == nil {
		defer r.Close()
		us := &layer.Owner{UID: os.Geteuid(), GID: os.Getegid()}
		err = layer.Unpack(ctx, r, dir, layer.UnpackOptions{BestEffortXattrs: true, Chown: us})
	}
	if _, system := errors.AsType[syscall.Errno](err); system || err != nil && ctx.Err() != nil {
		return fmt.Errorf("unpacking %s: %w", display, err)
	}
	if err != nil {
		return fmt.Errorf("unpacking %s: %w: want a tar, plain or compressed with gzip or zstd", display, err)
	}
	list, err := os.ReadDir(dir)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%s is an empty archive: want a tar, plain or compressed with gzip or zstd", display)
	}
	return err
}
