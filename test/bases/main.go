// Command bases makes the base images that the tests and the demo build on,
// and pushes each as one multi-platform index:
//
//	REPOSITORIES/busybox:1     a static busybox, every platform
//	REPOSITORIES/debian:12     Debian 12 with a shell, coreutils and useradd, every platform
//	REPOSITORIES/golang:1.26   debian, certificates and this machine's Go, for this machine's platform
//
// No registry and no foreign binary is needed to make them: files come straight
// out of Debian's packages, no maintainer script runs. Finished images are kept
// in the user's cache directory, keyed by this program's own source, so only the
// first run downloads anything. Their bytes depend on the packages and the Go
// release alone.
//
// usage: bases [-platform LIST] HOST:PORT/PREFIX
package main

import (
	"crypto/sha256"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// source is this program: a change of a recipe makes new images.
//
//go:embed *.go
var source embed.FS

func main() {
	platforms := flag.String("platform", "linux/amd64,linux/arm64", "platforms of busybox and debian")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: bases [-platform LIST] HOST:PORT/PREFIX")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), strings.Split(*platforms, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "bases:", err)
		os.Exit(1)
	}
}

func run(prefix string, platforms []string) error {
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return err
	}
	defer unlock()

	key, err := cacheKey(platforms)
	if err != nil {
		return err
	}
	images := filepath.Join(cache, "bases", key)
	if _, err := os.Stat(images); errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(os.Stderr, "bases: making the base images, once:", strings.Join(platforms, ", "))
		if err := build(cache, images, platforms); err != nil {
			return err
		}
	}
	for _, base := range []string{"busybox:1", "debian:12", "golang:1.26"} {
		if err := push(filepath.Join(images, repository(base)), prefix+"/"+base); err != nil {
			return err
		}
	}
	return nil
}

// build writes one OCI layout per base below dir, all or nothing.
func build(cache, dir string, platforms []string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)

	indexes := map[string]v1.ImageIndex{"busybox": empty.Index, "debian": empty.Index, "golang": empty.Index}
	add := func(base string, img v1.Image, p *v1.Platform) {
		add := mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: p}}
		indexes[base] = mutate.AppendManifests(indexes[base], add)
	}
	for _, s := range platforms {
		p, err := v1.ParsePlatform(s)
		if err != nil {
			return fmt.Errorf("platform %q: %w", s, err)
		}
		if p.Architecture == "arm64" {
			p.Variant = "v8" // as the official images have it
		}
		debs, err := newDebs(filepath.Join(cache, "apt"), p)
		if err != nil {
			return err
		}
		busybox, err := busyboxImage(debs, p)
		if err != nil {
			return fmt.Errorf("making busybox for %s: %w", s, err)
		}
		add("busybox", busybox, p)
		debian, err := debianImage(debs, p)
		if err != nil {
			return fmt.Errorf("making debian for %s: %w", s, err)
		}
		add("debian", debian, p)
		if p.Architecture != runtime.GOARCH {
			continue
		}
		golang, err := golangImage(debian, debs)
		if err != nil {
			return fmt.Errorf("making golang for %s: %w", s, err)
		}
		add("golang", golang, p)
	}
	for base, index := range indexes {
		index = mutate.IndexMediaType(index, types.OCIImageIndex)
		path, err := layout.Write(filepath.Join(tmp, base), empty.Index)
		if err != nil {
			return err
		}
		if err := path.AppendIndex(index); err != nil {
			return fmt.Errorf("writing %s: %w", base, err)
		}
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// push sends the only index of the layout at dir.
func push(dir, reference string) error {
	ref, err := name.NewTag(reference, name.Insecure)
	if err != nil {
		return err
	}
	root, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return fmt.Errorf("reading %s: remove it to have it made again: %w", dir, err)
	}
	manifest, err := root.IndexManifest()
	if err != nil {
		return err
	}
	index, err := root.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		return err
	}
	if err := remote.WriteIndex(ref, index); err != nil {
		return fmt.Errorf("pushing %s: %w", reference, err)
	}
	return nil
}

func repository(reference string) string {
	before, _, _ := strings.Cut(reference, ":")
	return before
}

// cacheKey is a hash of all that the images depend on, except the packages'
// versions: within Debian 12 those only get their bugs fixed.
func cacheKey(platforms []string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, platforms, runtime.Version(), runtime.GOARCH)
	err := fs.WalkDir(source, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := source.ReadFile(path)
		fmt.Fprintf(h, "%s %d\n%s", path, len(data), data)
		return err
	})
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), err
}

// cacheDir is the directory all test fixtures are kept in.
func cacheDir() (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(user, "kaniko-multiarch-test")
	return dir, os.MkdirAll(dir, 0o755)
}

// lock makes runs side by side wait for the one that fills the cache.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
