package e2e

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// oracleOutput builds a context with BuildKit into one output.
func oracleOutput(t *testing.T, dir, platforms, output string, opts ...string) {
	t.Helper()
	args := []string{"--addr", service(t, "KMA_TEST_BUILDKIT"), "build", "--progress", "plain", "--frontend", "dockerfile.v0",
		"--local", "context=" + dir, "--local", "dockerfile=" + dir, "--opt", "platform=" + platforms, "--output", output}
	for _, o := range opts {
		args = append(args, "--opt", o)
	}
	tool(t, service(t, "KMA_TEST_BUILDCTL"), args...)
}

// listing is a directory as lines: all that a person would call its content.
func listing(t *testing.T, dir string, times bool) []string {
	t.Helper()
	var out []string
	assert.NilError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		info, err := d.Info()
		assert.NilError(t, err)
		rel, _ := filepath.Rel(dir, p)
		st := info.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%s %s %d:%d", rel, info.Mode(), st.Uid, st.Gid)
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(p)
			assert.NilError(t, err)
			line += fmt.Sprintf(" %q links=%d", data, st.Nlink)
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			assert.NilError(t, err)
			line += " -> " + to
		}
		if times {
			line += " " + info.ModTime().UTC().String()
		}
		out = append(out, line)
		return nil
	}))
	return out
}

// tarListing is a tar as lines.
func tarListing(t *testing.T, r io.Reader, times bool) []string {
	t.Helper()
	var out []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			slices.Sort(out)
			return out
		}
		assert.NilError(t, err)
		data, err := io.ReadAll(tr)
		assert.NilError(t, err)
		line := fmt.Sprintf("%s %c %o %d:%d %q %q %v", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, data, h.PAXRecords["SCHILY.xattr.security.capability"] != "")
		if times {
			line += fmt.Sprint(" ", h.ModTime.Unix())
		}
		out = append(out, line)
	}
}

const outputDockerfile = `FROM BASE/busybox:1 AS build
RUN mkdir -p /out/dir /out/empty && echo one > /out/one && ln /out/one /out/hard && ln -s one /out/soft && \
    chmod 4711 /out/one && chown 3:4 /out/dir && echo $(uname -m) > /out/dir/machine && mkfifo /out/pipe && touch -h -d 2001-01-01 /out/soft /out/one
FROM scratch
ARG TARGETARCH
COPY --from=build /out /
COPY a.txt /copied-$TARGETARCH
`

// The files of an image are BuildKit's, in a directory and in a tar, for one
// platform and for several, with and without SOURCE_DATE_EPOCH.
func TestOutput_files_equal_BuildKit(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bases, list := service(t, "KMA_TEST_BASES"), platforms(t)
	service(t, "KMA_TEST_BUILDKIT")
	dir := contextDir(t, map[string]string{"Dockerfile": strings.ReplaceAll(outputDockerfile, "BASE", bases), "a.txt": "a"})
	for _, tc := range []struct {
		name, platforms, options string
		epoch                    bool
	}{
		{"one", "linux/amd64", "", false},
		{"several", list, "", false},
		{"epoch", list, "", true},
		{"split", "linux/amd64", ",platform-split=true", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			out := t.TempDir()
			flags := []string{"build", "--context", dir, "--platform", tc.platforms, "--state-dir", t.TempDir(),
				"--output", "type=local,dest=" + out + "/ours" + tc.options, "--output", "type=tar,dest=" + out + "/deep/ours.tar"}
			var opts []string
			if tc.epoch {
				flags = append(flags, "--build-arg", "SOURCE_DATE_EPOCH=1234567890")
				opts = []string{"build-arg:SOURCE_DATE_EPOCH=1234567890"}
			}
			ok(t, flags...)
			split := tc.options
			if strings.Contains(tc.platforms, ",") {
				opts = append(opts, "multi-platform=true")
			}
			oracleOutput(t, dir, tc.platforms, "type=local,dest="+out+"/theirs"+split, opts...)
			oracleOutput(t, dir, tc.platforms, "type=tar,dest="+out+"/theirs.tar", opts...)
			assert.Check(t, is.DeepEqual(listing(t, out+"/ours", tc.epoch), listing(t, out+"/theirs", tc.epoch)))
			ours, err := os.Open(out + "/deep/ours.tar")
			assert.NilError(t, err)
			defer ours.Close()
			theirs, err := os.Open(out + "/theirs.tar")
			assert.NilError(t, err)
			defer theirs.Close()
			assert.Check(t, is.DeepEqual(tarListing(t, ours, tc.epoch), tarListing(t, theirs, tc.epoch)))
		})
	}
}

// Every output at once, and each has the image of the registry.
func TestOutput_several_at_once(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nCOPY Dockerfile /x\n"})
	out := t.TempDir()
	name := registry + "/output/all:1"
	r := run(t, "build", "--context", dir, "--platform", "linux/amd64,linux/arm64", "--state-dir", t.TempDir(),
		"-o", "type=registry,name="+name+",annotation-index.who=me,compression=zstd",
		"-o", "type=oci,dest="+out+"/l,tar=false,name=example.com/other:7", "-o", "type=oci,dest="+out+"/f.tar", "-o", out+"/files", "-o", "-")
	assert.Equal(t, r.code, 0, r.stderr)
	d := descriptor(t, name)
	assert.Check(t, is.Contains(string(d.Manifest), `"who":"me"`))
	assert.Check(t, is.Contains(everything(t, descriptor(t, registry+"/output/all@"+rawIndex(t, name).Manifests[0].Digest)), "tar+zstd"))
	assert.Check(t, is.Contains(strings.Join(tarListing(t, strings.NewReader(r.stdout), false), "\n"), "linux_arm64/x"))
	assert.Check(t, is.Contains(strings.Join(listing(t, out+"/files", false), "\n"), "linux_amd64/bin/busybox"))

	var index ocispecs.Index
	data, err := os.ReadFile(out + "/l/index.json")
	assert.NilError(t, err)
	assert.NilError(t, json.Unmarshal(data, &index))
	assert.Check(t, is.Equal(index.Manifests[0].Digest.String(), d.Digest.String()))
	assert.Check(t, is.Equal(index.Manifests[0].Annotations["io.containerd.image.name"], "example.com/other:7"))
	// Another program finds all of it, in both forms.
	for _, source := range []string{"oci:" + out + "/l:7", "oci-archive:" + out + "/f.tar"} {
		tool(t, "skopeo", "copy", "--quiet", "--all", source, "dir:"+t.TempDir())
	}
}

// An output alone pushes nothing; --push does so besides.
func TestOutput_and_push(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry := service(t, "KMA_TEST_REGISTRY")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /x\n"})
	name := registry + "/output/push:1"
	ok(t, "build", "--context", dir, "--state-dir", t.TempDir(), "--destination", name, "-o", t.TempDir())
	_, err := exec.Command("skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+name).Output()
	assert.Check(t, err != nil, "the image was pushed")
	archive := filepath.Join(t.TempDir(), "a.tar")
	ok(t, "build", "--context", dir, "--state-dir", t.TempDir(), "--destination", name, "-o", "type=docker,dest="+archive, "--push")
	tool(t, "skopeo", "inspect", "--tls-verify=false", "docker://"+name)
	assert.Check(t, is.Contains(tool(t, "tar", "-xOf", archive, "manifest.json"), `"RepoTags":["`+name+`"]`))
}

func TestOutput_load(t *testing.T) {
	t.Parallel()
	needRoot(t)
	docker, bases := service(t, "KMA_TEST_DOCKER"), service(t, "KMA_TEST_BASES")
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + bases + "/busybox:1\nCMD [\"echo\", \"loaded and run\"]\n"})
	host := []string{"DOCKER_HOST=" + os.Getenv("DOCKER_HOST")}
	r := runWith(t, host, "build", "--context", dir, "--state-dir", t.TempDir(), "--destination", "kma/loaded:1", "--load")
	assert.Equal(t, r.code, 0, r.stderr)
	assert.Check(t, is.Contains(tool(t, docker, "run", "--rm", "--network=host", "kma/loaded:1"), "loaded and run"))

	r = runWith(t, host, "build", "--context", dir, "--state-dir", t.TempDir(), "--platform", "linux/amd64,linux/arm64", "--load")
	if r.code != 0 { // with containerd's image store it works
		assert.Check(t, is.Equal(r.code, 6), r.stderr)
		assert.Check(t, is.Contains(r.stderr, "containerd's image store"))
	}
	r = runWith(t, []string{"DOCKER_HOST=unix:///does/not/exist"}, "build", "--context", dir, "--state-dir", t.TempDir(), "--load")
	assert.Check(t, is.Equal(r.code, 6), r.stderr)
	assert.Check(t, is.Contains(r.stderr, "no Docker engine answers"))
}
