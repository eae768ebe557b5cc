package cli

import (
	"context"
	"fmt"

	"github.com/org/kaniko-multiarch/internal/rootfs"
	"github.com/org/kaniko-multiarch/internal/rootfs/overlay"
	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/namespaces"
)

// withNamespaces is overlayfs and runc-like processes.
type withNamespaces struct{ explain namespaces.Explainer }

func (n withNamespaces) Open(stateDir string) (rootfs.Store, sandbox.Runner, error) {
	if err := overlay.Probe(stateDir); err != nil {
		return nil, nil, &sandbox.UnsupportedError{What: fmt.Sprintf("overlayfs in %s: %v", stateDir, err), Fix: "name a directory on a disk or tmpfs with --state-dir"}
	}
	store, err := overlay.New(stateDir)
	if err != nil {
		return nil, nil, err
	}
	return store, namespaces.New(n.explain, namespaces.DefaultGrace), nil
}

// enter goes on in a private mount namespace, in a child process. In the parent
// it returns the child's exit code as an error, even when that is 0.
func enter(ctx context.Context) error {
	code, done, err := namespaces.Enter(ctx)
	if err != nil {
		return err
	}
	if done {
		return exitError(code)
	}
	return nil
}
