package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// job is what an engine has to build.
type job struct {
	context   string // with the Dockerfile
	image     string // to push, with a tag
	platforms []string
	cache     string // repository to take layers from, if any
	fill      bool   // and to keep new ones in
}

// builder is an engine.
type builder interface {
	// fresh makes the next build find nothing of an earlier one, as on a new runner.
	fresh(ctx context.Context) error
	// build builds j and pushes the image. output is what the engine said.
	build(ctx context.Context, j job) (u usage, output string, err error)
}

// usage is what a build took, where the engine is a process of ours.
type usage struct {
	cpu     time.Duration
	peakMiB float64 // of its largest process
}

// Peers, and ours in the same two places.
const (
	peerKaniko   = "kaniko"
	peerBuildKit = "buildkit"
	peerBuildah  = "buildah"

	oursNamespaces = "ours"
	oursInPlace    = "ours-inplace"
)

var peerNames = []string{peerKaniko, peerBuildKit, peerBuildah}

// oursBeside is how we build beside a peer.
func oursBeside(peer string) string {
	if peer == peerKaniko {
		return oursInPlace
	}
	return oursNamespaces
}

// command runs a program and gives what it said, both outputs in one.
func command(ctx context.Context, env []string, program string, args ...string) (usage, string, error) {
	self, err := os.Executable()
	if err != nil {
		return usage{}, "", err
	}
	report, reported, err := os.Pipe()
	if err != nil {
		return usage{}, "", err
	}
	defer report.Close()
	cmd := exec.CommandContext(ctx, self, append([]string{launch, program}, args...)...)
	cmd.Env = env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &out, &out, []*os.File{reported}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	err = cmd.Run()
	reported.Close()
	var r usageReport
	if err == nil {
		err = json.NewDecoder(report).Decode(&r)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", program, err)
	}
	return usage{cpu: r.CPU, peakMiB: r.PeakMiB}, out.String(), err
}

// quiet is a command whose output matters only when it fails.
func quiet(ctx context.Context, program string, args ...string) error {
	_, out, err := command(ctx, nil, program, args...)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, lastLines(out))
	}
	return nil
}

func lastLines(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// engines are those that this machine has, of which those of peers are asked for;
// absent says why others are not there.
func engines(ctx context.Context, dir string, peers []string) (all map[string]builder, absent map[string]string, err error) {
	program, err := buildProgram(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	all, absent = map[string]builder{}, map[string]string{}
	all[oursNamespaces] = &namespaces{program: program, home: dir + "/ours"}
	docker := os.Getenv("KMA_TEST_DOCKER")
	if docker == "" {
		absent[oursInPlace] = "no docker: see test/with-services.sh --docker"
	} else if all[oursInPlace], err = newInPlace(ctx, docker, program, dir); err != nil {
		return nil, nil, err
	}
	for _, peer := range peers {
		var b builder
		var why string
		switch peer {
		case peerKaniko:
			b, why, err = newKaniko(ctx, docker, os.Getenv("PEER_KANIKO"), dir)
		case peerBuildKit:
			b, why = newBuildKit()
		case peerBuildah:
			b, why = newBuildah(os.Getenv("PEER_BUILDAH"), dir+"/buildah")
		case "none":
			continue
		default:
			err = fmt.Errorf("-peers %s: no such engine: want %s", peer, strings.Join(peerNames, ", "))
		}
		if err != nil {
			return nil, nil, err
		}
		if why != "" {
			absent[peer] = why
			continue
		}
		all[peer] = b
	}
	return all, absent, nil
}

// clear removes a directory with what is mounted below it.
func clear(dir string) error {
	for {
		err := syscall.Unmount(dir+"/overlay", syscall.MNT_DETACH)
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOENT) {
			return os.RemoveAll(dir)
		}
		if err != nil {
			return fmt.Errorf("unmounting %s: %w", dir, err)
		}
	}
}
