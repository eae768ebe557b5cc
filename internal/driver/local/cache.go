package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/cache"
	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/ocilayout"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// caches are all layer caches of a build.
type caches struct {
	cache.Several
	directories []*cache.Directory
}

func (c *caches) close() error {
	var errs []error
	for _, d := range c.directories {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

// layoutPrefix begins a cache repository that is a directory, in kaniko's form.
const layoutPrefix = "oci:"

// openCache opens the layer caches that are asked for.
func (d *Driver) openCache(o build.Options, t *target, in *contexts) (_ *caches, err error) {
	c := &caches{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	from, to := o.CacheFrom, o.CacheTo
	if o.Cache {
		name := o.CacheRepo
		if name == "" && t.none() {
			return nil, badInput("--cache: nowhere to keep layers: give --cache-repo, or a destination")
		}
		if name == "" {
			name = t.repository.Name() + "/cache"
		}
		main := build.CacheLocation{Ref: name}
		if dir, ok := strings.CutPrefix(name, layoutPrefix); ok {
			main = build.CacheLocation{Dir: dir}
		} else if ref, err := registry.ParseRef(name); err == nil && ref.Tag != "" {
			return nil, badInput("--cache-repo %s: want a repository without tag and digest", name)
		}
		from, to = append([]build.CacheLocation{main}, from...), append([]build.CacheLocation{main}, to...)
	}
	if o.NoPushCache {
		to = nil
	}
	// What is written is made first: the same directory may be read.
	for _, l := range to {
		opened, err := d.openOne(c, o, l, t, true, in)
		if err != nil {
			return nil, err
		}
		c.To = append(c.To, opened)
	}
	for _, l := range from {
		opened, err := d.openOne(c, o, l, t, false, in)
		if err != nil {
			return nil, err
		}
		if opened != nil {
			c.From = append(c.From, opened)
		}
	}
	return c, nil
}

// openOne opens one cache; nil is a directory to read that is not there, as in
// the first run of a CI job.
func (d *Driver) openOne(c *caches, o build.Options, l build.CacheLocation, t *target, write bool, in *contexts) (cache.Cache, error) {
	if l.Dir != "" {
		return d.openCacheDir(c, o, l.Dir, write, in)
	}
	ref, err := registry.ParseRef(l.Ref)
	if err != nil {
		return nil, badInput("cache %s: %w", l.Ref, err)
	}
	if ref.Digest != "" {
		return nil, badInput("cache %s: want a repository without digest", l.Ref)
	}
	r := &cache.Registry{Client: d.Registry, Repo: ref.WithTag(""), Prefix: ref.Tag, TTL: o.CacheTTL, Now: d.Now}
	if !o.NoPush {
		r.Besides = t.repository
	}
	// A tag is a key of 64 digits behind it, in 128 characters.
	if len(r.Prefix) > 60 {
		return nil, badInput("cache %s: want a tag of at most 60 characters", l.Ref)
	}
	return r, nil
}

func (d *Driver) openCacheDir(c *caches, o build.Options, dir string, write bool, in *contexts) (cache.Cache, error) {
	open := cache.OpenDirectory
	if write {
		open = cache.MakeDirectory
	} else if _, err := os.Stat(filepath.Join(dir, "index.json")); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	opened, err := open(dir)
	if err != nil {
		return nil, err
	}
	c.directories = append(c.directories, opened)
	layout, err := ocilayout.Open(dir)
	if err != nil {
		return nil, err
	}
	store := fmt.Sprintf("cache%d", len(c.directories))
	in.layouts[store] = layout
	opened.Ref, opened.TTL, opened.Now = layoutScheme+store, o.CacheTTL, d.Now
	return opened, nil
}

// cacheRepos are the repositories of the caches that are named.
func cacheRepos(o build.Options) []string {
	var names []string
	if o.Cache && o.CacheRepo != "" && !strings.HasPrefix(o.CacheRepo, layoutPrefix) {
		names = append(names, o.CacheRepo)
	}
	for _, list := range [][]build.CacheLocation{o.CacheFrom, o.CacheTo} {
		for _, l := range list {
			if l.Ref != "" {
				names = append(names, l.Ref)
			}
		}
	}
	return names
}

func parseCompression(o build.Options) (layer.Compression, error) {
	c := layer.Compression{Level: o.CompressionLevel}
	switch o.Compression {
	case "", "gzip":
		if c.Level < 0 || c.Level > 9 {
			return c, badInput("--compression-level %d: gzip has 1 to 9", c.Level)
		}
	case "zstd":
		c.Algorithm = layer.Zstd
		if c.Level < 0 || c.Level > 22 {
			return c, badInput("--compression-level %d: zstd has 1 to 22", c.Level)
		}
	default:
		return c, badInput("--compression %q: use gzip or zstd", o.Compression)
	}
	return c, nil
}
