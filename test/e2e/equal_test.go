package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/test/imagediff"
)

// equalCases are Dockerfiles whose images must equal BuildKit's. BASE stands
// for the base images of the tests. A step of BuildKit's can report telemetry to
// it, ours has nobody to report to: that socket and its variables are left out.
var equalCases = map[string]string{
	"files": `FROM BASE/busybox:1
COPY a.txt /
COPY a.txt b.txt dir/
COPY dir /copied
COPY dir/ /made/deep/
COPY *.txt /globbed/
COPY --chown=1:2 a.txt /owned/x/
COPY --chmod=0600 dir /mode
COPY --chmod=u=rwX,go=rX dir /symbolic
COPY --exclude=*.md dir /excluded
COPY --parents dir/sub/./*.txt dir/link /parents/
COPY dir/link /followed
COPY --from=BASE/busybox:1 /etc /etc2
`,
	"links": `FROM BASE/debian:12
COPY --link a.txt /bin/a
COPY a.txt /sbin/b
COPY --link dir /usr/share/new/
COPY --link --chown=7:8 dir /lib/linked/
WORKDIR /bin/w
ADD --link archive.tar.gz /lib64/x/
`,
	"whiteouts": `FROM BASE/debian:12
RUN mkdir -p /d/e && echo 1 > /d/e/f && echo 2 > /d/g && ln /d/g /d/hard && ln -s g /d/soft
RUN rm -r /d/e && mkdir /d/e && echo 3 > /d/e/new
RUN rm /d/hard && mv /d/g /d/moved && rm -rf /usr/share/common-licenses
RUN mv /d /renamed && mkdir /d
RUN rm -r /renamed && echo now a file > /renamed
RUN rm /renamed && mkdir /renamed && chmod 1777 /renamed
RUN chmod 4755 /usr/bin/id && chown 5:6 /etc/issue && touch -d 2001-01-01 /etc/motd /etc/debian_version
RUN mknod /pipe p && mknod /null c 1 3 && dd if=/dev/null of=/sparse bs=1 seek=1000000 2>/dev/null
RUN echo same > /same
RUN echo same > /same.new && mv /same.new /same
RUN cp -a /etc/passwd /tmp/p && cat /tmp/p > /etc/passwd && rm /tmp/p
`,
	"mounts": `FROM BASE/debian:12 AS other
RUN echo other > /file
FROM BASE/debian:12
RUN --mount=type=bind,target=/ctx cp -r /ctx/dir /from-context && cat /ctx/a.txt
RUN --mount=type=bind,rw,target=/new/mount/point,source=dir touch /new/mount/point/lost
RUN --mount=type=bind,from=other,source=/file,target=/mnt/file cat /mnt/file > /got
RUN --mount=type=tmpfs,target=/scratch/a/b touch /scratch/a/b/x /scratch/kept
RUN --mount=type=cache,target=/var/cache/x,uid=3,mode=0700 ls -ldn /var/cache/x | cut -c1-10 > /cachemode
RUN --mount=type=cache,target=/opt/never/seen true
RUN --mount=type=secret,id=none,target=/etc/none true
RUN --network=none ls /sys/class/net > /interfaces
RUN <<EOF
set -e
echo heredoc > /heredoc
EOF
RUN <<EOF
#!/usr/bin/env bash
cat <(echo shebang) > /shebang
EOF
COPY <<one <<two /docs/
first $HOME
one
second
two
`,
	"process": `FROM BASE/debian:12
RUN id > /id && pwd >> /id && umask >> /id && hostname >> /id 2>&1 || true
RUN env | grep -v -e OTEL -e TRACEPARENT | sort > /env
RUN cat /proc/self/status | grep -E '^(Cap|NoNewPrivs|Groups)' > /status
RUN cat /etc/hosts > /hosts && ls -l /dev | grep -v -e otel -e total > /dev.txt && ls /proc/self/fd | wc -l > /fds
RUN ulimit -a > /limits && ls -ld / /dev /proc /sys /dev/shm /dev/pts | cut -c1-10 > /modes
RUN useradd -m -u 1234 -G tty,audio app
USER app
RUN id > ~/id && env | grep -v -e OTEL -e TRACEPARENT | sort > ~/env && grep -E '^Cap' /proc/self/status > ~/status
WORKDIR work
RUN pwd > where && touch file
USER 4321:17
RUN id > /tmp/id && echo $HOME > /tmp/home
USER root
WORKDIR /not/there
RUN pwd > at && ls -ld . | cut -c1-10 > mode
RUN sleep 100 & echo started > /started
`,
	"config": `FROM BASE/debian:12 AS base
ARG VERSION=3
ENV A=b V=$VERSION QUOTED="two words"
LABEL one=1 two="two words"
MAINTAINER somebody
EXPOSE 80/udp 443
VOLUME /data /more
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --retries=2 CMD true
SHELL ["/bin/bash", "-c"]
ONBUILD RUN echo child > /child
ENTRYPOINT exec app
FROM base
CMD ["a", "b"]
USER nobody:nogroup
WORKDIR relative
RUN echo $0 $A > /tmp/out
`,
	"archives": `FROM BASE/busybox:1
ADD archive.tar.gz /x/
ADD archive.tar.gz /x/in/
COPY archive.tar.gz /y/
ADD --chown=9:9 archive.tar.gz /z/
ADD a.txt dir /w/
`,
	"scratch": `FROM scratch
COPY a.txt /one/two/three.txt
WORKDIR /w/x
COPY --from=BASE/busybox:1 /bin/busybox /bin/sh
RUN ["/bin/sh", "-c", "echo x > made; echo y > /made"]
`,
	"onlyconfig": `FROM BASE/busybox:1
ENV A=b
`,
}

// What a build context looks like on disk.
func equalContext(t *testing.T, dockerfile string) string {
	t.Helper()
	sameDay(t)
	dir := contextDir(t, map[string]string{
		"Dockerfile":     dockerfile,
		".dockerignore":  "ignored\n**/*.tmp\n!keep.tmp\n",
		"a.txt":          "a",
		"b.txt":          "b",
		"ignored":        "not seen",
		"x.tmp":          "not seen",
		"keep.tmp":       "seen",
		"dir/one.md":     "1",
		"dir/two.txt":    "2",
		"dir/sub/3.txt":  "3",
		"dir/sub/4.tmp":  "not seen",
		"dir/exec":       "#!/bin/sh\n",
		"dir/odd name é": "",
	})
	assert.NilError(t, os.Chmod(filepath.Join(dir, "dir/exec"), 0o755))
	assert.NilError(t, os.Symlink("two.txt", filepath.Join(dir, "dir/link")))
	assert.NilError(t, os.Symlink("/nowhere", filepath.Join(dir, "dir/dangling")))
	assert.NilError(t, os.Link(filepath.Join(dir, "dir/two.txt"), filepath.Join(dir, "dir/hard")))
	assert.NilError(t, os.Mkdir(filepath.Join(dir, "dir/empty"), 0o700))
	tree := contextDir(t, map[string]string{"in/side": "inside", "in/deep/er": "er"})
	tool(t, "tar", "-C", tree, "--owner=3", "--group=4", "-czf", filepath.Join(dir, "archive.tar.gz"), "in")
	return dir
}

func TestEqual_BuildKit(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	service(t, "KMA_TEST_BUILDKIT")
	for name, dockerfile := range equalCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := equalContext(t, strings.ReplaceAll(dockerfile, "BASE", bases))
			ours, theirs := registry+"/equal/"+name+":ours", registry+"/equal/"+name+":theirs"
			ok(t, "build", "--context", dir, "--destination", ours, "--state-dir", t.TempDir(), "--platform", "linux/amd64", "--progress", "plain")
			tool(t, "../oracle/build.sh", "--context", dir, "--destination", theirs, "--platform", "linux/amd64")
			differences, err := imagediff.Descriptors(descriptor(t, ours), descriptor(t, theirs), imagediff.Options{})
			assert.NilError(t, err)
			assert.Check(t, is.Len(differences, 0), strings.Join(differences, "\n"))
		})
	}
}
