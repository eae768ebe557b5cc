// Package rootfs is about the file trees that vertices work on. It declares
// what a kind of storage must offer; overlay and inplace are the two kinds.
//
// It must not know what a Dockerfile or a registry is, nor assume that a tree
// is a mount.
package rootfs

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/org/kaniko-multiarch/internal/filetree"
)

// Store keeps layers and makes trees of them. It is safe for concurrent use.
type Store interface {
	// Base returns the layer with the given diff ID, the digest of its
	// uncompressed tar. If it is not in the store, open is called once to get
	// that tar, whose digest is checked; concurrent calls for one diff ID share
	// the work.
	Base(ctx context.Context, diffID digest.Digest, open func(context.Context) (io.ReadCloser, error)) (Layer, error)
	// Work makes a writable tree of parents, bottom first.
	Work(ctx context.Context, parents []Layer) (Work, error)
	// View makes a tree of layers, bottom first, that nobody may write to.
	View(ctx context.Context, layers []Layer) (View, error)
	// CacheDir returns a directory that outlives the build, made when missing.
	// The key may be any string.
	CacheDir(key string) (string, error)
	// Spool returns a directory for files of this build that are no trees, made
	// when missing. It goes with the build, killed or not.
	Spool() (string, error)
	// Settle says that no more works or views will be made of the layers that are
	// there, and that of those that works committed only the ones in keep will be
	// written. What is not needed for that may go, beside what is left to do.
	Settle(keep []Layer)
	// Close releases everything that does not outlive the build.
	Close() error
}

// Parter is a Store that knows what layers show without making a tree of them, and
// makes trees that have only a part of that. Names are clean and begin with "/";
// of each the directories above it are made, too.
type Parter interface {
	// List lists what layers, bottom first, show.
	List(ctx context.Context, layers []Layer) (filetree.Tree, error)
	// WorkPart is Work on some names of parents. All others are in the tree of
	// the layer that Commit returns as well. It returns a *PartError when a name
	// was written that parents have and the work had not.
	WorkPart(ctx context.Context, parents []Layer, names []string) (Work, error)
	// ViewPart is View of some names.
	ViewPart(ctx context.Context, layers []Layer, names []string) (View, error)
}

// Taker is a Store that gives trees away.
type Taker interface {
	// Take returns the tree of l, to take files from: nobody will want l again.
	// Release removes what is left. It returns nil where View has to do.
	Take(ctx context.Context, l Layer) (View, error)
}

// LostError is a layer whose files are not in the store any more.
type LostError struct{ Err error }

func (e *LostError) Error() string { return e.Err.Error() }
func (e *LostError) Unwrap() error { return e.Err }

// PartError is a part of a tree that was too small for what was done there.
type PartError struct{ Name string }

func (e *PartError) Error() string {
	return fmt.Sprintf("%q was written to, which is not part of the tree", e.Name)
}

// Layer is one immutable set of changes to a tree.
type Layer interface {
	// WriteTar writes the changes as a canonical, uncompressed OCI layer. For a
	// layer that Work committed only.
	WriteTar(ctx context.Context, w io.Writer, opts TarOptions) error
}

// TarOptions change what a layer's tar says.
type TarOptions struct {
	// MaxTime, in seconds since 1970, replaces all later modification times;
	// nil keeps them.
	MaxTime *int64
}

// Work is a writable tree. Either Commit or Discard ends it.
type Work interface {
	// Path is the root of the tree.
	Path() string
	// Commit ends the writing and returns the changes as a layer. Trees made
	// afterwards may use it at once. A *DisturbedError is a tree that has to be
	// written again.
	Commit(ctx context.Context, hints ...Hint) (Layer, error)
	Discard() error
}

// Hint is what a commit may count on. A wrong one never gives a wrong layer.
type Hint int

const (
	// Top says that no work will be made on the layer. It may be written, and viewed
	// alone.
	Top Hint = iota
	// Passing says that the layer will not be written, and that one work is made on
	// it, or views only. What is wanted otherwise is a *LostError.
	Passing
)

// View is a tree to read from.
type View interface {
	Path() string
	// StandIn is the extended attribute of files that stand for what cannot be
	// made here, see layer.StandsFor; empty where there are none.
	StandIn() string
	Release() error
}

// DisturbedError is a tree that something else may have changed, too.
type DisturbedError struct{}

func (*DisturbedError) Error() string {
	return "another step that ran at the same time went through this one's files: leave /kaniko out of what it searches, or build with --parallel=1"
}
