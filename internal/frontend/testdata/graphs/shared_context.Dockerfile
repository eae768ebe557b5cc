FROM --platform=$BUILDPLATFORM debian:12 AS build
COPY a.txt /a
RUN cat /a
FROM scratch
ARG TARGETARCH
COPY --from=build /a /a
COPY b-$TARGETARCH.txt /b
