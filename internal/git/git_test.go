package git

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/graph"
	"github.com/org/kaniko-multiarch/test/gitserver"
)

// files are the regular files and links below dir, by name.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	assert.NilError(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		info, err := d.Info()
		assert.NilError(t, err)
		switch {
		case rel == ".git":
			return filepath.SkipDir
		case d.Type()&os.ModeSymlink != 0:
			to, err := os.Readlink(p)
			assert.NilError(t, err)
			out[rel] = "-> " + to
		case d.Type().IsRegular():
			data, err := os.ReadFile(p)
			assert.NilError(t, err)
			out[rel] = info.Mode().String() + " " + string(data)
		}
		return nil
	}))
	delete(out, ".gitmodules")
	return out
}

func TestCheckout(t *testing.T) {
	t.Parallel()
	dir, hashes := gitserver.Repositories(t)
	url := gitserver.Serve(t, dir, "")
	second := map[string]string{
		"file": "-rw-r--r-- second", "dir/exec": "-rwxr-xr-x #!/bin/sh\n", "dir/link": "-> ../file", "modules/sub/in/side": "-rw-r--r-- sub",
	}
	first := map[string]string{"file": "-rw-r--r-- first"}
	without := map[string]string{"file": second["file"], "dir/exec": second["dir/exec"], "dir/link": second["dir/link"]}
	for _, tc := range []struct {
		name   string
		source graph.GitSource
		want   map[string]string
	}{
		{"default_branch", graph.GitSource{}, second},
		{"branch", graph.GitSource{Ref: "feature/x", SkipSubmodules: true}, map[string]string{"file": "-rw-r--r-- feature", "dir/exec": second["dir/exec"], "dir/link": second["dir/link"]}},
		{"full_reference", graph.GitSource{Ref: "refs/heads/main", SkipSubmodules: true}, without},
		{"light_tag", graph.GitSource{Ref: "light", SkipSubmodules: true}, without},
		{"annotated_tag", graph.GitSource{Ref: "v1"}, first},
		{"tip_commit", graph.GitSource{Ref: hashes["second"], SkipSubmodules: true}, without},
		{"older_commit", graph.GitSource{Ref: hashes["first"]}, first},
		{"checksum_of_commit", graph.GitSource{Ref: "v1", Checksum: hashes["first"][:10]}, first},
		{"checksum_of_tag", graph.GitSource{Ref: "v1", Checksum: hashes["v1"]}, first},
		{"by_commit", graph.GitSource{Ref: "main", Checksum: hashes["first"], ByCommit: true}, first},
		{"directory", graph.GitSource{Subdir: "dir"}, map[string]string{"exec": second["dir/exec"], "link": second["dir/link"]}},
		{"directory_of_a_submodule", graph.GitSource{Subdir: "modules/sub/in"}, map[string]string{"side": "-rw-r--r-- sub"}},
		{"directory_around_a_submodule", graph.GitSource{Subdir: "modules"}, map[string]string{"sub/in/side": "-rw-r--r-- sub"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			out := t.TempDir()
			c := &Client{TempDir: t.TempDir()}
			tc.source.Remote = url + "/main.git"
			assert.NilError(t, c.Checkout(t.Context(), &tc.source, out))
			assert.Check(t, is.DeepEqual(files(t, out), tc.want))
			left, err := os.ReadDir(c.TempDir)
			assert.NilError(t, err)
			assert.Check(t, is.Len(left, 0))
			_, err = os.Stat(filepath.Join(out, ".git"))
			assert.Check(t, os.IsNotExist(err))
		})
	}
}

func TestCheckout_keeps_the_directory(t *testing.T) {
	t.Parallel()
	dir, hashes := gitserver.Repositories(t)
	url := gitserver.Serve(t, dir, "")
	for ref, want := range map[string]string{"": hashes["second"], "v1": hashes["first"], hashes["first"]: hashes["first"]} {
		out := t.TempDir()
		s := &graph.GitSource{Remote: url + "/main.git", Ref: ref, KeepDir: true, CommitTime: true, SkipSubmodules: true}
		assert.NilError(t, (&Client{TempDir: t.TempDir()}).Checkout(t.Context(), s, out))
		assert.Check(t, is.Equal(gitserver.Run(t, out, "rev-parse", "HEAD"), want))
		assert.Check(t, is.Equal(gitserver.Run(t, out, "status", "--porcelain"), ""))
		gitserver.Run(t, out, "fsck")
		assert.Check(t, is.Equal(gitserver.Run(t, out, "log", "-1", "--format=%an"), "a"))
		if ref == "v1" {
			assert.Check(t, is.Equal(gitserver.Run(t, out, "describe"), "v1"))
		}
		info, err := os.Stat(filepath.Join(out, "file"))
		assert.NilError(t, err)
		assert.Check(t, is.Equal(info.ModTime().UTC().Format("2006-01-02T15:04:05Z"), "2020-01-02T03:04:05Z"))
	}
}

func TestCheckout_fails(t *testing.T) {
	t.Parallel()
	dir, _ := gitserver.Repositories(t)
	url := gitserver.Serve(t, dir, "")
	private := gitserver.Serve(t, dir, "secret")
	main := "/main.git"
	for _, tc := range []struct {
		name   string
		source graph.GitSource
		kind   error
		want   string
	}{
		{"no_repository", graph.GitSource{Remote: url + "/nope.git"}, ErrNotFound, "nope.git"},
		{"no_branch", graph.GitSource{Remote: url + main, Ref: "nope"}, ErrNotFound, `no branch or tag "nope"`},
		{"no_commit", graph.GitSource{Remote: url + main, Ref: strings.Repeat("1", 40)}, ErrNotFound, "no commit"},
		{"no_directory", graph.GitSource{Remote: url + main, Subdir: "x/y"}, ErrNotFound, "no directory x/y"},
		{"checksum", graph.GitSource{Remote: url + main, Checksum: "0123"}, ErrChecksum, "want 0123"},
		{"denied", graph.GitSource{Remote: private + main}, ErrDenied, "GIT_AUTH_TOKEN"},
		{"local", graph.GitSource{Remote: "file://" + dir + main}, ErrNotFound, "file is no way"},
		{"path", graph.GitSource{Remote: dir + main}, ErrNotFound, "file is no way"},
		{"ssh_without_agent", graph.GitSource{Remote: "ssh://git@127.0.0.1/x.git", Agent: "default"}, ErrDenied, "add --ssh default"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := (&Client{TempDir: t.TempDir()}).Checkout(t.Context(), &tc.source, t.TempDir())
			assert.ErrorIs(t, err, tc.kind)
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

// A token goes to the server that it is for, and into no message.
func TestCheckout_token(t *testing.T) {
	t.Parallel()
	dir, _ := gitserver.Repositories(t)
	url := gitserver.Serve(t, dir, "secret")
	s := graph.GitSource{Remote: url + "/main.git", TokenSecret: "TOKEN", HeaderSecret: "HEADER"}
	host := strings.TrimPrefix(url, "http://")
	for _, secrets := range []map[string][]byte{
		{"TOKEN": []byte("secret")},
		{"TOKEN." + host: []byte("secret"), "TOKEN": []byte("wrong")},
		{"HEADER": []byte("basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:secret")))},
	} {
		assert.NilError(t, (&Client{Secrets: secrets, TempDir: t.TempDir()}).Checkout(t.Context(), &s, t.TempDir()))
	}
	assert.Check(t, is.Equal(hostOnly("TOKEN", "https://other/x.git"), "TOKEN.other"))
	s.Remote = strings.Replace(s.Remote, "://", "://user:hunter2@", 1)
	err := (&Client{TempDir: t.TempDir()}).Checkout(t.Context(), &s, t.TempDir())
	assert.ErrorIs(t, err, ErrDenied)
	assert.Check(t, !strings.Contains(err.Error(), "hunter2"), err.Error())
}

// A file that is too large for the memory is streamed.
func TestCheckout_large_file(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	gitserver.Run(t, dir, "init", "-q", "r.git")
	data := make([]byte, maxInMemory+1)
	_, _ = rand.Read(data)
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "r.git", "large"), data, 0o644))
	gitserver.Run(t, dir+"/r.git", "add", ".")
	gitserver.Run(t, dir+"/r.git", "commit", "-qm", "large")
	out := t.TempDir()
	s := graph.GitSource{Remote: gitserver.Serve(t, dir, "") + "/r.git"}
	assert.NilError(t, (&Client{TempDir: t.TempDir()}).Checkout(t.Context(), &s, out))
	got, err := os.ReadFile(filepath.Join(out, "large"))
	assert.NilError(t, err)
	assert.Check(t, bytes.Equal(got, data))
}

// Credentials in the URL log in, and are neither in the files nor in a message; a
// token is often the user's name.
func TestCheckout_credentials_in_URL(t *testing.T) {
	t.Parallel()
	dir, _ := gitserver.Repositories(t)
	url := gitserver.Serve(t, dir, "secret")
	out := t.TempDir()
	s := graph.GitSource{Remote: strings.Replace(url, "://", "://x-access-token:secret@", 1) + "/main.git", KeepDir: true}
	assert.NilError(t, (&Client{TempDir: t.TempDir()}).Checkout(t.Context(), &s, out))
	assert.Check(t, is.Equal(files(t, out)["modules/sub/in/side"], "-rw-r--r-- sub"))
	config, err := os.ReadFile(filepath.Join(out, ".git", "config"))
	assert.NilError(t, err)
	assert.Check(t, is.Contains(string(config), "http://127.0.0.1"))
	assert.Check(t, !strings.Contains(string(config), "@"), string(config))

	for _, bad := range []string{"://hunter2@", "://user:hunter2@", "://user:hunter%zz2@"} {
		s.Remote = strings.Replace(url, "://", bad, 1) + "/main.git"
		err := (&Client{TempDir: t.TempDir()}).Checkout(t.Context(), &s, t.TempDir())
		assert.Check(t, err != nil && !strings.Contains(err.Error(), "hunter"), "%v", err)
	}
	assert.Check(t, is.Equal(public("ssh://git:hunter2@h/x"), "ssh://git@h/x"))
	assert.Check(t, is.Equal(public("git@h:x"), "git@h:x"))
}

func TestRelative(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ base, address, want string }{
		{"https://h/a/b.git", "../c.git", "https://h/a/c.git"},
		{"https://u:p@h/a/b.git", "./c", "https://u:p@h/a/b.git/c"},
		{"git@h:a/b.git", "../c.git", "git@h:a/c.git"},
		{"https://h/a", "ssh://x/y", "ssh://x/y"},
	} {
		got, err := relative(tc.base, tc.address)
		assert.NilError(t, err)
		assert.Check(t, is.Equal(got, tc.want))
	}
}
