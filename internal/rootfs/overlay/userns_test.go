package overlay

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/ids"
	"github.com/org/kaniko-multiarch/internal/rootfs"
)

// inUserNamespace runs tests in a user namespace with the first ids, a mount
// namespace of its own included.
func inUserNamespace(t *testing.T, ids int, run, skip string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if os.Getenv(inNamespace) == "user" {
		t.Skip("is in one")
	}
	maps := []syscall.SysProcIDMap{{Size: ids}}
	cmd := exec.Command("/proc/self/exe", "-test.run="+run, "-test.skip="+skip, "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), inNamespace+"=user")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: maps, GidMappings: maps, GidMappingsEnableSetgroups: true,
	}
	// No pipe: what a failed test leaves running would hold it open.
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	assert.NilError(t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	failed := cmd.Run()
	out, err := os.ReadFile(log.Name())
	assert.NilError(t, err)
	assert.NilError(t, failed, "%s", out)
	assert.Assert(t, strings.Contains(string(out), "--- PASS"), "%s", out)
}

// What root can do, a user namespace with the usual ids can, but for devices.
func TestInUserNamespace(t *testing.T) {
	t.Parallel()
	inUserNamespace(t, 65536, "", "TestDiff/device|TestInUser|StandIn")
}

func TestInUserNamespaceStandIns(t *testing.T) {
	t.Parallel()
	inUserNamespace(t, 1, "^TestStandIns$", "")
}

// owned is an entry of a layer that belongs to somebody.
type owned struct {
	name     string
	kind     byte
	uid, gid int
	data     string
}

func makeOwned(t *testing.T, items ...owned) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, i := range items {
		hdr := &tar.Header{Name: i.name, Typeflag: i.kind, Uid: i.uid, Gid: i.gid, Mode: 0o755, ModTime: time.Unix(1000, 0), Devmajor: 1, Devminor: 3}
		if i.kind == tar.TypeSymlink {
			hdr.Linkname = i.data
		}
		if i.kind == tar.TypeReg {
			hdr.Size = int64(len(i.data))
		}
		assert.NilError(t, w.WriteHeader(hdr))
		_, err := w.Write([]byte(i.data)[:hdr.Size])
		assert.NilError(t, err)
	}
	assert.NilError(t, w.Close())
	return buf.Bytes()
}

// In a namespace with one id, files of others are root's, and may be in no
// layer that is made there.
func TestStandIns(t *testing.T) {
	if os.Getenv(inNamespace) != "user" {
		t.Skip("for a user namespace with one id")
	}
	s := newStore(t, t.TempDir())
	lower := base(t, s, makeOwned(t,
		owned{"etc/", tar.TypeDir, 0, 0, ""}, owned{"etc/shadow", tar.TypeReg, 0, 42, "secret"}, owned{"etc/passwd", tar.TypeReg, 0, 0, "root:x"},
		owned{"mail/", tar.TypeDir, 0, 8, ""}, owned{"mail/old", tar.TypeReg, 0, 0, "old"}, owned{"null", tar.TypeChar, 0, 0, ""},
	))
	upper := base(t, s, makeOwned(t, owned{"other", tar.TypeReg, 0, 0, ""}))
	const nobody = "its owner is 0:42: this user or group id is not there"
	for _, tc := range []struct{ name, script, err string }{
		{"others", "echo >>etc/passwd; cat etc/shadow >new; [ $(stat -c %u:%g etc/shadow) = 0:0 ]", ""},
		{"removed", "rm etc/shadow null; rm -r mail", ""},
		{"opened", ": >>etc/shadow", ""},
		{"chmod_and_back", "chmod 700 etc/shadow; chmod 755 etc/shadow", ""},
		{"changed", "echo >>etc/shadow", "/etc/shadow cannot be put into a layer: " + nobody},
		{"renamed", "mv etc/shadow etc/shadow-", "/etc/shadow- cannot be put into a layer: " + nobody},
		{"replaced", "echo x >etc/new; mv etc/new etc/shadow", "/etc/shadow cannot be put into a layer: " + nobody},
		{"directory_changed", "chmod 700 mail", "/mail cannot be put into a layer: its owner is 0:8: "},
		{"below_a_directory", "echo x >mail/new", "/mail cannot be put into a layer: its owner is 0:8: "},
		{"removed_below_a_directory", "rm mail/old", "/mail cannot be put into a layer: its owner is 0:8: "},
		{"copied", "cp etc/shadow copy", ""},
		{"copied_with_owner", "cp -p etc/shadow copy; chmod 700 copy; chmod 755 copy", "/copy cannot be put into a layer: it looks like a copy of a file that is not root's"},
		{"copied_directory_with_owner", "mkdir copy; chmod --reference=mail copy; touch -r mail copy", "/copy cannot be put into a layer: it looks like a copy of"},
		{"device", "chmod 600 null", "/null cannot be put into a layer: it is a device: this takes root"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, err := s.Work(t.Context(), []rootfs.Layer{lower, upper})
			assert.NilError(t, err)
			cmd := exec.Command("bash", "-euc", tc.script)
			cmd.Dir = w.Path()
			out, err := cmd.CombinedOutput()
			assert.NilError(t, err, "%s", out)
			_, err = w.Commit(t.Context())
			if tc.err == "" {
				assert.NilError(t, err)
				return
			}
			assert.ErrorContains(t, err, tc.err)
			_, ok := errors.AsType[*ids.MissingError](err)
			assert.Assert(t, ok)
		})
	}
	// A link cannot be marked: its layer is refused.
	data := makeOwned(t, owned{"link", tar.TypeSymlink, 7, 7, "x"})
	_, err := s.Base(t.Context(), digest.FromBytes(data), opener(data))
	assert.ErrorContains(t, err, `unpacking "link": its owner is 7:7: this user or group id is not there`)
}
