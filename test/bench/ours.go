package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// buildProgram builds the program under test, as released.
func buildProgram(ctx context.Context, dir string) (string, error) {
	module, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("finding the module: %w: run this within it", err)
	}
	program := filepath.Join(dir, "kaniko-multiarch")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, ".")
	cmd.Dir, cmd.Env = strings.TrimSpace(string(module)), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return program, nil
}

func ourFlags(j job, context, isolation string) []string {
	args := []string{"build", "--isolation", isolation, "--progress", "plain", "--context", context, "--destination", j.image}
	if len(j.platforms) > 0 {
		args = append(args, "--platform", strings.Join(j.platforms, ","))
	}
	if j.cache != "" {
		args = append(args, "--cache", "--cache-repo", j.cache)
		if !j.fill {
			args = append(args, "--no-push-cache")
		}
	}
	return append(args, strings.Fields(os.Getenv("OURS_FLAGS"))...)
}

// namespaces is ours on this machine.
type namespaces struct{ program, home string }

func (n *namespaces) fresh(context.Context) error {
	if err := os.RemoveAll(n.home); err != nil {
		return err
	}
	return os.MkdirAll(n.home, 0o755)
}

func (n *namespaces) env() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + n.home, "TMPDIR=" + n.home}
}

func (n *namespaces) build(ctx context.Context, j job) (usage, string, error) {
	args := append(ourFlags(j, j.context, "namespaces"), "--state-dir", filepath.Join(n.home, "state"))
	return command(ctx, n.env(), n.program, args...)
}

// inPlace is ours in a default container of our own image.
type inPlace struct{ container }

func newInPlace(ctx context.Context, docker, program, dir string) (*inPlace, error) {
	c := container{docker: docker, image: "bench-ours:1", name: "bench-ours"}
	return &inPlace{c}, c.importProgram(ctx, dir, program, "kaniko-multiarch")
}

func (p *inPlace) build(ctx context.Context, j job) (usage, string, error) {
	return p.run(ctx, j.context, "/kaniko/kaniko-multiarch", ourFlags(j, inside, "inplace")...)
}
