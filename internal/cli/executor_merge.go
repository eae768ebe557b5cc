package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/org/kaniko-multiarch/internal/record"
)

// runMerge is the guide's --driver=ci: nothing is built.
func (c *executorCommand) runMerge(ctx context.Context, w *World) error {
	from, err := c.digestsFrom(w)
	if err != nil {
		return err
	}
	if len(c.Destination) == 0 {
		return c.listDigests(w, from)
	}
	m := &mergeCommand{
		DigestsFrom: from, Platform: c.Platform, Key: c.Key, Annotation: c.Annotation,
		IndexAnnotations: c.IndexAnnotations, OCIMode: c.OCIMode, DryRun: c.noPush(w),
		IgnoreImmutable: c.IgnoreImmutable, registryFlags: c.registryFlags,
	}
	for _, d := range splitList(c.Destination) {
		m.Destination = append(m.Destination, withTag(d))
	}
	return m.Run(ctx, w)
}

// digestsFrom are the directories of the flag, or those where the guide's driver
// looks without it.
func (c *executorCommand) digestsFrom(w *World) ([]string, error) {
	if dirs := splitList(c.DigestsFrom); len(dirs) > 0 {
		return dirs, nil
	}
	candidates := []string{w.Getenv("CI_DIGESTS_DIR")}
	if workspace := w.Getenv("GITHUB_WORKSPACE"); workspace != "" {
		candidates = append([]string{filepath.Join(workspace, "digests")}, candidates...)
	}
	for _, dir := range candidates {
		if dir == "" {
			continue
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			return []string{dir}, err
		}
	}
	return nil, usagef("--driver=ci: --digests-from is missing: give the directory with the digest files")
}

// listDigests shows what there is to merge, for a run without a destination.
func (c *executorCommand) listDigests(w *World, dirs []string) error {
	found, err := record.Read(dirs...)
	if err != nil {
		return usagef("--digests-from: %w", err)
	}
	if len(found) == 0 {
		return usagef("--digests-from: there is no digest file in %s: jobs write them with --digest-file=DIR/linux-amd64.digest, or with --digests-to=DIR", dirs[0])
	}
	for _, f := range found {
		if _, err := fmt.Fprintf(w.Stdout, "%s %s\n", f.Path, f.Record.Digest); err != nil {
			return err
		}
	}
	fmt.Fprintln(w.Stderr, "notice: nothing is published without --destination")
	return nil
}

// noPush is kaniko's wish to publish nothing.
func (c *executorCommand) noPush(w *World) bool {
	return c.NoPush || w.Getenv("KANIKO_NO_PUSH") == "true"
}
