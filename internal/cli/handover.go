package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/org/kaniko-multiarch/internal/ci"
	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// artifactPrefix begins the names of artifacts with records.
const artifactPrefix = "kma-"

// openArtifacts says what to do where there are none.
func openArtifacts(w *World) (*ci.Artifacts, error) {
	store, err := ci.OpenArtifacts(w.Getenv)
	if errors.Is(err, ci.ErrNoArtifacts) {
		return nil, &sandbox.UnsupportedError{
			What: "handover: artifact: " + err.Error(),
			Fix:  "use handover: registry, or handover: files with digests-to and digests-from and steps of your own that carry the files",
		}
	}
	return store, err
}

// tempDir makes a directory for files that do not stay. Our image has no /tmp.
func tempDir(pattern string) (string, error) {
	if err := os.MkdirAll(os.TempDir(), 0o777|os.ModeSticky); err != nil {
		return "", err
	}
	return os.MkdirTemp("", pattern)
}

// uploadRecords hands the records of a build to the job that merges, one
// artifact each. A job that is run again has a new name: artifacts stay.
func uploadRecords(ctx context.Context, w *World, records []record.Record) error {
	store, err := openArtifacts(w)
	if err != nil {
		return err
	}
	for _, r := range records {
		files, err := record.Files(r)
		if err != nil {
			return err
		}
		name := artifactPrefix
		if r.Key != "" {
			name += r.Key + "-"
		}
		name += r.Slug()
		if r.Attempt > 1 {
			name += "-attempt" + strconv.Itoa(r.Attempt)
		}
		err = store.Upload(ctx, name, files)
		if errors.Is(err, ci.ErrArtifactExists) {
			return usagef("handover: %w: two builds of the run are %s: give each its key, which a row of the matrix has", err, name)
		}
		if err != nil {
			return fmt.Errorf("handover: %w", err)
		}
	}
	return nil
}

// downloadRecords fetches the records of all builds of the run, or of those of
// a key, into a directory, which the caller removes.
func downloadRecords(ctx context.Context, w *World, key string) (dir string, err error) {
	store, err := openArtifacts(w)
	if err != nil {
		return "", err
	}
	prefix := artifactPrefix
	if key != "" {
		prefix += key + "-"
	}
	found, err := store.Download(ctx, prefix)
	if err != nil {
		return "", fmt.Errorf("handover: %w", err)
	}
	if len(found) == 0 {
		return "", usagef("handover: the run has no artifact %s*: build with handover: artifact, and let this job need the jobs that build", prefix)
	}
	dir, err = tempDir("kma-records-")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	for _, artifact := range slices.Sorted(maps.Keys(found)) {
		// Names from outside are no paths until they are looked at.
		if !filepath.IsLocal(artifact) || filepath.Base(artifact) != artifact {
			continue
		}
		if err := os.Mkdir(filepath.Join(dir, artifact), 0o755); err != nil {
			return "", err
		}
		for name, data := range found[artifact] {
			if filepath.Base(name) != name || !filepath.IsLocal(name) {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, artifact, name), data, 0o644); err != nil {
				return "", err
			}
		}
	}
	return dir, nil
}
