package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// archive is a context as kaniko takes it: a tar, compressed with gzip.
func archive(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for name, text := range files {
		assert.NilError(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Uid: 1000, Gid: 1000, Size: int64(len(text))}))
		_, err := w.Write([]byte(text))
		assert.NilError(t, err)
	}
	assert.NilError(t, w.Close())
	assert.NilError(t, z.Close())
	return out.Bytes()
}

// A context can come from elsewhere, in kaniko's words, in a container that has
// neither git nor tar.
func TestContexts(t *testing.T) {
	t.Parallel()
	needRoot(t)
	registry, bases := service(t, "KMA_TEST_REGISTRY"), service(t, "KMA_TEST_BASES")
	docker := service(t, "KMA_TEST_DOCKER")
	image, err := toolImage()
	assert.NilError(t, err)
	files := map[string]string{
		"app/Dockerfile": "FROM " + bases + "/busybox:1\nCOPY text /text\nRUN [ \"$(stat -c %u /text)\" = 0 ] && cat /text\n", "app/text": "from afar\n",
	}
	data := archive(t, files)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Query().Get("sig") != "hunter2":
			w.WriteHeader(http.StatusForbidden)
		case strings.HasSuffix(r.URL.Path, "/Dockerfile"):
			_, _ = w.Write([]byte(files["app/Dockerfile"]))
		default:
			_, _ = w.Write(data)
		}
	}))
	t.Cleanup(web.Close)
	dir := contextDir(t, files)
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "c.tar.gz"), data, 0o644))
	for _, tc := range []struct {
		name  string
		args  []string
		stdin []byte
		code  int
		want  string
	}{
		{"tar", []string{"--context=tar:///workspace/c.tar.gz"}, nil, 0, ""},
		{"tar_relative", []string{"--context=tar://c.tar.gz"}, nil, 0, ""},
		{"stdin", []string{"--context=tar://stdin"}, data, 0, ""},
		{"https", []string{"--context=" + web.URL + "/c.tar.gz?sig=hunter2"}, nil, 0, ""},
		{"directory", []string{"--context=dir:///workspace"}, nil, 0, ""},
		{"dockerfile_url", []string{"--context=/workspace", "--dockerfile=" + web.URL + "/Dockerfile?sig=hunter2"}, nil, 0, ""},
		{"refused", []string{"--context=" + web.URL + "/c.tar.gz?sig=hunter3"}, nil, 3, "403"},
		{"no_archive", []string{"--context=tar://app/text"}, nil, 3, "want a tar"},
		{"nothing", []string{"--context=tar://stdin"}, nil, 3, "the standard input"},
		{"s3", []string{"--context=s3://bucket/c.tar.gz"}, nil, 2, "s3://"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			to := registry + "/contexts/" + tc.name + ":1"
			args := append([]string{"run", "--rm", "-i", "--network=host", "-v", dir + ":/workspace", image, "--context-sub-path=app", "--destination=" + to}, tc.args...)
			cmd := exec.CommandContext(t.Context(), docker, args...)
			cmd.Stdin = bytes.NewReader(tc.stdin)
			r := finished(t, cmd)
			assert.Check(t, is.Equal(r.code, tc.code), r.stderr)
			assert.Check(t, !strings.Contains(r.stderr, "hunter"), r.stderr)
			assert.Check(t, is.Contains(r.stderr, tc.want))
			if tc.code == 0 {
				img, err := descriptor(t, to).Image()
				assert.NilError(t, err)
				assert.Check(t, is.Equal(fileOf(t, img, "text"), "from afar\n"))
			}
		})
	}
}
