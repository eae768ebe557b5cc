package local

import (
	"context"
	"errors"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/frontend"
)

// Ask answers a request about the Dockerfile of o; nothing is built. For
// frontend.RequestCheck it returns what was found as well; the error is then a
// *frontend.Error when the Dockerfile cannot be built.
func (d *Driver) Ask(ctx context.Context, o build.Options, request string) (_ *frontend.Answer, _ []frontend.Finding, err error) {
	platforms, err := parsePlatforms(o.Platforms)
	if err != nil {
		return nil, nil, err
	}
	o, fetched, err := d.fetch(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, fetched()) }()
	contexts, err := openContexts(ctx, o, d.remoteContexts(o))
	if err != nil {
		return nil, nil, err
	}
	defer contexts.close()
	opts := contexts.frontend(o, platforms, newBaseImages(d.Registry))
	answer, err := frontend.Ask(ctx, opts, request)
	if err != nil || request != frontend.RequestCheck {
		return answer, nil, err
	}
	found, err := opts.Findings(answer)
	return answer, found, err
}
