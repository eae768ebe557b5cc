package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Ways that we build.
const (
	isolationNamespaces = "namespaces"
	isolationInPlace    = "inplace"
)

// buildProgram builds the program under test in dir.
func buildProgram(dir string) (string, error) {
	binary := filepath.Join(dir, "kaniko-multiarch")
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("finding the module: %w: run this within it", err)
	}
	cmd := exec.Command("go", "build", "-o", binary, ".")
	cmd.Dir = strings.TrimSpace(string(module))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return binary, nil
}

func newOurs(isolation, binary, dir string) (builder, error) {
	switch isolation {
	case isolationNamespaces:
		home := filepath.Join(dir, "home")
		return &namespaces{binary: binary, home: home}, os.MkdirAll(home, 0o755)
	case isolationInPlace:
		docker := os.Getenv("KMA_TEST_DOCKER")
		if docker == "" {
			return nil, needs("KMA_TEST_DOCKER")
		}
		return &inPlace{docker: docker}, importImage(docker, binary)
	}
	return nil, fmt.Errorf("-isolation %s: want %s or %s", isolation, isolationNamespaces, isolationInPlace)
}

// flags are our flags for a job.
func flags(j job, isolation, image string) []string {
	args := []string{
		"build", "--isolation", isolation, "--progress", "plain", "--platform", j.Platform, "--destination", image,
		"--context", j.context, "--dockerfile", j.dockerfile,
	}
	if j.Target != "" {
		args = append(args, "--target", j.Target)
	}
	for _, name := range sorted(j.args) {
		args = append(args, "--build-arg", name+"="+j.args[name])
	}
	for _, name := range sorted(j.images) {
		args = append(args, "--build-context", name+"=docker-image://"+j.images[name])
	}
	for _, name := range sorted(j.dirs) {
		args = append(args, "--build-context", name+"="+j.dirs[name])
	}
	for _, id := range sorted(j.secrets) {
		args = append(args, "--secret", "id="+id+",src="+j.secrets[id])
	}
	return args
}

func sorted(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

func environment(j job) []string {
	var env []string
	for _, name := range sorted(j.Env) {
		env = append(env, name+"="+j.Env[name])
	}
	return env
}

// namespaces builds on this machine.
type namespaces struct{ binary, home string }

func (n *namespaces) build(ctx context.Context, j job, image string) (string, error) {
	cmd := exec.CommandContext(ctx, n.binary, append(flags(j, isolationNamespaces, image), "--state-dir", filepath.Join(n.home, "state"))...)
	cmd.Env = append(environment(j), "PATH="+os.Getenv("PATH"), "HOME="+n.home, "TMPDIR="+os.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// inPlace builds in a default docker container that holds the program alone.
type inPlace struct{ docker string }

const toolImage = "kaniko-multiarch:conformance"

func (p *inPlace) build(ctx context.Context, j job, image string) (string, error) {
	args := []string{"run", "--rm", "--network=host", "--entrypoint", "/kaniko/kaniko-multiarch"}
	inside := func(dir string) string {
		at := fmt.Sprintf("/conformance/%d", len(args))
		args = append(args, "-v", dir+":"+at)
		return at
	}
	in := j
	in.context = inside(j.context)
	in.dockerfile = filepath.Join(inside(filepath.Dir(j.dockerfile)), filepath.Base(j.dockerfile))
	in.dirs, in.secrets = map[string]string{}, map[string]string{}
	for _, name := range sorted(j.dirs) {
		in.dirs[name] = inside(j.dirs[name])
	}
	for _, id := range sorted(j.secrets) {
		in.secrets[id] = filepath.Join(inside(filepath.Dir(j.secrets[id])), filepath.Base(j.secrets[id]))
	}
	for _, v := range environment(j) {
		args = append(args, "-e", v)
	}
	out, err := exec.CommandContext(ctx, p.docker, slices.Concat(args, []string{toolImage}, flags(in, isolationInPlace, image))...).CombinedOutput()
	return string(out), err
}

// importImage gives docker an image of the program and nothing else, as the
// released one is.
func importImage(docker, binary string) error {
	program, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	var root bytes.Buffer
	w := tar.NewWriter(&root)
	if err := errors.Join(
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "kaniko/", Mode: 0o755}),
		w.WriteHeader(&tar.Header{Name: "kaniko/kaniko-multiarch", Mode: 0o755, Size: int64(len(program))}),
	); err != nil {
		return err
	}
	if _, err := w.Write(program); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	cmd := exec.Command(docker, "import", "-c", "ENV PATH=/kaniko HOME=/root", "-", toolImage)
	cmd.Stdin = &root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("docker import: %w\n%s", err, out)
	}
	return nil
}

// buildKit is the oracle: a BuildKit daemon through its client.
type buildKit struct {
	client, address string
	output          string // more options of the output
	mu              *sync.Mutex
}

func newOracle() (*buildKit, error) {
	o := &buildKit{client: os.Getenv("KMA_TEST_BUILDCTL"), address: os.Getenv("KMA_TEST_BUILDKIT"), mu: &sync.Mutex{}}
	if o.client == "" || o.address == "" {
		return nil, needs("KMA_TEST_BUILDKIT")
	}
	return o, nil
}

// forBases builds images that BuildKit has to fetch when they are used: with
// other times they are not what it has still unpacked from their build.
func (o *buildKit) forBases() *buildKit {
	return &buildKit{client: o.client, address: o.address, output: ",rewrite-timestamp=true", mu: o.mu}
}

func (o *buildKit) build(ctx context.Context, j job, image string) (string, error) {
	// BuildKit keeps a context by its name and takes over what changes, with traces:
	// directories get new times. So it builds one case at a time, and forgets.
	o.mu.Lock()
	defer o.mu.Unlock()
	forget := exec.CommandContext(ctx, o.client, "--addr", o.address, "prune", "--filter", "type==source.local")
	if out, err := forget.CombinedOutput(); err != nil {
		return string(out), fmt.Errorf("buildctl prune: %w", err)
	}
	args := []string{
		"--addr", o.address, "build", "--progress", "plain", "--frontend", "dockerfile.v0",
		// An earlier result would have earlier times.
		"--no-cache",
		// Or it would pull the front end that a syntax line names: see test/oracle.
		"--opt", "cmdline=docker/dockerfile:1", "--opt", "platform=" + j.Platform,
		"--local", "context=" + j.context, "--local", "dockerfile=" + filepath.Dir(j.dockerfile), "--opt", "filename=" + filepath.Base(j.dockerfile),
		"--output", "type=image,name=" + image + ",push=true,oci-mediatypes=true" + o.output,
	}
	if j.Target != "" {
		args = append(args, "--opt", "target="+j.Target)
	}
	for _, name := range sorted(j.args) {
		args = append(args, "--opt", "build-arg:"+name+"="+j.args[name])
	}
	for _, name := range sorted(j.images) {
		args = append(args, "--opt", "context:"+name+"=docker-image://"+j.images[name])
	}
	for _, name := range sorted(j.dirs) {
		args = append(args, "--opt", "context:"+name+"=local:"+name, "--local", name+"="+j.dirs[name])
	}
	for _, id := range sorted(j.secrets) {
		args = append(args, "--secret", "id="+id+",src="+j.secrets[id])
	}
	cmd := exec.CommandContext(ctx, o.client, args...)
	cmd.Env = append(os.Environ(), environment(j)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
