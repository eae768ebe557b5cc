# syntax=docker/dockerfile:1
FROM --platform=$BUILDPLATFORM golang:1 AS build
ARG TARGETOS TARGETARCH
WORKDIR /src
RUN --mount=type=bind,target=. --mount=type=cache,target=/root/.cache GOOS=$TARGETOS go version
FROM build AS compile
RUN make $TARGETARCH
FROM debian:12
COPY --from=compile --chmod=755 /out /usr/bin/app
RUN uname -m
USER 1000
CMD ["app"]
