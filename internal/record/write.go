package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write stores r in dir, which is made when missing, as <stem>.json and, for
// scripts that know kaniko's files, <stem>.digest. Each file appears complete
// or not at all.
//
// A record of the same key, image, target and platform is replaced: it is an
// earlier build of the same thing. Any other file of that name is left alone
// and reported.
func Write(dir string, r Record) error {
	r.Schema = Schema
	r.Attempt = max(r.Attempt, 1)
	if r.Annotations == nil {
		r.Annotations = map[string]string{}
	}
	r.Committed, r.Finished = r.Committed.UTC(), r.Finished.UTC()
	if err := r.Validate(); err != nil {
		return fmt.Errorf("writing the record of %s: %w", r.Platform, err)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the record of %s: %w", r.Platform, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("writing the record of %s: %w", r.Platform, err)
	}
	stem := filepath.Join(dir, r.Stem())
	if err := replaceable(stem+".json", r); err != nil {
		return err
	}
	// The record comes first: without its twin it is complete, while the twin
	// alone would be taken for the digest of an unknown platform.
	if err := writeFile(stem+".json", append(data, '\n')); err != nil {
		return fmt.Errorf("writing the record of %s: %w", r.Platform, err)
	}
	if err := writeFile(stem+".digest", []byte(r.Digest.String()+"\n")); err != nil {
		return fmt.Errorf("writing the digest of %s: %w", r.Platform, err)
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
