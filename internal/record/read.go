package record

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// A record is a few hundred bytes; this leaves room for annotations and keeps
// a stray archive out of memory.
const maxFile = 1 << 20

// Found is a record and the file that it was read from.
type Found struct {
	Record Record
	// Path is empty for a record that was never in a file.
	Path string
	// Superseded are the files of earlier attempts at the same thing.
	Superseded []string
}

// Bare reports whether only a digest is known, from a .digest file without a
// record beside it.
func (f Found) Bare() bool { return f.Record.Platform == "" }

// String names f in messages: its file, or its platform.
func (f Found) String() string {
	if f.Path == "" {
		return "the record of " + describe(f.Record)
	}
	return f.Path
}

// Read finds the records (*.json) and bare digests (*.digest) in the given
// directories, however deep; a path may also be one file. A .digest beside a
// .json of the same name is its twin and adds nothing. Files of other names and
// hidden ones are skipped.
//
// CI systems re-run only what failed, so of several records of one key, image,
// target, platform and run the later attempt wins, then the one that finished
// later. The result is sorted by path. The error names every bad file; those
// about content wrap ErrInvalid.
func Read(paths ...string) ([]Found, error) {
	var files []string
	for _, path := range paths {
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("looking for digest records: %w", err)
		}
		found, err := list(path)
		if err != nil {
			return nil, fmt.Errorf("looking for digest records: %w", err)
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	files = slices.Compact(files)

	var all []Found
	var errs []error
	records := map[string]Record{}
	for _, file := range files {
		if filepath.Ext(file) != ".json" {
			continue
		}
		r, err := readRecord(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		records[file] = r
		all = append(all, Found{Record: r, Path: file})
	}
	for _, file := range files {
		if filepath.Ext(file) != ".digest" {
			continue
		}
		d, err := readDigest(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		twin := strings.TrimSuffix(file, ".digest") + ".json"
		r, ok := records[twin]
		switch {
		case !ok && slices.Contains(files, twin):
			// The record is broken and already reported.
		case !ok:
			all = append(all, Found{Record: Record{Digest: d}, Path: file})
		case r.Digest != d:
			errs = append(errs, fmt.Errorf("%s: %w: it says %s, %s beside it says %s", file, ErrInvalid, d, filepath.Base(twin), r.Digest))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	all = latest(all)
	slices.SortFunc(all, func(a, b Found) int { return cmp.Compare(a.Path, b.Path) })
	return all, nil
}

func list(root string) ([]string, error) {
	// Walking does not follow a link, not even at its start.
	start, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, err
	}
	var files []string
	err = filepath.WalkDir(start, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path != start && strings.HasPrefix(entry.Name(), ".") {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		ext := filepath.Ext(path)
		if entry.IsDir() || ext != ".json" && ext != ".digest" {
			return nil
		}
		files = append(files, path)
		return nil
	})
	return files, err
}

// latest drops the records that a later one replaces.
func latest(all []Found) []Found {
	type identity struct{ key, image, target, platform, run string }
	best := map[identity]int{}
	var out []Found
	for _, f := range all {
		r := f.Record
		if f.Bare() {
			out = append(out, f)
			continue
		}
		id := identity{r.Key, r.Image, r.Target, r.Platform, r.Run}
		i, ok := best[id]
		if !ok {
			best[id] = len(out)
			out = append(out, f)
			continue
		}
		old := out[i]
		order := cmp.Or(cmp.Compare(r.Attempt, old.Record.Attempt), r.Finished.Compare(old.Record.Finished))
		switch {
		case order > 0:
			f.Superseded = append(append(f.Superseded, old.Superseded...), old.Path)
			out[i] = f
		case order < 0, r.Digest == old.Record.Digest:
			out[i].Superseded = append(out[i].Superseded, f.Path)
		default:
			// Neither is later and they disagree: both stay, and merge reports
			// the platform as duplicate.
			out = append(out, f)
		}
	}
	return out
}

func readRecord(path string) (Record, error) {
	data, err := readFile(path)
	if err != nil {
		return Record{}, err
	}
	// The schema first: the rest of another version's file may not even parse.
	var head struct {
		Schema string `json:"schema"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return Record{}, fmt.Errorf("%s: %w: %w", path, ErrInvalid, err)
	}
	if head.Schema != Schema {
		return Record{}, fmt.Errorf("%s: %w: schema is %q, this version reads %q", path, ErrInvalid, shorten(head.Schema), Schema)
	}
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{}, fmt.Errorf("%s: %w: %w", path, ErrInvalid, err)
	}
	if err := r.Validate(); err != nil {
		return Record{}, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

func readDigest(path string) (digest.Digest, error) {
	data, err := readFile(path)
	if err != nil {
		return "", err
	}
	d := digest.Digest(strings.TrimSpace(string(data)))
	if err := validDigest(d); err != nil {
		return "", fmt.Errorf("%s: %w: %w", path, ErrInvalid, err)
	}
	return d, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: %w: it is larger than 1 MiB", path, ErrInvalid)
	}
	return data, nil
}
