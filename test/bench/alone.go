package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// peakTarget is the most memory that our largest process may have, whatever the
// size of a layer.
const peakTarget = 150.0

// peakMemory builds w with ours alone.
func peakMemory(b *bench) measurer {
	return func(ctx context.Context, w workload, dir string) error {
		var all []measured
		for round := 1; round <= min(b.runs, w.most); round++ {
			m, err := b.one(ctx, w, dir, oursNamespaces, round)
			if err != nil {
				return err
			}
			all = append(all, m)
		}
		target := peakTarget
		b.record(w, all,
			alone(w, median(all, func(m measured) float64 { return m.PeakMiB }), "MiB", &target, len(all)),
			alone(w, median(all, seconds), "s", nil, len(all)))
		return nil
	}
}

// record keeps what ours alone took.
func (b *bench) record(w workload, all []measured, rows ...row) {
	b.raw.replace(w.name, map[string][]measured{oursNamespaces: all})
	printRows(os.Stdout, rows)
	b.rows = append(b.rows, rows...)
}

// mergedPlatforms are twenty: no registry has to have a base for them.
var mergedPlatforms = []string{
	"linux/386", "linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/amd64/v4", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64", "linux/arm64/v9",
	"linux/loong64", "linux/mips", "linux/mips64", "linux/mips64le", "linux/mipsle", "linux/ppc64", "linux/ppc64le", "linux/riscv64", "linux/s390x", "linux/sparc64",
}

// merging builds an image for twenty platforms, and merges it to three tags.
func merging(b *bench) measurer {
	return func(ctx context.Context, w workload, dir string) error {
		program := b.engines[oursNamespaces].(*namespaces)
		if err := program.fresh(ctx); err != nil {
			return err
		}
		image := b.host(w) + "/bench/w9"
		records := filepath.Join(dir, "records")
		_, out, err := command(ctx, program.env(), program.program, "build", "--context", dir, "--platform", strings.Join(w.platforms, ","),
			"--image", image, "--digests-to", records, "--progress", "plain")
		if err != nil {
			return fmt.Errorf("%w\n%s", err, lastLines(out))
		}
		var all []measured
		for round := 1; round <= b.runs; round++ {
			tags := []string{fmt.Sprintf("%s:%d", image, round), fmt.Sprintf("%s:%d.0", image, round), fmt.Sprintf("%s:latest-%d", image, round)}
			b.counting.reset()
			start := time.Now()
			u, out, err := command(ctx, program.env(), program.program, "merge", "--digests-from", records,
				"--platform", strings.Join(w.platforms, ","), "--destination", strings.Join(tags, ","))
			m := measured{Engine: oursNamespaces, Round: round, Seconds: time.Since(start).Seconds(), CPU: u.cpu.Seconds(), PeakMiB: u.peakMiB}
			if err != nil {
				return fmt.Errorf("%w\n%s", err, lastLines(out))
			}
			m.Requests, m.LayerBytes = b.counting.seen()
			fmt.Printf("  %-12s %d: %s\n", oursNamespaces, round, m)
			for _, tag := range tags {
				if err := hasPlatforms(ctx, tag, len(w.platforms)); err != nil {
					return err
				}
			}
			all = append(all, m)
		}
		b.record(w, all,
			alone(w, median(all, func(m measured) float64 { return float64(m.Requests) }), "requests", nil, len(all)),
			alone(w, median(all, seconds), "s", nil, len(all)))
		return nil
	}
}

func hasPlatforms(ctx context.Context, tag string, want int) error {
	ref, err := name.ParseReference(tag)
	if err != nil {
		return err
	}
	got, err := remote.Get(ref, remote.WithContext(ctx))
	if err != nil {
		return err
	}
	var index struct{ Manifests []json.RawMessage }
	if err := json.Unmarshal(got.Manifest, &index); err != nil {
		return err
	}
	if len(index.Manifests) != want {
		return fmt.Errorf("%s has %d images, not %d", tag, len(index.Manifests), want)
	}
	return nil
}
