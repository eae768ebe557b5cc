package state

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
)

// Opener opens the uncompressed tar of a base layer.
type Opener func(context.Context) (io.ReadCloser, error)

// Base has make called once for all concurrent calls for one base layer, while
// the build's directory cannot go away.
func (s *State) Base(ctx context.Context, diffID digest.Digest, make func() error) error {
	if err := diffID.Validate(); err != nil {
		return fmt.Errorf("diff ID %q: %w", diffID, err)
	}
	release, err := s.Hold()
	if err != nil {
		return err
	}
	defer release()
	return s.Share(ctx, diffID.String(), make)
}

// ReadBase has read take what it needs of a base layer, and then makes sure that
// all of it has the given diff ID: until it returns nil nothing is to be trusted.
func ReadBase(ctx context.Context, diffID digest.Digest, open Opener, read func(io.Reader) error) error {
	r, err := open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	verifier := diffID.Verifier()
	content, stop := readAhead(io.TeeReader(r, verifier))
	defer stop()
	if err := read(content); err != nil {
		return err
	}
	// What follows the end of the tar counts for the digest.
	if _, err := io.Copy(io.Discard, content); err != nil {
		return fmt.Errorf("reading to the end: %w", err)
	}
	if !verifier.Verified() {
		return fmt.Errorf("the content does not have the diff ID %s that the image's config states", diffID)
	}
	return nil
}
