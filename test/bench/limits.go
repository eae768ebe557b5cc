package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1"
)

// limit is what the machine can do at best, with nothing of an engine in it.
type limit struct {
	What    string  `json:"what"`
	Seconds float64 `json:"seconds"`
	MB      float64 `json:"mb,omitempty"`
}

// measureLimits prints what is beside the figures.
func (b *bench) measureLimits(ctx context.Context) {
	fmt.Println("\nwhat the machine can do")
	dir := filepath.Join(b.dir, "limits")
	defer os.RemoveAll(dir)
	for _, f := range []func(context.Context, string) ([]limit, error){b.limitOfCopies, b.limitOfBase, b.limitOfUploads, b.limitOfRuns} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.fail(err)
			return
		}
		all, err := f(ctx, dir)
		if err != nil {
			b.fail(fmt.Errorf("measuring what the machine can do: %w", err))
		}
		for _, l := range all {
			fmt.Printf("  %6.2f s  %s", l.Seconds, l.What)
			if l.MB > 0 {
				fmt.Printf(", %.0f MB/s", l.MB/l.Seconds)
			}
			fmt.Println()
		}
		b.raw.Limits = append(b.raw.Limits, all...)
		os.RemoveAll(dir)
	}
}

// timed runs a script of sh.
func timed(ctx context.Context, what string, mb float64, script string) (limit, error) {
	start := time.Now()
	err := quiet(ctx, "sh", "-ec", script)
	return limit{What: what, Seconds: time.Since(start).Seconds(), MB: mb}, err
}

// limitOfCopies packs the files of W1.
func (b *bench) limitOfCopies(ctx context.Context, dir string) ([]limit, error) {
	if err := copied(dir); err != nil {
		return nil, err
	}
	if err := settle(dir); err != nil {
		return nil, err
	}
	packer, what := "pigz", "tar | pigz | sha256sum of W1's files"
	if _, err := exec.LookPath(packer); err != nil {
		packer, what = "gzip", "tar | gzip | sha256sum of W1's files (no pigz here: one core)"
	}
	l, err := timed(ctx, what, 1<<30/1e6, "tar -C "+dir+" -c files | "+packer+" -6 | sha256sum")
	return []limit{l}, err
}

// limitOfBase unpacks the Debian base.
func (b *bench) limitOfBase(ctx context.Context, dir string) ([]limit, error) {
	file := filepath.Join(b.dir, baseTar)
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	l, err := timed(ctx, "tar x of the Debian base, uncompressed", float64(info.Size())/1e6, "tar -C "+dir+" -xf "+file)
	return []limit{l}, err
}

// limitOfUploads sends one blob of noise.
func (b *bench) limitOfUploads(ctx context.Context, _ string) ([]limit, error) {
	const size = 256 << 20
	data := newBytes().noise(size)
	digest, _, err := v1.SHA256(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	send := func(method, url string, body []byte) (*http.Response, error) {
		r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		r.Header.Set("Content-Type", "application/octet-stream")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return nil, err
		}
		defer answer.Body.Close()
		if answer.StatusCode >= 300 {
			return nil, fmt.Errorf("%s %s: %s", method, url, answer.Status)
		}
		return answer, nil
	}
	start := time.Now()
	upload, err := send(http.MethodPost, "http://"+b.registry+"/v2/bench/limits/blobs/uploads/", nil)
	if err != nil {
		return nil, err
	}
	at, err := upload.Location()
	if err != nil {
		return nil, err
	}
	query := at.Query()
	query.Set("digest", digest.String())
	at.RawQuery = query.Encode()
	_, err = send(http.MethodPut, at.String(), data)
	return []limit{{What: "one upload to the registry", Seconds: time.Since(start).Seconds(), MB: size / 1e6}}, err
}

// limitOfRuns runs the commands of M1's RUN lines, and those of W2, in the unpacked base.
func (b *bench) limitOfRuns(ctx context.Context, dir string) ([]limit, error) {
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	if err := quiet(ctx, "tar", "-C", root, "-xf", filepath.Join(b.dir, baseTar)); err != nil {
		return nil, err
	}
	if err := goTree("src")(root); err != nil {
		return nil, err
	}
	var limits []limit
	for _, w := range []struct{ name, dockerfile string }{{"M1", mixed}, {"W2", smallFiles}} {
		if err := settle(dir); err != nil {
			return nil, err
		}
		start := time.Now()
		for line := range strings.Lines(w.dockerfile) {
			script, ok := strings.CutPrefix(strings.TrimSpace(line), "RUN ")
			if !ok {
				continue
			}
			if err := quiet(ctx, "chroot", root, "/bin/sh", "-c", script); err != nil {
				return limits, err
			}
		}
		limits = append(limits, limit{What: "the commands of " + w.name + "'s RUN lines, in a chroot", Seconds: time.Since(start).Seconds()})
	}
	return limits, nil
}
