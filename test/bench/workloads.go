package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// workload is a Dockerfile with its context.
type workload struct {
	name, title string
	dockerfile  string
	// context makes the files beside the Dockerfile.
	context   func(dir string) error
	platforms []string
	// files are how many regular files the image has below a directory.
	files map[string]int
	// targets are the most that our time may be of a peer's. A peer that is not
	// there is measured without a target, unless it is in unable.
	targets map[string]float64
	unable  map[string]string
	// cached builds with a registry cache that a build before has filled.
	cached bool
	// change is made to the context before each round.
	change func(dir string, round int) error
	// alone is measured in its own way, without peers.
	alone func(b *bench) measurer
	// most is the most runs, 0: as many as asked for.
	most int
}

// The layout of M1: a stage that is thrown away, and what comes out of it.
const mixed = `FROM @DEBIAN@ AS build
RUN mkdir /data && cd /data && for d in $(seq 200); do mkdir $d; for f in $(seq 100); do echo "$d $f" >$d/$f; done; done
COPY src /src
RUN find /src -name '*.go' -print0 | sort -z | xargs -0 sha256sum >/sums && tar -cf /src.tar -C /src .
FROM @DEBIAN@
COPY --from=build /data /data
COPY --from=build /sums /sums
RUN echo one >/etc/one
RUN echo two >>/etc/one && rm /data/1/1
RUN touch /data/2/2 /data/3/3 && mkdir /srv/three
`

const smallFiles = `FROM @LARGE@
RUN mkdir /many && cd /many && for d in $(seq 500); do mkdir $d; for f in $(seq 100); do echo "$d $f" >$d/$f; done; done
RUN echo a >/many/1/1 && echo a >/many/2/1 && echo a >/etc/a
RUN echo b >/many/1/2 && echo b >/many/2/2 && echo b >/etc/b
RUN echo c >/many/1/3 && echo c >/many/2/3 && echo c >/etc/c
`

const stages = `FROM @BASE@/debian:12 AS one
RUN i=0; while [ $i -lt 3000000 ]; do i=$((i+1)); done; echo $i >/one
FROM @BASE@/debian:12 AS two
RUN i=0; while [ $i -lt 3000001 ]; do i=$((i+1)); done; echo $i >/two
FROM @BASE@/debian:12 AS three
RUN i=0; while [ $i -lt 3000002 ]; do i=$((i+1)); done; echo $i >/three
FROM @BASE@/debian:12
COPY --from=one /one /all/
COPY --from=two /two /all/
COPY --from=three /three /all/
`

// By its name: buildah takes $BUILDPLATFORM for the target's.
const cross = `FROM --platform=@NATIVE@ @BASE@/golang:1.26 AS source
WORKDIR /work
COPY . .
RUN find src -name '*.go' -print0 | sort -z | xargs -0 sha256sum >/sums
FROM source AS build
ARG TARGETARCH
RUN CGO_ENABLED=0 GOARCH=$TARGETARCH go build -trimpath -o /out/app ./app
FROM @BASE@/debian:12
COPY --from=build /out/app /app/bin
COPY --from=source /sums /app/sums
`

const emulated = `FROM @BASE@/debian:12
RUN mkdir /data && cd /data && uname -m >arch && for f in $(seq 2000); do echo "$f" >$f; done
RUN sha256sum /usr/bin/* >/sums
`

// A quarter of it does not compress.
const large = `FROM @BASE@/debian:12
RUN mkdir /large && head -c 1G /dev/urandom >/large/random && head -c 3G /dev/zero >/large/zero
`

var both = []string{"linux/amd64", "linux/arm64"}

func workloads() []workload {
	return []workload{
		{
			name: "M1", title: "mixed: 2 stages, 20,000 files, a Go tree",
			dockerfile: mixed, context: goTree("src"), files: map[string]int{"data": 19999},
			targets: map[string]float64{peerKaniko: 0.4, peerBuildKit: 0.85, peerBuildah: 0.5},
		}, {
			name: "W1", title: "COPY of 1 GiB",
			dockerfile: "FROM @BASE@/debian:12\nCOPY files /files\n", context: copied, files: map[string]int{"files": copiedFiles},
			targets: map[string]float64{peerKaniko: 0.5, peerBuildKit: 0.9, peerBuildah: 0.6},
		}, {
			name: "W2", title: "50,000 small files, then three small RUNs",
			dockerfile: smallFiles, files: map[string]int{"many": 50000},
			targets: map[string]float64{peerKaniko: 0.25, peerBuildKit: 0.9, peerBuildah: 0.6},
		}, {
			name: "W3", title: "three independent stages of CPU work",
			dockerfile: stages, files: map[string]int{"all": 3},
			targets: map[string]float64{peerKaniko: 1, peerBuildKit: 1, peerBuildah: 0.6},
		}, {
			name: "W4", title: "M1 again, nothing changed, cache in the registry",
			dockerfile: mixed, context: goTree("src"), files: map[string]int{"data": 19999}, cached: true,
			targets: map[string]float64{peerKaniko: 0.1, peerBuildKit: 0.8, peerBuildah: 0.2},
		}, {
			name: "W5", title: "M1 again, one source file changed",
			dockerfile: mixed, context: goTree("src"), files: map[string]int{"data": 19999}, cached: true, change: changeSource,
			targets: map[string]float64{peerKaniko: 0.3, peerBuildKit: 0.9, peerBuildah: 0.5},
		}, {
			name: "W6", title: "two platforms, cross-compiled",
			dockerfile: cross, context: program, files: map[string]int{"app": 2}, platforms: both,
			targets: map[string]float64{peerBuildKit: 0.9, peerBuildah: 0.5},
			unable:  map[string]string{peerKaniko: "builds one platform"},
		}, {
			name: "W7", title: "two platforms, one under QEMU",
			dockerfile: emulated, files: map[string]int{"data": 2001}, platforms: both,
			unable: map[string]string{peerKaniko: "builds one platform"},
		}, {
			name: "W8", title: "a 4 GiB layer: peak memory", most: 3,
			dockerfile: large, files: map[string]int{"large": 2}, alone: peakMemory,
		}, {
			name: "W9", title: "merge of 20 platforms, 3 tags",
			dockerfile: "FROM scratch\nCOPY file /\n", context: oneFile, platforms: mergedPlatforms, alone: merging,
		},
	}
}

// pick gives the workloads with these names, all without names.
func pick(only []string) ([]workload, error) {
	all := workloads()
	if len(only) == 0 {
		return all, nil
	}
	var names []string
	for _, w := range all {
		names = append(names, w.name)
	}
	for _, name := range only {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("-only %s: no such workload: want %s", name, strings.Join(names, ", "))
		}
	}
	return slices.DeleteFunc(all, func(w workload) bool { return !slices.Contains(only, w.name) }), nil
}

// write makes the context of w in dir, with the images that names stand for.
func (w workload) write(dir string, images map[string]string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if w.context != nil {
		if err := w.context(dir); err != nil {
			return fmt.Errorf("making the context of %s: %w", w.name, err)
		}
	}
	pairs := []string{"@NATIVE@", "linux/" + runtime.GOARCH}
	for name, image := range images {
		pairs = append(pairs, "@"+name+"@", image)
	}
	text := strings.NewReplacer(pairs...).Replace(w.dockerfile)
	return os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644)
}
