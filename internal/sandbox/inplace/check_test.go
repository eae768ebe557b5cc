package inplace_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox"
	"github.com/org/kaniko-multiarch/internal/sandbox/inplace"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	dir, link, file := &fstest.MapFile{Mode: fs.ModeDir}, &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("x")}, &fstest.MapFile{}
	docker := fstest.MapFS{
		".dockerenv": file, "kaniko/executor": file, "kaniko/ssl/certs/ca.crt": file, "proc/1/stat": file, "sys/x": file,
		"dev/null": file, "etc/hosts": file, "etc/hostname": file, "etc/resolv.conf": file, "etc/mtab": link, "workspace": dir,
	}
	with := func(more fstest.MapFS) fstest.MapFS {
		out := fstest.MapFS{}
		for _, m := range []fstest.MapFS{docker, more} {
			for name, f := range m {
				out[name] = f
			}
		}
		return out
	}
	for name, tc := range map[string]struct {
		root   fstest.MapFS
		mounts string
		env    string
		uid    int
		force  bool
		want   string
	}{
		"docker": {root: docker},
		"debug_image": {
			root: with(fstest.MapFS{"busybox/sh": file}),
		},
		"github_action": {
			root: with(fstest.MapFS{"github/workspace/Dockerfile": file, "github/home/x": file, "var/run/docker.sock": file}), mounts: "github/workspace github/home var/run/docker.sock",
		},
		"gitlab":  {root: with(fstest.MapFS{"builds/g/p/Dockerfile": file, "cache/x": file}), mounts: "builds cache"},
		"jenkins": {root: with(fstest.MapFS{"home/jenkins/agent/x": file}), mounts: "home/jenkins/agent"},
		"tekton":  {root: with(fstest.MapFS{"tekton/bin/entrypoint": file, "tekton/run/0/x": file, "workspace/source/x": file}), mounts: "tekton/bin tekton/run/0 workspace"},
		"vault":   {root: with(fstest.MapFS{"vault/secrets/x": file}), mounts: "vault/secrets"},
		"podman":  {root: fstest.MapFS{"run/.containerenv": file, "run/secrets/x": file, "kaniko/executor": file}, mounts: "run/secrets"},
		"kubernetes": {
			root: fstest.MapFS{"kaniko/executor": file, "var/run/secrets/kubernetes.io/serviceaccount/token": file}, mounts: "var/run/secrets/kubernetes.io/serviceaccount", env: "10.0.0.1",
		},
		"overlay_is_a_sign": {root: fstest.MapFS{"kaniko/executor": file}, mounts: "."},
		"no_sign":           {root: fstest.MapFS{"kaniko/executor": file}, want: "does not look like a container"},
		"developer":         {root: fstest.MapFS{"bin/sh": file, "home/me/thesis": file}, want: "does not look like a container"},
		"developer_in_a_container": {
			root: with(fstest.MapFS{"usr/bin/git": file}), want: "/usr/bin/git is not the builder's",
		},
		"link_to_programs":      {root: with(fstest.MapFS{"bin": link}), want: "/bin is not the builder's"},
		"file_of_the_user":      {root: with(fstest.MapFS{"workspace/notes": file}), want: "/workspace/notes is not the builder's"},
		"beside_a_mount":        {root: with(fstest.MapFS{"github/workspace/x": file, "github/mine": file}), mounts: "github/workspace", want: "/github/mine is not the builder's"},
		"passwd":                {root: with(fstest.MapFS{"etc/passwd": file}), want: "/etc/passwd is not the builder's"},
		"directory_named_hosts": {root: with(fstest.MapFS{"run/.containerenv/x": file}), want: "/run/.containerenv/x is not the builder's"},
		"forced":                {root: fstest.MapFS{"bin/sh": file}, force: true},
		"user":                  {root: docker, uid: 1000, want: "as user 1000: run the container as root"},
		"user_forced":           {root: docker, uid: 1000, force: true, want: "as user 1000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := inplace.Place{Root: tc.root, Mounts: map[string]string{}, Getenv: func(string) string { return tc.env }, UID: tc.uid, Own: []string{"kaniko", "busybox"}}
			for _, m := range strings.Fields(tc.mounts) {
				p.Mounts[m] = "overlay"
			}
			err := inplace.Check(p, tc.force)
			if tc.want == "" {
				assert.NilError(t, err)
				return
			}
			assert.ErrorContains(t, err, tc.want)
			var unsupported *sandbox.UnsupportedError
			assert.Assert(t, errors.As(err, &unsupported))
			assert.Assert(t, unsupported.Fix != "")
		})
	}
}

// Whatever machine this is, the tests of a container know.
func TestCheck_here(t *testing.T) {
	t.Parallel()
	p, err := inplace.Here("/kaniko", "/busybox")
	assert.NilError(t, err)
	err = inplace.Check(p, false)
	if inContainer() {
		assert.NilError(t, err)
		return
	}
	if _, statErr := os.Stat("/usr/bin/env"); statErr != nil {
		t.Skip("needs a machine with programs")
	}
	assert.Assert(t, err != nil)
}
