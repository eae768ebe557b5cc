// Command bench builds the same Dockerfiles with this program and with kaniko,
// BuildKit and buildah, in turns, and tells how long each takes.
//
// usage: bench [-only M1,W4] [-peers buildkit,kaniko,buildah] [-runs 5]
//
//	[-out FILE] [-chart FILE] [-limits=false]
//	[-draw FILE -chart FILE]
//
// Every engine runs on the same file system with the same registry, pulls its base
// images, pushes its result, and starts from nothing: a new state directory, a
// pruned daemon, a new store, a new container. Compression is gzip at each engine's
// default level. Run it under test/with-services.sh, which provides the servers:
//
//	test/with-services.sh --bases --oracle --docker --disk 60 go run ./test/bench
//
// Peers are given in the environment: PEER_KANIKO, a path of its executor, or an
// image that docker can have; PEER_BUILDAH, a path; BuildKit is with-services'. One
// that is absent is said to be. PEER_KANIKO_FLAGS and OURS_FLAGS are more flags, such
// as --compression-level=6.
//
// It exits 1 if something could not be measured; a missed target is no error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

type options struct {
	only, peers      []string
	runs             int
	out, chart, draw string
	limits           bool
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == launch {
		os.Exit(launched(os.Args[2:]))
	}
	var o options
	list := func(name, value, usage string) *string { return flag.String(name, value, usage+", a list") }
	only := list("only", "", "workloads to run (default: all)")
	peers := list("peers", strings.Join(peerNames, ","), "engines to compare with, or none")
	flag.IntVar(&o.runs, "runs", 5, "runs of each engine and workload")
	flag.StringVar(&o.out, "out", "", "file for the figures as JSON; those of other workloads stay in it; raw runs go beside it")
	flag.StringVar(&o.chart, "chart", "", "file for the chart of all figures, SVG")
	flag.StringVar(&o.draw, "draw", "", "measure nothing, draw the chart of this file's figures")
	flag.BoolVar(&o.limits, "limits", true, "measure what the machine can do, too")
	flag.Parse()
	o.only, o.peers = fields(*only), fields(*peers)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func fields(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

func run(ctx context.Context, o options) error {
	if o.draw != "" {
		return draw(o.draw, o.chart)
	}
	picked, err := pick(o.only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kma-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b, err := newBench(ctx, o, dir)
	if err != nil {
		return err
	}
	defer b.close()
	if load := loadAverage(); load > 0.5 {
		fmt.Printf("\nthis machine is not idle (load %.1f): ratios tell something, seconds little\n", load)
	}
	if o.limits {
		b.measureLimits(ctx)
	}
	for _, w := range picked {
		if err := context.Cause(ctx); err != nil {
			break
		}
		b.workload(ctx, w)
		if o.out == "" {
			continue
		}
		// After each one: what was measured is kept if a later one fails.
		if err := b.save(o.out); err != nil {
			return err
		}
	}
	fmt.Println()
	printRows(os.Stdout, b.rows)
	if o.chart != "" {
		rows := b.rows
		if o.out != "" {
			if rows, err = readRows(o.out); err != nil {
				return err
			}
		}
		if err := os.WriteFile(o.chart, chart(rows), 0o644); err != nil {
			return err
		}
	}
	return errors.Join(append(b.failures, context.Cause(ctx))...)
}

// loadAverage is that of the last minute.
func loadAverage() (load float64) {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	fmt.Sscan(string(data), &load) //nolint:errcheck // no number, no load
	return load
}

// draw makes the chart of the figures in file.
func draw(file, to string) error {
	if to == "" {
		return errors.New("-draw: name the file of the chart with -chart")
	}
	rows, err := readRows(file)
	if err != nil {
		return err
	}
	return os.WriteFile(to, chart(rows), 0o644)
}
