package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/registry"
	"github.com/org/kaniko-multiarch/internal/sandbox"
	support "github.com/org/kaniko-multiarch/internal/sandbox/emulation"
)

func works(name string) Isolation {
	return Isolation{Name: name, Detail: "works", Try: func(context.Context) error { return nil }}
}

func fails(name string) Isolation {
	return Isolation{Name: name, Detail: "works", Try: func(context.Context) error {
		return &sandbox.UnsupportedError{What: "no " + name, Fix: "get " + name}
	}}
}

// emulator runs the programs of the platforms that it has.
type emulator map[string]support.Support

var errProbe = errors.New("read-only file system")

func (e emulator) Probe(p ocispecs.Platform) (support.Support, error) {
	if p.Architecture == "mips64" {
		return support.None, errProbe
	}
	return e[platform.Format(p)], nil
}

func (e emulator) Require(p ocispecs.Platform) error {
	return &sandbox.UnsupportedError{What: "cannot run programs of " + platform.Format(p), Fix: "install QEMU for " + p.Architecture}
}

// answers is a registry by the error that it gives each repository.
type answers struct {
	head, push map[string]error
	asked      []string
}

func (a *answers) Head(_ context.Context, r registry.Ref) (ocispecs.Descriptor, error) {
	a.asked = append(a.asked, "head "+r.String())
	return ocispecs.Descriptor{}, a.head[r.Registry]
}

func (a *answers) CheckPush(_ context.Context, r registry.Ref) error {
	a.asked = append(a.asked, "push "+r.Name())
	if err := a.push[r.Repository]; err != nil {
		return fmt.Errorf("trying to push to %s: %w", r.Name(), err)
	}
	return nil
}

func TestIsolations(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		list []Isolation
		want []Check
	}{
		{"one_works", []Isolation{works("a")}, []Check{{"isolation", "a", OK, "works", ""}}},
		{"one_fails", []Isolation{fails("a")}, []Check{{"isolation", "a", Lack, "no a", "get a"}}},
		{"one_of_two_is_enough", []Isolation{fails("a"), works("b")}, []Check{
			{"isolation", "a", Note, "no a", "get a"}, {"isolation", "b", OK, "works", ""}}},
		{"the_first_is_enough", []Isolation{works("a"), fails("b")}, []Check{
			{"isolation", "a", OK, "works", ""}, {"isolation", "b", Note, "no b", "get b"}}},
		{"none_works", []Isolation{fails("a"), fails("b")}, []Check{
			{"isolation", "a", Lack, "no a", "get a"}, {"isolation", "b", Lack, "no b", "get b"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			assert.DeepEqual(t, isolations(t.Context(), tc.list), tc.want)
		})
	}
}

func TestEmulation(t *testing.T) {
	t.Parallel()
	e := emulator{"linux/amd64": support.Native, "linux/arm64": support.Emulated}
	amd, arm, s390x, mips := parse(t, "linux/amd64"), parse(t, "linux/arm64"), parse(t, "linux/s390x"), parse(t, "linux/mips64")

	assert.DeepEqual(t, emulation(e, []ocispecs.Platform{s390x, arm, amd, mips}), []Check{
		{"emulation", "linux/s390x", Lack, "cannot run programs of linux/s390x", "install QEMU for s390x"},
		{"emulation", "linux/arm64", OK, "its programs run here, emulated", ""},
		{"emulation", "linux/amd64", OK, "its programs run here, native", ""},
		{"emulation", "linux/mips64", Lack, errProbe.Error(), "make one of the directories /tmp, /var/tmp and /dev/shm writable, without noexec"},
	})
	found := emulation(e, nil)
	assert.Equal(t, len(found), len(common))
	for i, c := range found {
		assert.Equal(t, c.Subject, common[i])
		want := Note
		if c.Subject == "linux/amd64" || c.Subject == "linux/arm64" {
			want = OK
		}
		assert.Equal(t, c.Status, want, "none was asked for: %v", c)
	}
}

func TestRoom(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		free     uint64
		noInodes bool
		want     Status
		detail   string
	}{
		{"much", 100 << 30, false, OK, "100GiB free"},
		{"just_enough", littleDisk, false, OK, "4GiB free"},
		{"little", littleDisk - 1, false, Note, "4GiB free"},
		{"too_little", noDisk - 1, false, Lack, "512MiB free"},
		{"no_inodes", 100 << 30, true, Lack, "no inode is free"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := room(Check{}, tc.free, tc.noInodes)
			assert.Equal(t, c.Status, tc.want)
			assert.Equal(t, c.Detail, tc.detail)
			assert.Equal(t, c.Fix == "", tc.want == OK)
		})
	}
}

func TestDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	assert.NilError(t, os.WriteFile(file, nil, 0o644))

	c := disk(filepath.Join(dir, "not", "there"))
	assert.Check(t, is.Contains(c.Detail, " free"))
	_, err := os.Stat(filepath.Join(dir, "not"))
	assert.Check(t, errors.Is(err, os.ErrNotExist), "looking makes no directory")

	c = disk(file)
	assert.DeepEqual(t, c, Check{"disk", file, Lack, file + " is not a directory", "name another directory with --state-dir"})
	c = disk(filepath.Join(file, "below"))
	assert.Equal(t, c.Status, Lack)
}

func TestMemory(t *testing.T) {
	t.Parallel()
	const total = "MemTotal:       8388608 kB\nMemFree: 1 kB\nMemAvailable:   4194304 kB\n"
	for _, tc := range []struct {
		name   string
		files  map[string]string
		status Status
		detail string
	}{
		{"no_groups", map[string]string{"proc/meminfo": total}, OK, "8GiB, 4GiB available"},
		{"v2_without_limit", map[string]string{"proc/meminfo": total, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "max\n"}, OK, "8GiB, 4GiB available"},
		{"v2_limit_above", map[string]string{"proc/meminfo": total, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "3221225472\n", "sys/fs/cgroup/a/memory.max": "2147483648\n"},
			OK, "limited to 2GiB by /sys/fs/cgroup/a/memory.max; the machine has 8GiB, 4GiB available"},
		{"v1_in_a_container", map[string]string{"proc/meminfo": total,
			"proc/self/cgroup":                           "9:name=systemd:/docker/x\n5:cpu,memory:/docker/x\n0::/docker/x\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "268435456\n"},
			Note, "limited to 256MiB by /sys/fs/cgroup/memory/memory.limit_in_bytes; the machine has 8GiB, 4GiB available"},
		{"v1_unlimited", map[string]string{"proc/meminfo": total, "proc/self/cgroup": "5:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, OK, "8GiB, 4GiB available"},
		{"small_machine", map[string]string{"proc/meminfo": "MemTotal: 262144 kB\n"}, Note, "256MiB, 0B available"},
		{"no_proc", nil, Note, "reading /proc/meminfo: open proc/meminfo: file does not exist"},
		{"odd_meminfo", map[string]string{"proc/meminfo": "MemTotal: lots\nX\n"}, Note, "/proc/meminfo has no MemTotal"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			root := fstest.MapFS{}
			for name, content := range tc.files {
				root[name] = &fstest.MapFile{Data: []byte(content)}
			}
			c := memory(root)
			assert.Equal(t, c.Detail, tc.detail)
			assert.Equal(t, c.Status, tc.status)
			assert.Equal(t, c.Fix == "", tc.status == OK)
		})
	}
}

func TestDestinations(t *testing.T) {
	t.Parallel()
	a := &answers{
		head: map[string]error{
			"gone.example": fmt.Errorf("no route: %w", registry.ErrUnavailable),
			"new.example":  registry.ErrNotFound, "shy.example": registry.ErrDenied,
		},
		push: map[string]error{
			"denied": registry.ErrDenied, "absent": registry.ErrNotFound, "frozen": registry.ErrRejected,
		},
	}
	var refs []registry.Ref
	for _, s := range []string{
		"new.example/ok:1", "gone.example/a:1", "gone.example/b:1", "new.example/ok:2", "shy.example/denied",
		"new.example/absent", "new.example/frozen",
	} {
		refs = append(refs, ref(t, s))
	}
	got := destinations(t.Context(), a, refs)
	for i := range got {
		assert.Equal(t, got[i].Fix == "", got[i].Status == OK, "%v", got[i])
		assert.Check(t, !strings.Contains(got[i].Detail, "trying"), "%v", got[i])
		got[i].Detail, got[i].Fix = "", ""
	}
	assert.DeepEqual(t, got, []Check{
		{"registry", "new.example", OK, "", ""}, {"push", "new.example/ok", OK, "", ""},
		{"registry", "gone.example", Lack, "", ""},
		{"registry", "shy.example", OK, "", ""}, {"push", "shy.example/denied", Lack, "", ""},
		{"push", "new.example/absent", Lack, "", ""}, {"push", "new.example/frozen", Lack, "", ""},
	})
	assert.DeepEqual(t, a.asked, []string{
		"head new.example/ok:1", "push new.example/ok", "head gone.example/a:1", "head shy.example/denied", "push shy.example/denied",
		"push new.example/absent", "push new.example/frozen",
	})
}

// sessions is a registry that notes what is asked of it and may refuse uploads.
type sessions struct {
	next   http.Handler
	refuse int

	mu   sync.Mutex
	seen []string
	open int
}

func (s *sessions) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		s.seen = append(s.seen, r.Method)
	}
	switch {
	case r.Method == http.MethodPost && s.refuse != 0:
		w.WriteHeader(s.refuse)
	case r.Method == http.MethodPost:
		s.open++
		w.Header().Set("Location", r.URL.Path+"session")
		w.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodDelete:
		s.open--
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPatch:
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusBadRequest)
	default:
		s.next.ServeHTTP(w, r)
	}
}

// The real client against a real protocol: nothing is stored, no session stays.
func TestPush_leaves_nothing(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		refuse int
		want   Status
		detail string
		fix    string
	}{
		{"allowed", 0, OK, "allowed: it accepted an upload, which was cancelled", ""},
		{"unauthorized", http.StatusUnauthorized, Lack, "401 Unauthorized", "credentials that may push"},
		{"forbidden", http.StatusForbidden, Lack, "403 Forbidden", "credentials that may push"},
		{"no_repository", http.StatusNotFound, Lack, "404 Not Found", "create the repository"},
		{"read_only", http.StatusMethodNotAllowed, Lack, "405 Method Not Allowed", "takes pushes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := &sessions{next: ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))), refuse: tc.refuse}
			server := httptest.NewServer(s)
			t.Cleanup(server.Close)
			client, err := registry.New(registry.Options{Getenv: func(string) string { return "" }, Retry: registry.Retry{Count: -1}})
			assert.NilError(t, err)
			got := destinations(t.Context(), client, []registry.Ref{ref(t, strings.TrimPrefix(server.URL, "http://")+"/a/b:1")})
			assert.Equal(t, len(got), 2)
			assert.Equal(t, got[0].Status, OK, "%v", got[0])
			assert.Equal(t, got[1].Status, tc.want, "%v", got[1])
			assert.Check(t, is.Contains(got[1].Detail, tc.detail))
			assert.Check(t, is.Contains(got[1].Fix, tc.fix))
			assert.Check(t, !strings.Contains(got[1].Detail, "sha256:"), got[1].Detail)
			s.mu.Lock()
			defer s.mu.Unlock()
			assert.Equal(t, s.open, 0, "%v", s.seen)
			for _, method := range s.seen {
				assert.Check(t, method != http.MethodPut, "something was stored")
			}
		})
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	options := func() Options {
		return Options{
			Isolations: []Isolation{fails("namespaces"), works("inplace")},
			Platforms:  []ocispecs.Platform{parse(t, "linux/arm64")}, Emulator: emulator{"linux/arm64": support.Emulated},
			StateDir: t.TempDir(), Destinations: []registry.Ref{ref(t, "r.example/a:1")}, Registry: &answers{},
		}
	}
	for _, tc := range []struct {
		name   string
		change func(*Options)
		lacks  string
	}{
		{"ready", func(*Options) {}, ""},
		{"no_isolation", func(o *Options) { o.Isolations = o.Isolations[:1] }, "isolation namespaces"},
		{"no_emulation", func(o *Options) { o.Emulator = emulator{} }, "emulation linux/arm64"},
		{"no_emulation_asked_for", func(o *Options) { o.Emulator, o.Platforms = emulator{}, nil }, ""},
		{"no_registry", func(o *Options) {
			o.Registry = &answers{head: map[string]error{"r.example": registry.ErrUnavailable}}
		}, "registry r.example"},
		{"no_push", func(o *Options) { o.Registry = &answers{push: map[string]error{"a": registry.ErrDenied}} }, "push r.example/a"},
		{"two", func(o *Options) {
			o.Emulator, o.Registry = emulator{}, &answers{push: map[string]error{"a": registry.ErrDenied}}
		}, "emulation linux/arm64, push r.example/a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o := options()
			tc.change(&o)
			r, err := Run(t.Context(), o)
			assert.NilError(t, err)
			assert.Equal(t, r.Lacks(), tc.lacks)
			assert.Equal(t, r.Ready, tc.lacks == "")
			var kinds []string
			for _, c := range r.Checks {
				if len(kinds) == 0 || kinds[len(kinds)-1] != c.Kind {
					kinds = append(kinds, c.Kind)
				}
			}
			assert.Equal(t, strings.TrimSuffix(strings.Join(kinds, " "), " push"), "isolation emulation disk memory registry")
		})
	}
}

func TestRun_ends_when_cancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("stop")
	cancel(cause)
	_, err := Run(ctx, Options{Emulator: emulator{}, StateDir: t.TempDir()})
	assert.ErrorIs(t, err, cause)
}

func TestText(t *testing.T) {
	t.Parallel()
	r := &Report{Checks: []Check{
		{"isolation", "inplace", OK, "works", ""},
		{"emulation", "linux/arm64", Lack, "no\nQEMU", "install it"},
		{"memory", "", Note, "1GiB", "buy some"},
	}}
	var out bytes.Buffer
	assert.NilError(t, r.WriteText(&out))
	assert.Equal(t, out.String(), strings.Join([]string{
		"ok    isolation  inplace      works",
		"lack  emulation  linux/arm64  no QEMU. Fix: install it",
		"note  memory                  1GiB. Fix: buy some",
		"",
	}, "\n"))
	data, err := json.Marshal(r.Checks[0])
	assert.NilError(t, err)
	assert.Equal(t, string(data), `{"kind":"isolation","subject":"inplace","status":"ok","detail":"works"}`)
}

func parse(t *testing.T, s string) ocispecs.Platform {
	t.Helper()
	p, err := platform.Parse(s)
	assert.NilError(t, err)
	return p
}

func ref(t *testing.T, s string) registry.Ref {
	t.Helper()
	r, err := registry.ParseRef(s)
	assert.NilError(t, err)
	return r
}
