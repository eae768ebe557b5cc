package cache

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Carry writes an entry that Get found into the caches of To that lack it: a
// cache that takes the place of another one has what the other had. Content is
// asked for at most once, when a cache wants it.
func (s *Several) Carry(ctx context.Context, key digest.Digest, e Entry, content func() (io.ReaderAt, error)) error {
	var errs []error
	var have io.ReaderAt
	for _, c := range s.To {
		if s.source(c, e) {
			continue
		}
		if _, err := c.Get(ctx, key); err == nil {
			continue
		}
		if have == nil {
			var err error
			if have, err = content(); err != nil {
				return errors.Join(append(errs, err)...)
			}
		}
		errs = append(errs, c.Put(ctx, []digest.Digest{key}, e, have))
	}
	return errors.Join(errs...)
}

// source reports whether an entry came from the place that c writes to, without
// a request to find out.
func (s *Several) source(c Cache, e Entry) bool {
	to, ok := c.(*Registry)
	return ok && e.Ref == to.Repo.Name() && slices.ContainsFunc(s.From, func(c Cache) bool {
		from, ok := c.(*Registry)
		return ok && from.Repo == to.Repo && from.Prefix == to.Prefix
	})
}
