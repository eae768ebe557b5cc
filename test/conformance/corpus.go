package main

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/tools/txtar"
)

// corpus has one archive a case: what it shows on top, then the files of its
// context, Dockerfile among them. Two names are not of the context: case.json has
// fields of a Case, and make.sh makes what an archive cannot hold, in the context.
//
//go:embed corpus
var corpus embed.FS

const corpusTable = "corpus/table.json"

// contextTime is when all files of a context were changed, unless make.sh says
// otherwise.
var contextTime = time.Date(2020, 2, 2, 2, 2, 2, 0, time.UTC)

// unpackCorpus writes the contexts below dir.
func unpackCorpus(dir string) (*table, error) {
	data, err := corpus.ReadFile(corpusTable)
	if err != nil {
		return nil, err
	}
	t := &table{}
	if err := decode(corpusTable, data, t); err != nil {
		return nil, err
	}
	err = fs.WalkDir(corpus, "corpus", func(file string, d fs.DirEntry, err error) error {
		name, ok := strings.CutSuffix(file, ".txtar")
		if err != nil || !ok {
			return err
		}
		name = strings.TrimPrefix(name, "corpus/")
		c := Case{Name: name, Context: name, Dockerfile: name + "/Dockerfile"}
		data, err := corpus.ReadFile(file)
		if err != nil {
			return err
		}
		if err := unpack(&c, txtar.Parse(data), filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		t.Cases = append(t.Cases, c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return t, t.complete(dir)
}

// unpack makes the context of c in dir.
func unpack(c *Case, archive *txtar.Archive, dir string) error {
	script := ""
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range archive.Files {
		switch f.Name {
		case "case.json":
			if err := decode(f.Name, f.Data, c); err != nil {
				return err
			}
			for name, sub := range c.Contexts {
				c.Contexts[name] = filepath.Join(c.Context, sub)
			}
			for name, sub := range c.BaseTars {
				c.BaseTars[name] = filepath.Join(c.Context, sub)
			}
			for name, sub := range c.BaseFiles {
				c.BaseFiles[name] = filepath.Join(c.Context, sub)
			}
		case "make.sh":
			script = string(f.Data)
		default:
			p := filepath.Join(dir, f.Name)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(p, f.Data, 0o644); err != nil {
				return err
			}
		}
	}
	if script != "" {
		cmd := exec.Command("sh", "-euc", "umask 022\n"+script)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("make.sh: %w\n%s", err, out)
		}
	}
	return settle(dir)
}

// settle gives everything that was made just now the time of contexts.
func settle(dir string) error {
	justNow := time.Now().Add(-time.Hour)
	stamp := unix.NsecToTimespec(contextTime.UnixNano())
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.ModTime().Before(justNow) || info.ModTime().After(time.Now()) {
			return nil
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{stamp, stamp}, unix.AT_SYMLINK_NOFOLLOW)
	})
}
