package engine

import (
	"context"
	"fmt"
	"io"
	"mime"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/org/kaniko-multiarch/internal/buildcontext"
	"github.com/org/kaniko-multiarch/internal/fileop"
	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// image finds the layers of a base image. Nothing is fetched yet.
func (b *build) image(ctx context.Context, v *graph.Vertex, op *graph.ImageSource) ([]tree, error) {
	img, err := b.Images.BaseImage(ctx, op.Ref, *v.Platform)
	if err != nil {
		return nil, err
	}
	if len(img.Layers) != len(img.DiffIDs) {
		return nil, fmt.Errorf("image %s is broken: its manifest has %d layers, its config %d", op.Ref, len(img.Layers), len(img.DiffIDs))
	}
	var t tree
	for i, desc := range img.Layers {
		t = append(t, &treeLayer{base: &baseLayer{ref: op.Ref, descriptor: desc, diffID: img.DiffIDs[i]}})
	}
	return []tree{t}, nil
}

// local is the files of a context that the build can see. With a cache they are
// copied only when a step needs them.
func (b *build) local(ctx context.Context, v *graph.Vertex, op *graph.LocalSource) ([]tree, error) {
	from, ok := b.Contexts[op.Name]
	if !ok {
		return nil, fmt.Errorf("there is no context %q", op.Name)
	}
	files := buildcontext.Selection{Include: op.Include, Exclude: op.Exclude, FollowPaths: op.FollowPaths}
	copied := func() (rootfs.Layer, error) {
		return b.fill(ctx, v, func(dir string) error {
			if err := from.Materialize(ctx, dir, files); err != nil {
				return fmt.Errorf("loading context %q: %w", op.Name, err)
			}
			return nil
		})
	}
	if b.Cache == nil || b.exported[v] {
		return b.source(v, copied)
	}
	listing, err := from.List(ctx, b.SpoolDir, files)
	if err != nil {
		return nil, fmt.Errorf("loading context %q: %w", op.Name, err)
	}
	if listing == nil {
		return b.source(v, copied)
	}
	checked := func() (rootfs.Layer, error) {
		made, err := copied()
		if err != nil {
			return nil, err
		}
		same, err := listing.Unchanged(ctx, b.SpoolDir)
		if err != nil {
			return nil, err
		}
		if !same {
			b.changed.Store(true)
			b.warn(fmt.Sprintf("context %q changed while the build read it: nothing of this build is kept in the cache", op.Name))
		}
		return made, nil
	}
	return []tree{{&treeLayer{sums: fileop.NewSums(), listing: listing, source: &source{make: checked}}}}, nil
}

// git checks a commit out.
func (b *build) git(ctx context.Context, v *graph.Vertex, op *graph.GitSource) ([]tree, error) {
	return b.source(v, func() (rootfs.Layer, error) {
		return b.fill(ctx, v, func(dir string) error { return b.Git.Checkout(ctx, op, dir) })
	})
}

// http downloads a file.
func (b *build) http(ctx context.Context, v *graph.Vertex, op *graph.HTTPSource) ([]tree, error) {
	return b.source(v, func() (rootfs.Layer, error) {
		return b.fill(ctx, v, func(dir string) error { return b.download(ctx, dir, v, op) })
	})
}

// fill makes the layer of a source: a copy, so that what changes there while the
// build runs does not matter.
func (b *build) fill(ctx context.Context, v *graph.Vertex, fill func(dir string) error) (rootfs.Layer, error) {
	w, err := b.work(ctx, b.Store, nil)
	if err != nil {
		return nil, err
	}
	if err := fill(w.Path()); err != nil {
		_ = w.Discard()
		return nil, err
	}
	l, err := w.Commit(ctx, b.hints(graph.Edge{Vertex: v}, nil)...)
	if err != nil {
		return nil, fmt.Errorf("looking through the files: %w", err)
	}
	return l, nil
}

// source makes the tree of a source at once.
func (b *build) source(v *graph.Vertex, make func() (rootfs.Layer, error)) ([]tree, error) {
	s := &source{make: make}
	made, err := s.load()
	if err != nil {
		return nil, err
	}
	l := &treeLayer{source: s}
	if b.exported[v] {
		l = madeLayer(made, b.Now())
	}
	l.sums = fileop.NewSums()
	return []tree{{l}}, nil
}

func (b *build) download(ctx context.Context, dir string, v *graph.Vertex, op *graph.HTTPSource) error {
	f, err := os.CreateTemp(dir, "")
	if err != nil {
		return err
	}
	defer f.Close()
	disposition, modified, err := b.Download.Download(ctx, op.URL, f, func(received, total int64) {
		b.Progress.Status(v.Digest, "downloading", received, total, received == total)
	})
	if err != nil {
		return err
	}
	if op.Checksum != "" {
		if err := check(f, op); err != nil {
			return err
		}
	}
	if modified.IsZero() {
		modified = time.Unix(0, 0)
	}
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	target := filepath.Join(dir, httpName(op, disposition))
	if err := os.Rename(f.Name(), target); err != nil {
		return err
	}
	return os.Chtimes(target, modified, modified)
}

// check reads f from its start and compares its digest.
func check(f *os.File, op *graph.HTTPSource) error {
	if err := op.Checksum.Validate(); err != nil {
		return &SourceError{fmt.Errorf("checksum %q: %w", op.Checksum, err)}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	got, err := op.Checksum.Algorithm().FromReader(f)
	if err != nil {
		return err
	}
	if got != op.Checksum {
		return &SourceError{fmt.Errorf("%s has digest %s, want %s", op.URL, got, op.Checksum)}
	}
	return nil
}

// httpName is the name of a downloaded file: what the Dockerfile says, then
// what the server says, then the end of the URL.
func httpName(op *graph.HTTPSource, disposition string) string {
	candidates := []string{op.Filename}
	if _, params, err := mime.ParseMediaType(disposition); err == nil {
		candidates = append(candidates, params["filename"])
	}
	if u, err := url.Parse(op.URL); err == nil {
		candidates = append(candidates, u.Path)
	}
	for _, c := range candidates {
		if c == "" {
			continue
		}
		if name := path.Base(path.Clean("/" + c)); name != "/" && name != "." {
			return name
		}
	}
	return "download"
}
