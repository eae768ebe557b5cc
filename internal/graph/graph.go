// Package graph holds the types of a build graph: vertices, the edges between
// them and the images they end in. All platforms of a build share one graph, so
// a stage that two platforms have in common is one vertex.
//
// It must not know where a graph comes from (the front end) nor how it runs
// (the engine), and imports nothing of this module.
package graph

import (
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Graph is everything that a build has to do.
type Graph struct {
	// Vertices are in topological order: each one after its inputs. Every
	// vertex is reachable from an image.
	Vertices []*Vertex
	// Images has one entry for each requested platform, in the order in which
	// they were asked for.
	Images []*Image
}

// Image is one result of a build.
type Image struct {
	Platform ocispecs.Platform
	// Root is the file tree of the image; nil stands for scratch.
	Root *Edge
	// Config is the image's config as JSON. Its history is complete; its
	// rootfs.diff_ids are those of the base image only.
	Config []byte
}

// Vertex is one operation. Two vertices with equal digests do the same work.
type Vertex struct {
	// Digest identifies the operation and, through its inputs, everything
	// below it. It is ours, not LLB's: session attributes do not count.
	Digest digest.Digest
	// Name is what a person sees: "[build 2/4] RUN make".
	Name   string
	Inputs []*Edge
	Op     Op
	// Platform matters to operations that depend on it (image sources and
	// exec); nil for the others.
	Platform *ocispecs.Platform
	// Location is where the Dockerfile asks for this.
	Location Location
	// NoCache forbids the use of an earlier result.
	NoCache bool
}

// Edge is one output of a vertex. File and exec operations can have several.
type Edge struct {
	Vertex *Vertex
	Output int
}

// Location is a range of lines in a Dockerfile; the zero value is unknown.
type Location struct {
	File       string
	Start, End int
}

// Op is one of *ImageSource, *LocalSource, *HTTPSource, *GitSource, *Exec, *File
// and *Merge.
type Op interface{ op() }

func (*ImageSource) op() {}
func (*LocalSource) op() {}
func (*HTTPSource) op()  {}
func (*GitSource) op()   {}
func (*Exec) op()        {}
func (*File) op()        {}
func (*Merge) op()       {}
