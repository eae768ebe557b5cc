package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Files are the content of r's files by their names: <stem>.json and, for scripts
// that know kaniko's files, <stem>.digest.
func Files(r Record) (map[string][]byte, error) {
	r.Schema = Schema
	r.Attempt = max(r.Attempt, 1)
	if r.Annotations == nil {
		r.Annotations = map[string]string{}
	}
	r.Committed, r.Finished = r.Committed.UTC(), r.Finished.UTC()
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("writing the record of %s: %w", r.Platform, err)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the record of %s: %w", r.Platform, err)
	}
	return map[string][]byte{r.Stem() + ".json": append(data, '\n'), r.Stem() + ".digest": []byte(r.Digest.String() + "\n")}, nil
}

// Write stores the files of r in dir, which is made when missing. Each appears
// complete or not at all.
//
// A record of the same key, image, target and platform is replaced: it is an
// earlier build of the same thing. Any other file of that name is left alone
// and reported.
func Write(dir string, r Record) error {
	files, err := Files(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("writing the record of %s: %w", r.Platform, err)
	}
	if err := replaceable(filepath.Join(dir, r.Stem()+".json"), r); err != nil {
		return err
	}
	// The record comes first: without its twin it is complete, while the twin
	// alone would be taken for the digest of an unknown platform.
	for _, ext := range []string{".json", ".digest"} {
		if err := writeFile(filepath.Join(dir, r.Stem()+ext), files[r.Stem()+ext]); err != nil {
			return fmt.Errorf("writing the record of %s: %w", r.Platform, err)
		}
	}
	return nil
}

func replaceable(path string, r Record) error {
	old, err := readRecord(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("refusing to replace a file that is no record (remove it or choose another directory): %w", err)
	}
	if old.Key != r.Key || old.Image != r.Image || old.Target != r.Target || old.Platform != r.Platform {
		return fmt.Errorf("refusing to replace %s: it is the record of %s, not of %s; give each its own --key or directory",
			path, describe(old), describe(r))
	}
	return nil
}

func describe(r Record) string {
	s := r.Platform
	if r.Image != "" {
		s = r.Image + " " + s
	}
	if r.Target != "" {
		s += " (target " + r.Target + ")"
	}
	return s
}

// writeFile replaces path in one step. The temporary file's name is hidden, so
// that neither Read nor artifact stores pick up what a killed process left.
func writeFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".record-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	// The job that merges often runs as another user.
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
