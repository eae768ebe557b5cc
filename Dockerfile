# syntax=docker/dockerfile:1

# The image of this tool itself. `make image` builds it with the tool.
#
#   executor   /kaniko and nothing else: a build may have the rest of / for itself
#   debug      the same with a shell below /busybox, for CI systems that want one

# Where a proxy ends TLS: --build-context certificates=DIRECTORY with its certificate.
FROM scratch AS certificates

# Runs once a target, on the machine that builds: nothing here is emulated.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
ARG GOPROXY
ARG VERSION=dev
ARG TARGETOS TARGETARCH TARGETVARIANT
RUN --mount=type=bind,target=. \
    --mount=type=bind,from=certificates,target=/usr/local/share/ca-certificates \
    --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build <<SCRIPT
set -eu
export CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH SSL_CERT_DIR=/usr/local/share/ca-certificates
case $TARGETARCH in
arm) export GOARM=${TARGETVARIANT#v} ;;
amd64) export GOAMD64=${TARGETVARIANT:-v1} ;;
esac
mkdir -p /out/kaniko/.docker
go build -trimpath -buildvcs=false \
  -ldflags="-s -w -buildid= -X $(go list -m)/internal/cli.Version=$VERSION" \
  -o /out/kaniko/kaniko-multiarch .
ln -s kaniko-multiarch /out/kaniko/executor
SCRIPT

FROM busybox:musl AS busybox

FROM --platform=$BUILDPLATFORM busybox:musl AS applets
RUN mkdir -p /out/busybox && cd /out/busybox && \
    for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -s busybox "$applet"; done

FROM scratch AS base
LABEL org.opencontainers.image.title="kaniko-multiarch" \
      org.opencontainers.image.description="Multi-platform container images in CI, without a Docker daemon" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/ /
COPY --from=build /etc/ssl/certs/ca-certificates.crt /kaniko/ssl/certs/
# As kaniko's image has them.
ENV HOME=/root \
    USER=root \
    PATH=/kaniko \
    SSL_CERT_DIR=/kaniko/ssl/certs \
    DOCKER_CONFIG=/kaniko/.docker/
# No WORKDIR: it would be a directory of the image, which overlayfs cannot move out
# of a step's sight, nor what is mounted below it (Tekton's /workspace/source).
ENTRYPOINT ["/kaniko/executor"]

FROM base AS debug
COPY --from=applets /out/ /
COPY --from=busybox /bin/busybox /busybox/
ENV PATH=/kaniko:/busybox

FROM base AS executor
