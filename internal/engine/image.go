package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/graph"
)

// export makes the images of the finished trees and publishes them.
func (b *build) export(ctx context.Context) error {
	b.startExport()
	err := b.exportImages(ctx)
	if err == nil {
		err = b.exportFiles(ctx)
	}
	b.Progress.Done(exportID, false, err)
	return err
}

func (b *build) startExport() { b.exporting.Do(func() { b.Progress.Start(exportID) }) }

func (b *build) exportImages(ctx context.Context) error {
	for _, g := range b.graph.Images {
		img, err := b.assemble(g)
		if err != nil {
			return fmt.Errorf("making the image: %w", err)
		}
		if b.Publisher != nil {
			if err := b.Publisher.Image(ctx, img); err != nil {
				return fmt.Errorf("publishing the image: %w", err)
			}
		}
		b.images = append(b.images, img)
	}
	return nil
}

// assemble writes config and manifest of an image whose layers are all sent.
func (b *build) assemble(g *graph.Image) (*Image, error) {
	img := &Image{Platform: g.Platform}
	var t tree
	if g.Root != nil {
		t = b.tasks[g.Root.Vertex].outputs[g.Root.Output]
	}
	manifest := ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispecs.MediaTypeImageManifest,
		Layers:    []ocispecs.Descriptor{},
	}
	diffIDs := []digest.Digest{}
	created := []*time.Time{}
	for _, l := range t {
		desc, diffID := l.describe()
		manifest.Layers = append(manifest.Layers, desc)
		diffIDs = append(diffIDs, diffID)
		img.Size += desc.Size
		if l.base == nil {
			img.Built++
		} else {
			img.Reused++
		}
		if l.created.IsZero() {
			created = append(created, nil)
			continue
		}
		if l.base != nil {
			img.Cached++
		}
		when := l.created.UTC()
		created = append(created, &when)
	}
	var err error
	if img.Config, err = b.config(g.Config, diffIDs, created); err != nil {
		return nil, err
	}
	img.ConfigDescriptor = ocispecs.Descriptor{
		MediaType: ocispecs.MediaTypeImageConfig,
		Digest:    digest.FromBytes(img.Config),
		Size:      int64(len(img.Config)),
	}
	manifest.Config = img.ConfigDescriptor
	if b.Annotations != nil {
		manifest.Annotations = b.Annotations(g.Platform)
	}
	if img.Manifest, err = json.MarshalIndent(manifest, "", "  "); err != nil {
		return nil, err
	}
	img.Descriptor = ocispecs.Descriptor{
		MediaType: manifest.MediaType,
		Digest:    digest.FromBytes(img.Manifest),
		Size:      int64(len(img.Manifest)),
		Platform:  &g.Platform,
	}
	img.Time = b.duration(g)
	return img, nil
}

// duration sums up the times of the vertices that an image needs.
func (b *build) duration(g *graph.Image) time.Duration {
	seen := map[*graph.Vertex]bool{}
	var visit func(e *graph.Edge) time.Duration
	visit = func(e *graph.Edge) time.Duration {
		if e == nil || seen[e.Vertex] {
			return 0
		}
		seen[e.Vertex] = true
		sum := b.tasks[e.Vertex].took
		for _, in := range e.Vertex.Inputs {
			sum += visit(in)
		}
		return sum
	}
	return visit(g.Root)
}

// config completes the front end's config: diff IDs, and the times of the
// history. What it does not know it keeps.
func (b *build) config(data []byte, diffIDs []digest.Digest, created []*time.Time) ([]byte, error) {
	var known struct {
		History []ocispecs.History `json:"history"`
		Created *time.Time         `json:"created"`
	}
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &known); err != nil {
		return nil, fmt.Errorf("reading the config: %w", err)
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("reading the config: %w", err)
	}
	history, err := b.history(known.History, created)
	if err != nil {
		return nil, err
	}
	// The history has its limit already: what is the base image's stays.
	when := b.clamp(known.Created)
	if when == nil {
		for _, h := range history {
			if h.Created != nil {
				when = h.Created
			}
		}
	}
	if when == nil {
		now := b.Now().UTC()
		when = b.clamp(&now)
	}
	for name, v := range map[string]any{
		"rootfs":  ocispecs.RootFS{Type: "layers", DiffIDs: diffIDs},
		"history": history,
		"created": when,
	} {
		if all[name], err = json.Marshal(v); err != nil {
			return nil, err
		}
	}
	return json.Marshal(all)
}

// history gives every entry a time. A layer's entry has the time of the layer.
// An entry without a layer has that of the entry before it, but the first ones
// of this build have that of its first layer. Times of the base image stay.
func (b *build) history(list []ocispecs.History, created []*time.Time) ([]ocispecs.History, error) {
	layers := 0
	for _, h := range list {
		if !h.EmptyLayer {
			layers++
		}
	}
	if layers > len(created) {
		return nil, fmt.Errorf("the history of the config has %d layers, the image has %d", layers, len(created))
	}
	// What is missing is below all that the Dockerfile adds: a base image has no
	// history, or the base is a directory. Readers match entries to layers by
	// counting, so those layers need theirs.
	unknown := make([]ocispecs.History, len(created)-layers)
	for i := range unknown {
		unknown[i].Comment = "layer of a base without history"
	}
	list = append(unknown, list...)

	ours := make([]bool, len(list))
	var first, last *time.Time
	n := 0
	for i := range list {
		h := &list[i]
		ours[i] = h.Created == nil
		if !h.EmptyLayer {
			if h.Created == nil {
				h.Created = created[n]
			}
			n++
		}
		if ours[i] && first == nil {
			first = h.Created
		}
	}
	for i := range list {
		h := &list[i]
		if h.Created == nil {
			h.Created = last
			if first != nil && (i == 0 || !slices.Contains(ours[:i], true)) {
				h.Created = first
			}
		}
		if ours[i] {
			h.Created = b.clamp(h.Created)
		}
		last = h.Created
	}
	return list, nil
}

func (b *build) clamp(t *time.Time) *time.Time {
	if t == nil || b.Epoch == nil || t.Unix() <= *b.Epoch {
		return t
	}
	limit := time.Unix(*b.Epoch, 0).UTC()
	return &limit
}
