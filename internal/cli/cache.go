package cli

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/org/kaniko-multiarch/internal/build"
)

// cacheFlags name caches as buildx does.
type cacheFlags struct {
	CacheFrom []string `sep:"none" help:"type=registry,ref=REPOSITORY or type=local,src=DIRECTORY: layers of earlier builds."`
	CacheTo   []string `sep:"none" help:"type=registry,ref=REPOSITORY or type=local,dest=DIRECTORY: where to keep the layers of this build."`
}

func (f cacheFlags) options(o *build.Options) error {
	for _, line := range splitLines(f.CacheFrom) {
		l, err := parseCache(line, "src")
		if err != nil {
			return usagef("--cache-from %s: %w", line, err)
		}
		o.CacheFrom = append(o.CacheFrom, l)
	}
	for _, line := range splitLines(f.CacheTo) {
		l, err := parseCache(line, "dest")
		if err != nil {
			return usagef("--cache-to %s: %w", line, err)
		}
		o.CacheTo = append(o.CacheTo, l)
	}
	return nil
}

// parseCache reads one cache; a local one is the directory that dir names.
func parseCache(line, dir string) (build.CacheLocation, error) {
	a, err := parseAttributes(line)
	if err != nil {
		return build.CacheLocation{}, err
	}
	if a == nil {
		return build.CacheLocation{Ref: line}, nil
	}
	kind := a.take("type")
	var l build.CacheLocation
	switch kind {
	case "registry":
		if l.Ref = a.take("ref"); l.Ref == "" {
			return l, errors.New("ref=REPO is missing")
		}
	case "local":
		if l.Dir = a.take(dir); l.Dir == "" {
			return l, fmt.Errorf("%s=DIRECTORY is missing", dir)
		}
		if l.Dir, err = filepath.Abs(l.Dir); err != nil {
			return l, err
		}
	case "":
		return l, errors.New("type is missing: use registry or local")
	default:
		return l, fmt.Errorf("type=%s is not supported: use type=registry,ref=REPOSITORY, or type=local with a directory that the CI system keeps", kind)
	}
	if err := sameCache(a, dir == "dest"); err != nil {
		return l, err
	}
	return l, a.rest(kind)
}

// sameCache takes the attributes whose value is what happens anyway.
func sameCache(a *attributes, writes bool) error {
	if !writes {
		return nil
	}
	if mode := a.take("mode"); mode != "" && mode != "max" {
		return fmt.Errorf("mode=%s: the layers of all steps are kept: use mode=max", mode)
	}
	for _, key := range []string{"oci-mediatypes", "image-manifest", "ignore-error"} {
		if on := a.flag(key); on != nil && !*on {
			return fmt.Errorf("%s=false is not supported: leave it out", key)
		}
	}
	if _, ok := a.values["compression"]; ok {
		return errors.New("compression: the layers of cache and image are the same: use --compression")
	}
	return a.err
}
