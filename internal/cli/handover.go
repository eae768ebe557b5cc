package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/org/kaniko-multiarch/internal/ci"
	"github.com/org/kaniko-multiarch/internal/newfile"
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

// downloadRecords fetches the files of all builds of the run, or of those of a
// key.
func downloadRecords(ctx context.Context, w *World, key string) (map[string][]byte, error) {
	store, err := openArtifacts(w)
	if err != nil {
		return nil, err
	}
	prefix := artifactPrefix
	if key != "" {
		prefix += key + "-"
	}
	found, err := store.Download(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("handover: %w", err)
	}
	if len(found) == 0 {
		return nil, usagef("handover: the run has no artifact %s*: build with handover: artifact, and let this job need the jobs that build", prefix)
	}
	files := map[string][]byte{}
	for artifact, content := range found {
		for name, data := range content {
			// Names from outside are no paths until they are looked at.
			if name = filepath.Join(artifact, name); filepath.IsLocal(name) {
				files[name] = data
			}
		}
	}
	return files, nil
}

// storeRecords puts files into a directory, which the caller removes.
func storeRecords(files map[string][]byte) (string, error) {
	dir, err := tempDir("kma-records-")
	if err != nil {
		return "", err
	}
	for name, data := range files {
		if err := newfile.Put(filepath.Join(dir, name), data); err != nil {
			return "", errors.Join(err, os.RemoveAll(dir))
		}
	}
	return dir, nil
}
