FROM debian:12
WORKDIR /w
COPY --chown=app:staff --chmod=u=rwX,go=rX *.txt dir/
COPY --link one two /x/
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.com/a.tgz /
ADD archive.tar.gz /opt/
COPY <<EOF /etc/conf
text
EOF
COPY --from=busybox:1 /bin/busybox /bin/
COPY --parents --exclude=*.md a/*/b /p/
