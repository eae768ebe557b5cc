package local

import (
	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/cache"
	"github.com/org/kaniko-multiarch/internal/layer"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// openCache opens the layer cache; nil when none is asked for.
func (d *Driver) openCache(o build.Options, t *target) (*cache.Registry, error) {
	if !o.Cache {
		return nil, nil
	}
	name := o.CacheRepo
	if name == "" {
		if t.none() {
			return nil, badInput("--cache: nowhere to keep layers: give --cache-repo, or a destination")
		}
		name = t.repository.Name() + "/cache"
	}
	repo, err := registry.ParseRef(name)
	if err != nil {
		return nil, badInput("--cache-repo: %w", err)
	}
	if repo.Tag != "" || repo.Digest != "" {
		return nil, badInput("--cache-repo %s: want a repository without tag and digest", name)
	}
	return &cache.Registry{Client: d.Registry, Repo: repo, TTL: o.CacheTTL, ReadOnly: o.NoPushCache, Now: d.Now}, nil
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
