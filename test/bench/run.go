package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// buildLimit is the longest that one build may take.
const buildLimit = 15 * time.Minute

// bench is one run of this program.
type bench struct {
	options
	dir      string
	registry string
	images   map[string]string // for Dockerfiles, by the registry's own address
	counting *counter
	proxy    *httptest.Server // counts what engines ask the registry
	engines  map[string]builder
	absent   map[string]string
	rows     []row
	raw      raw
	failures []error
}

func newBench(ctx context.Context, o options, dir string) (*bench, error) {
	b := &bench{options: o, dir: dir, registry: os.Getenv("KMA_TEST_REGISTRY")}
	bases := os.Getenv("KMA_TEST_BASES")
	if b.registry == "" || bases == "" {
		return nil, errors.New("KMA_TEST_REGISTRY or KMA_TEST_BASES is not set: run this under test/with-services.sh --bases --oracle --docker --disk 60")
	}
	var err error
	if b.engines, b.absent, err = engines(ctx, dir, o.peers); err != nil {
		return nil, err
	}
	for _, name := range slices.Concat([]string{oursInPlace}, o.peers) {
		if why, ok := b.absent[name]; ok {
			fmt.Printf("absent: %s: %s\n", name, why)
		}
	}
	if b.images, err = pushBases(ctx, b.registry, bases, dir); err != nil {
		return nil, err
	}
	b.counting = newCounter(b.registry)
	b.proxy = httptest.NewServer(b.counting)
	return b, nil
}

func (b *bench) close() { b.proxy.Close() }

// fail keeps err for the end.
func (b *bench) fail(err error) {
	fmt.Println("failed:", err)
	b.failures = append(b.failures, err)
}

// measurer measures a workload in its own way.
type measurer func(ctx context.Context, w workload, dir string) error

// workload runs w with all engines that can, in turns.
func (b *bench) workload(ctx context.Context, w workload) {
	start := time.Now()
	fmt.Printf("\n%s %s\n", w.name, w.title)
	dir := filepath.Join(b.dir, "work")
	defer os.RemoveAll(dir)
	if err := w.write(dir, b.imagesFor(w)); err != nil {
		b.fail(err)
		return
	}
	if w.alone != nil {
		if err := w.alone(b)(ctx, w, dir); err != nil {
			b.fail(fmt.Errorf("%s: %w", w.name, err))
		}
	} else {
		b.turns(ctx, w, dir)
	}
	fmt.Printf("%s took %s\n", w.name, time.Since(start).Round(time.Second))
}

// host is how engines address the registry in w.
func (b *bench) host(w workload) string {
	if w.cached || w.alone != nil {
		return b.proxy.Listener.Addr().String()
	}
	return b.registry
}

func (b *bench) imagesFor(w workload) map[string]string {
	out := map[string]string{}
	for name, image := range b.images {
		out[name] = strings.Replace(image, b.registry, b.host(w), 1)
	}
	return out
}

// contestants are who builds w: our ways, each if a peer is there for it or no peer
// was asked for, then the peers.
func (b *bench) contestants(w workload) []string {
	var ours, peers []string
	for _, peer := range b.peers {
		if why, ok := w.unable[peer]; ok {
			fmt.Printf("  %s %s\n", peer, why)
			continue
		}
		if b.engines[peer] != nil && b.engines[oursBeside(peer)] != nil {
			peers = append(peers, peer)
			ours = append(ours, oursBeside(peer))
		}
	}
	if len(peers) == 0 {
		ours = []string{oursNamespaces}
		if b.engines[oursInPlace] != nil {
			ours = append(ours, oursInPlace)
		}
	}
	slices.Sort(ours)
	return slices.Concat(slices.Compact(ours), peers)
}

// turns runs every round with all engines, each time another one first.
func (b *bench) turns(ctx context.Context, w workload, dir string) {
	all := b.contestants(w)
	results := map[string][]measured{}
	var broken []string
	once := func(engine string, round int) {
		if slices.Contains(broken, engine) || ctx.Err() != nil {
			return
		}
		m, err := b.one(ctx, w, dir, engine, round)
		if err != nil {
			broken = append(broken, engine)
			b.fail(fmt.Errorf("%s with %s: %w", w.name, engine, err))
			return
		}
		if round > 0 || !w.cached {
			results[engine] = append(results[engine], m)
		}
	}
	if w.cached {
		for _, engine := range all {
			once(engine, 0)
		}
	}
	for round := 1; round <= b.runs; round++ {
		if w.change != nil {
			if err := w.change(dir, round); err != nil {
				b.fail(err)
				return
			}
		}
		for i := range all {
			once(all[(i+round-1)%len(all)], round)
		}
	}
	for engine := range results {
		if slices.Contains(broken, engine) {
			delete(results, engine)
		}
	}
	b.raw.replace(w.name, results)
	rows := compare(w, results)
	printRows(os.Stdout, rows)
	b.rows = append(b.rows, rows...)
}

// one measures one build. Round 0 fills the cache.
func (b *bench) one(ctx context.Context, w workload, dir, engine string, round int) (measured, error) {
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	e := b.engines[engine]
	if err := e.fresh(ctx); err != nil {
		return measured{}, err
	}
	host, repository := b.host(w), fmt.Sprintf("bench/%s-%s", strings.ToLower(w.name), engine)
	j := job{context: dir, platforms: w.platforms, image: fmt.Sprintf("%s/%s-%d:1", host, repository, round)}
	if w.cached {
		// A project pushes to one repository. What is there needs no upload.
		j.image = fmt.Sprintf("%s/%s:%d", host, repository, round)
		j.cache = fmt.Sprintf("%s/bench/cache-%s", host, engine+"-"+strings.ToLower(w.name))
		j.fill = round == 0 || w.change != nil
	}
	if err := settle(b.dir); err != nil {
		return measured{}, err
	}
	b.counting.reset()
	start := time.Now()
	u, out, err := e.build(ctx, j)
	m := measured{Engine: engine, Round: round, Seconds: time.Since(start).Seconds(), CPU: u.cpu.Seconds(), PeakMiB: u.peakMiB}
	if err != nil {
		return m, fmt.Errorf("%w\n%s", err, lastLines(out))
	}
	if w.cached {
		m.Requests, m.LayerBytes = b.counting.seen()
		m.Vertices = vertices(out)
	}
	// Once a workload to the last file, for that takes as long as a build.
	size, err := verify(ctx, strings.Replace(j.image, host, b.registry, 1), w, round <= 1)
	m.ImageMB = float64(size) / 1e6
	fmt.Printf("  %-12s %d: %s\n", engine, round, m)
	return m, err
}

// settle waits for what is still to be written of earlier builds, which the next
// one would pay for.
func settle(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return &fs.PathError{Op: "syncfs", Path: dir, Err: err}
	}
	return nil
}
