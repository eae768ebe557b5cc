package buildcontext

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestParse(t *testing.T) {
	t.Parallel()
	commit := strings.Repeat("0123456789", 4)
	for _, tc := range []struct {
		name, in string
		want     Location
		err      string
	}{
		{"path", "/src", Location{Path: "/src"}, ""},
		{"dir", "dir:///src", Location{Path: "/src"}, ""},
		{"file", "file:///src", Location{Path: "/src"}, ""},
		{"tar", "tar:///c.tar.gz", Location{Kind: Archive, Path: "/c.tar.gz"}, ""},
		{"tar_relative", "tar://c.tar.gz", Location{Kind: Archive, Path: "c.tar.gz"}, ""},
		{"stdin", "tar://stdin", Location{Kind: Stdin}, ""},
		{"dash", "-", Location{Kind: Stdin}, ""},
		{"https", "https://h/c.tar.gz?x=1", Location{Kind: Download, URL: "https://h/c.tar.gz?x=1"}, ""},
		{"git", "git://h/r.git", Location{Kind: Git, URL: "https://h/r.git"}, ""},
		{"git_user", "git://u:p@h/r", Location{Kind: Git, URL: "https://u:p@h/r"}, ""},
		{"git_ref", "git://h/r.git#refs/heads/x", Location{Kind: Git, URL: "https://h/r.git", Ref: "refs/heads/x"}, ""},
		{"git_ref_and_commit", "git://h/r.git#refs/heads/x#" + commit, Location{Kind: Git, URL: "https://h/r.git", Ref: "refs/heads/x", Commit: commit}, ""},
		{"git_commit", "git://h/r.git#" + commit, Location{Kind: Git, URL: "https://h/r.git", Commit: commit}, ""},
		{"docker_git", "https://h/r.git#v1:sub/dir", Location{Kind: Git, URL: "https://h/r.git", Ref: "v1", SubPath: "sub/dir"}, ""},
		{"azure_signed", "https://a.blob.core.windows.net/c/o.tar.gz?sig=1", Location{Kind: Download, URL: "https://a.blob.core.windows.net/c/o.tar.gz?sig=1"}, ""},
		{"azure", "https://a.blob.core.windows.net/c/o.tar.gz", Location{}, "SAS"},
		{"s3", "s3://b/k.tar.gz", Location{}, "a s3:// context is not supported in this version: download"},
		{"gs", "gs://b/k.tar.gz", Location{}, "a gs:// context is not supported in this version: download"},
		{"ssh", "ssh://git@h/r", Location{}, "clone"},
		{"no_host", "https:///hunter2", Location{}, "has a host"},
		{"no_repository", "git://hunter2", Location{}, "a host and a path"},
		{"short_commit", "git://h/r#main#abc", Location{}, "40 digits"},
		{"outside", "git://h/r#main:../x", Location{}, "leaves the repository"},
		{"nothing", "", Location{}, "no context given"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := Parse(tc.in)
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
				assert.Check(t, !strings.Contains(err.Error(), "hunter2"))
				return
			}
			assert.NilError(t, err)
			assert.Check(t, is.DeepEqual(got, tc.want))
		})
	}
}

func TestBelow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a/b/file", "")
	assert.NilError(t, os.Symlink("/etc", filepath.Join(dir, "out")))
	got, err := Below(dir, "a/b")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(filepath.Base(got), "b"))
	for _, bad := range []string{"a/c", "a/b/file", "out", "../x"} {
		_, err = Below(dir, bad)
		assert.ErrorContains(t, err, bad)
	}
}
