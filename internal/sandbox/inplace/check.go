package inplace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// Place is where a build in place would happen.
type Place struct {
	// Root is the root directory, as a file system.
	Root fs.FS
	// Mounts are the mounts in it by their mount points, without the leading
	// slash: "." for the root, with the type of the file system.
	Mounts map[string]string
	Getenv func(string) string
	UID    int
	// Own are the directories that the tool's image brings, such as "kaniko".
	Own []string
}

// Here is this process's place.
func Here(own ...string) (Place, error) {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return Place{}, fmt.Errorf("listing mounts: %w", err)
	}
	p := Place{Root: os.DirFS("/"), Mounts: map[string]string{}, Getenv: os.Getenv, UID: os.Geteuid()}
	for _, m := range mounts {
		p.Mounts[clean(m.Mountpoint)] = m.FSType
	}
	for _, o := range own {
		p.Own = append(p.Own, clean(o))
	}
	return p, nil
}

func clean(p string) string { return path.Join(".", strings.TrimPrefix(p, "/")) }

// Check refuses to build in place, which replaces "/" while a step runs, unless
// this is certain to be a container that holds nothing but this tool: there is
// a sign of a container, and the root has only our own directories, empty ones,
// mount points, and what container runtimes create. force skips that, but not
// the need to be root. The error is an *sandbox.UnsupportedError.
func Check(p Place, force bool) error {
	if p.UID != 0 {
		return &sandbox.UnsupportedError{
			What: fmt.Sprintf("building in place as user %d", p.UID),
			Fix:  "run the container as root (docker: no --user; Kubernetes: runAsUser: 0), or use --isolation=namespaces where user namespaces are allowed",
		}
	}
	if force {
		return nil
	}
	if !p.container() {
		return &sandbox.UnsupportedError{
			What: "building in place replaces the files in /, and this does not look like a container",
			Fix:  "run it in its own image, or add --force if this machine is there to be thrown away",
		}
	}
	against, err := p.foreign(".")
	if err != nil {
		return fmt.Errorf("looking for files that are not the builder's: %w", err)
	}
	if against != "" {
		return &sandbox.UnsupportedError{
			What: fmt.Sprintf("building in place replaces the files in /, and /%s is not the builder's", against),
			Fix:  "run it in its own image, or add --force if this container is there to be thrown away",
		}
	}
	return nil
}

func (p Place) container() bool {
	for _, sign := range []string{".dockerenv", "run/.containerenv"} {
		if _, err := fs.Stat(p.Root, sign); err == nil {
			return true
		}
	}
	return p.Getenv("KUBERNETES_SERVICE_HOST") != "" || p.Mounts["."] == "overlay"
}

// foreign returns the first path that speaks against it, "" for none.
func (p Place) foreign(dir string) (string, error) {
	entries, err := fs.ReadDir(p.Root, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if p.Mounts[name] != "" || slices.Contains(p.Own, name) || slices.Contains(system(), name) {
			continue
		}
		if !e.IsDir() && slices.Contains(runtimes(), name) {
			continue
		}
		if !e.IsDir() {
			return name, nil
		}
		if against, err := p.foreign(name); against != "" || err != nil {
			return against, err
		}
	}
	return "", nil
}

// runtimes are files and links that docker, podman, containerd and CRI-O make in
// a container's root.
func runtimes() []string {
	return []string{
		".dockerenv", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf", "run/.containerenv", "var/run",
	}
}
