# kaniko-multiarch: multi-platform container images in CI.
#
# `make demo` shows it at work, `make test` is what CI runs.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# test/oracle and test/act have no Go files: there is nothing to lint in them. In
# test/cluster it would take all of Kubernetes; building it is what checks it.
MODULES     := . examples/hello

.PHONY: help build demo image test test-conformance test-cluster test-all bench lint clean

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## One static binary: bin/kaniko-multiarch
	CGO_ENABLED=0 go build -trimpath -ldflags="-s -w -buildid= -X $$(go list -m)/internal/cli.Version=$(VERSION)" -o bin/kaniko-multiarch .

demo: build ## Build, merge and run a two-platform image here, in a minute, as any user
	test/install.sh
	test/with-services.sh --bases examples/hello/demo.sh

image: build ## Build this tool's own image with it, for two platforms, then again by itself, and compare
	test/install.sh
	VERSION="$(VERSION)" test/with-services.sh --bases --docker test/image.sh

test: lint ## Lint, unit tests and end-to-end tests against real servers
	test/install.sh
	test/with-services.sh --bases --oracle --docker go test -timeout 40m ./...

test-conformance: ## Build the corpus of Dockerfiles here, in a container and with BuildKit, and compare
	test/install.sh
	test/with-services.sh --bases --oracle --docker go run ./test/conformance -isolation namespaces,inplace

test-cluster: ## Build on a Kubernetes that is started here, with nodes of two architectures
	test/install.sh
	test/with-services.sh --bases --cluster go test -timeout 40m -parallel 8 ./test/e2e -run '^TestCluster'

test-all: demo test test-conformance test-cluster image ## All of it: the demo, the whole corpus, a cluster and the tool's own image, too

# What it takes is in test/bench/main.go. ONLY=M1,W4 RUNS=3 PEERS=buildkit OUT=FILE CHART=FILE
# choose; PEER_KANIKO, PEER_BUILDKITD and PEER_BUILDAH are paths of peers,
# PEER_KANIKO_FLAGS and OURS_FLAGS more flags.
bench: export KMA_TEST_BUILDKITD := $(PEER_BUILDKITD)
bench: export PEER_KANIKO := $(PEER_KANIKO)
bench: export PEER_BUILDAH := $(PEER_BUILDAH)
bench: export PEER_KANIKO_FLAGS := $(PEER_KANIKO_FLAGS)
bench: export OURS_FLAGS := $(OURS_FLAGS)
bench: ## Measure builds beside kaniko, BuildKit and buildah, those that are here (OUT=FILE keeps the figures)
	test/install.sh
	test/with-services.sh --bases --oracle --docker --disk 60 go run ./test/bench \
	  $(if $(ONLY),-only $(ONLY) -limits=false) $(if $(PEERS),-peers $(PEERS)) $(if $(RUNS),-runs $(RUNS)) \
	  $(if $(OUT),-out $(abspath $(OUT))) $(if $(CHART),-chart $(abspath $(CHART)))

lint: ## Formatting, go vet and staticcheck, in every module
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "run gofmt -w on:" $$unformatted >&2; exit 1; }
	@for module in $(MODULES); do (cd $$module && go vet ./... && go run $(STATICCHECK) ./...); done

clean: ## Remove what make made; fixtures stay in the user's cache directory
	rm -rf bin
