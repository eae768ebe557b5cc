package local

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// contextTar is a context that somebody else has packed.
func contextTar(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "dir/", Mode: 0o755, Uid: 12345, Gid: 12346},
		{Name: "dir/Dockerfile", Mode: 0o640, Uid: 12345, Gid: 12346, Size: 13},
		{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "dir", Uid: 12345, Gid: 12346},
	} {
		assert.NilError(t, w.WriteHeader(h))
		_, err := w.Write([]byte("FROM scratch\n")[:h.Size])
		assert.NilError(t, err)
	}
	assert.NilError(t, w.Close())
	return out.Bytes()
}

// An ordinary user can unpack what somebody else has packed.
func TestUnpack_owner(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	assert.NilError(t, unpack(t.Context(), bytes.NewReader(contextTar(t)), "x", dir))
	for _, name := range []string{"dir", "dir/Dockerfile", "link"} {
		info, err := os.Lstat(filepath.Join(dir, name))
		assert.NilError(t, err)
		st := info.Sys().(*syscall.Stat_t)
		assert.Check(t, is.Equal(int(st.Uid), os.Geteuid()), name)
		assert.Check(t, is.Equal(int(st.Gid), os.Getegid()), name)
	}
}

// Advice about archives is for those who gave something else.
func TestUnpack_advice(t *testing.T) {
	t.Parallel()
	const advice = "want a tar"
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		ctx     context.Context
		data    []byte
		dir     string
		advised bool
	}{
		"no_tar":       {t.Context(), []byte(strings.Repeat("FROM scratch\n", 100)), t.TempDir(), true},
		"nothing":      {t.Context(), nil, t.TempDir(), true},
		"cancelled":    {cancelled, contextTar(t), t.TempDir(), false},
		"no_directory": {t.Context(), contextTar(t), filepath.Join(t.TempDir(), "none"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := unpack(tc.ctx, bytes.NewReader(tc.data), "x", tc.dir)
			assert.ErrorContains(t, err, "x")
			assert.Equal(t, strings.Contains(err.Error(), advice), tc.advised, "%v", err)
		})
	}
}
