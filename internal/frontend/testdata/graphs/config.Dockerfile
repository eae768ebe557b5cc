ARG VERSION=1
FROM debian:12 AS base
ARG VERSION
ENV A=b V=$VERSION
LABEL one=1
EXPOSE 80/udp
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s CMD true
SHELL ["/bin/bash", "-c"]
ONBUILD RUN echo child
ENTRYPOINT exec app
FROM base
USER nobody
