package engine

import (
	"context"
	"errors"
	"fmt"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Files takes the file trees of the finished images.
type Files interface {
	// Export is called once, with all images. The trees are there until it
	// returns.
	Export(ctx context.Context, images []ImageFiles) error
}

// ImageFiles is the file tree of one image.
type ImageFiles struct {
	Platform ocispecs.Platform
	// Root is the directory that is the image's "/".
	Root string
	// StandIn is rootfs.View's: files with it are not what the image has.
	StandIn string
}

// exportFiles opens the trees of all images for whoever wants them.
func (b *build) exportFiles(ctx context.Context) (err error) {
	if b.Files == nil {
		return nil
	}
	var list []ImageFiles
	for _, g := range b.graph.Images {
		var t tree
		store := b.Store
		if g.Root != nil {
			t = b.tasks[g.Root.Vertex].outputs[g.Root.Output]
			store = b.stages[g.Root.Vertex].store
		}
		v, err := b.view(ctx, store, t)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, v.Release()) }()
		list = append(list, ImageFiles{Platform: g.Platform, Root: v.Path(), StandIn: v.StandIn()})
	}
	if err := b.Files.Export(ctx, list); err != nil {
		return fmt.Errorf("exporting files: %w", err)
	}
	return nil
}
