package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// buildKit is a peer: with-services' daemon, root in namespaces, through its client.
type buildKit struct{ client, address string }

func newBuildKit() (b builder, why string) {
	k := &buildKit{client: os.Getenv("KMA_TEST_BUILDCTL"), address: os.Getenv("KMA_TEST_BUILDKIT")}
	if k.client == "" || k.address == "" {
		return nil, "no BuildKit: see test/with-services.sh --oracle"
	}
	return k, ""
}

func (k *buildKit) fresh(ctx context.Context) error {
	return quiet(ctx, k.client, "--addr", k.address, "prune", "--all")
}

func (k *buildKit) build(ctx context.Context, j job) (usage, string, error) {
	args := []string{
		"--addr", k.address, "build", "--progress", "plain", "--frontend", "dockerfile.v0",
		"--local", "context=" + j.context, "--local", "dockerfile=" + j.context,
		"--output", "type=image,name=" + j.image + ",push=true,oci-mediatypes=true",
	}
	if len(j.platforms) > 0 {
		args = append(args, "--opt", "platform="+strings.Join(j.platforms, ","))
	}
	if j.cache != "" {
		args = append(args, "--import-cache", "type=registry,ref="+j.cache+":cache")
		if j.fill {
			args = append(args, "--export-cache", "type=registry,mode=max,ref="+j.cache+":cache")
		}
	}
	_, out, err := command(ctx, nil, k.client, args...)
	// What was used is the daemon's, not the client's.
	return usage{}, out, err
}

// buildah is a peer: chroot isolation, overlay, root in namespaces.
type buildah struct{ program, home string }

func newBuildah(given, home string) (b builder, why string) {
	if given == "" {
		given = "buildah"
	}
	program, err := exec.LookPath(given)
	if err != nil {
		return nil, "no buildah: set PEER_BUILDAH, or apt-get install buildah"
	}
	return &buildah{program: program, home: home}, ""
}

func (b *buildah) fresh(context.Context) error {
	for _, dir := range []string{"root", "run"} {
		if err := clear(filepath.Join(b.home, dir)); err != nil {
			return err
		}
	}
	return os.MkdirAll(b.home, 0o755)
}

func (b *buildah) build(ctx context.Context, j job) (usage, string, error) {
	storage := []string{"--root", filepath.Join(b.home, "root"), "--runroot", filepath.Join(b.home, "run"), "--storage-driver", "overlay"}
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.home, "TMPDIR=" + b.home}
	args := append(storage[:len(storage):len(storage)], "build", "--isolation", "chroot", "--tls-verify=false", "--file", j.context+"/Dockerfile")
	push := append(storage[:len(storage):len(storage)], "push", "--tls-verify=false", "bench", "docker://"+j.image)
	name := []string{"--tag", "bench"}
	if len(j.platforms) > 0 {
		args = append(args, "--platform", strings.Join(j.platforms, ","))
		name = []string{"--manifest", "bench"}
		push = append(storage[:len(storage):len(storage)], "manifest", "push", "--all", "--tls-verify=false", "bench", "docker://"+j.image)
	}
	args = append(args, name...)
	if j.cache != "" {
		args = append(args, "--layers", "--cache-from", j.cache)
		if j.fill {
			args = append(args, "--cache-to", j.cache)
		}
	}
	built, out, err := command(ctx, env, b.program, append(args, j.context)...)
	if err != nil {
		return built, out, err
	}
	pushed, more, err := command(ctx, env, b.program, push...)
	if err != nil {
		err = fmt.Errorf("push: %w", err)
	}
	return usage{cpu: built.cpu + pushed.cpu, peakMiB: max(built.peakMiB, pushed.peakMiB)}, out + more, err
}
