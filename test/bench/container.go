package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// container runs an engine in default containers, one a build.
type container struct{ docker, image, name string }

// inside is where a container has the context: not a directory at the top, which
// stays where it is.
const inside = "/ci/workspace"

func (c *container) fresh(ctx context.Context) error {
	// There is none before the first build.
	_, _, _ = command(ctx, nil, c.docker, "rm", "--force", c.name)
	return ctx.Err()
}

func (c *container) run(ctx context.Context, dir, entrypoint string, args ...string) (usage, string, error) {
	all := append([]string{"run", "--name", c.name, "--network=host", "-v", dir + ":" + inside, "--entrypoint", entrypoint, c.image}, args...)
	_, out, err := command(ctx, nil, c.docker, all...)
	// What was used is the container's, not the client's.
	return usage{}, out, err
}

// importProgram makes an image that holds a program below /kaniko and nothing else.
func (c *container) importProgram(ctx context.Context, dir, program, name string) error {
	root := filepath.Join(dir, name+".tar")
	defer os.Remove(root)
	if err := programTar(root, program, "kaniko/"+name); err != nil {
		return err
	}
	return quiet(ctx, c.docker, "import", "-c", "ENV PATH=/kaniko HOME=/root USER=root DOCKER_CONFIG=/kaniko/.docker/", root, c.image)
}

func programTar(file, program, name string) error {
	in, err := os.Open(program)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	if err := errors.Join(
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "kaniko/", Mode: 0o755}),
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: info.Size()}),
	); err != nil {
		return err
	}
	if _, err := io.Copy(w, in); err != nil {
		return err
	}
	return errors.Join(w.Close(), out.Close())
}

// kaniko is a peer: an executor in the same container as ours.
type kaniko struct {
	container
	flags []string // more of them
}

// newKaniko takes the path of an executor, or an image that docker can have.
func newKaniko(ctx context.Context, docker, given, dir string) (b builder, why string, err error) {
	switch {
	case given == "":
		return nil, "PEER_KANIKO is not set", nil
	case docker == "":
		return nil, "no docker: see test/with-services.sh --docker", nil
	}
	k := &kaniko{container{docker: docker, image: given, name: "bench-kaniko"}, strings.Fields(os.Getenv("PEER_KANIKO_FLAGS"))}
	if info, err := os.Stat(given); err != nil || info.IsDir() {
		if err := quiet(ctx, docker, "pull", given); err != nil {
			return nil, fmt.Sprintf("PEER_KANIKO=%s is neither a program nor an image to be had: %v", given, err), nil
		}
		return k, "", nil
	}
	k.image = "bench-kaniko:1"
	return k, "", k.importProgram(ctx, dir, given, "executor")
}

func (k *kaniko) build(ctx context.Context, j job) (usage, string, error) {
	args := []string{"--context", "dir://" + inside, "--dockerfile", inside + "/Dockerfile", "--destination", j.image, "--insecure", "--insecure-pull"}
	if j.cache != "" {
		args = append(args, "--cache", "--cache-repo", j.cache, "--cache-copy-layers", "--cache-run-layers")
		if !j.fill {
			args = append(args, "--no-push-cache")
		}
	}
	return k.run(ctx, j.context, "/kaniko/executor", append(args, k.flags...)...)
}
