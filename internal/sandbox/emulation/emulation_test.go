package emulation

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// interpreters are QEMU's names of the architectures.
var interpreters = map[string]string{
	"amd64": "x86_64", "386": "i386", "arm64": "aarch64", "arm": "arm", "riscv64": "riscv64", "s390x": "s390x",
	"ppc64le": "ppc64le", "ppc64": "ppc64", "mips64le": "mips64el", "mips64": "mips64", "loong64": "loongarch64",
}

func TestProbe_programs_end_well(t *testing.T) {
	t.Parallel()
	for arch, qemu := range interpreters {
		t.Run(arch, func(t *testing.T) {
			t.Parallel()
			p, ok := probeFor(ocispecs.Platform{OS: "linux", Architecture: arch})
			assert.Assert(t, ok)
			content := p.file()
			_, err := elf.NewFile(bytes.NewReader(content))
			assert.NilError(t, err)
			got, ok := architectureOf(content)
			assert.Assert(t, ok)
			assert.Equal(t, got, arch)

			interpreter, err := exec.LookPath("qemu-" + qemu + "-static")
			if err != nil {
				t.Skip("needs qemu-" + qemu + "-static")
			}
			path := filepath.Join(t.TempDir(), "probe")
			assert.NilError(t, os.WriteFile(path, content, 0o700))
			out, err := exec.Command(interpreter, path).CombinedOutput()
			assert.NilError(t, err, "%s", out)
		})
	}
}

func TestProbe_native(t *testing.T) {
	t.Parallel()
	p := New(noEnv)
	got, err := p.Probe(platforms.DefaultSpec())
	assert.NilError(t, err)
	assert.Equal(t, got, Native)
	assert.NilError(t, p.Require(platforms.DefaultSpec()))

	// The program of our own architecture must run, too.
	program, ok := probeFor(p.host)
	if !ok {
		t.Skip("no probe for " + runtime.GOARCH)
	}
	why, err := p.run(program.file())
	assert.NilError(t, err)
	assert.Assert(t, why == nil)
}

func TestProbe_what_never_runs(t *testing.T) {
	t.Parallel()
	p := New(noEnv)
	for name, want := range map[string]ocispecs.Platform{
		"other_system":  {OS: "windows", Architecture: runtime.GOARCH},
		"other_machine": {OS: "linux", Architecture: "sparc64"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := p.Probe(want)
			assert.NilError(t, err)
			assert.Equal(t, got, None)
			var missing *sandbox.UnsupportedError
			assert.Assert(t, errors.As(p.Require(want), &missing))
			assert.Equal(t, missing.Fix, "build it on a machine of that platform")
		})
	}
}

func TestProbe_asks_once(t *testing.T) {
	t.Parallel()
	p := New(noEnv)
	want := platforms.Normalize(ocispecs.Platform{OS: "linux", Architecture: "loong64"})
	first, err := p.Probe(want)
	assert.NilError(t, err)
	p.dirs = nil
	second, err := p.Probe(want)
	assert.NilError(t, err)
	assert.Equal(t, second, first)
}

func TestProbe_foreign_file(t *testing.T) {
	t.Parallel()
	p := New(noEnv)
	// Nothing is ever registered for these bytes.
	program, _ := probeFor(ocispecs.Platform{Architecture: "arm64"})
	program.machine = 0xfff0
	why, err := p.run(program.file())
	assert.NilError(t, err)
	assert.Equal(t, *why, unregistered)
	assert.Equal(t, p.Explain(program.file()), "it is built for an architecture that is not known here")
	assert.Equal(t, p.Explain([]byte("echo hello")), `it is neither an ELF program nor a script with a "#!" line`)
}

func TestProbe_emulated(t *testing.T) {
	t.Parallel()
	want := ocispecs.Platform{OS: "linux", Architecture: "arm64"}
	if runtime.GOARCH == "arm64" {
		want.Architecture = "amd64"
	}
	p := New(noEnv)
	got, err := p.Probe(want)
	assert.NilError(t, err)
	if got == None {
		t.Skip("needs QEMU registered in binfmt_misc for " + want.Architecture)
	}
	assert.Equal(t, got, Emulated)
	assert.NilError(t, p.Require(want))
}

func TestFix(t *testing.T) {
	t.Parallel()
	arm64 := ocispecs.Platform{OS: "linux", Architecture: "arm64"}
	s390x := ocispecs.Platform{OS: "linux", Architecture: "s390x"}
	for name, tc := range map[string]struct {
		env      map[string]string
		platform ocispecs.Platform
		cause    cause
		want     []string
		not      string
	}{
		"github":             {map[string]string{"GITHUB_ACTIONS": "true"}, arm64, unregistered, []string{"docker/setup-qemu-action", "ubuntu-24.04-arm"}, "flag F"},
		"github_not_arm":     {map[string]string{"GITHUB_ACTIONS": "true"}, s390x, unregistered, []string{"docker/setup-qemu-action", "s390x"}, "ubuntu"},
		"gitlab":             {map[string]string{"GITLAB_CI": "true"}, arm64, unregistered, []string{"tonistiigi/binfmt --install arm64", "saas-linux-small-arm64"}, "flag F"},
		"gitlab_in_cluster":  {map[string]string{"GITLAB_CI": "true", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, arm64, unregistered, []string{"kubernetes.io/arch: arm64"}, "saas"},
		"registered_not_f":   {map[string]string{"GITHUB_ACTIONS": "true"}, s390x, notFixed, []string{"without flag F", "docker/setup-qemu-action"}, "ubuntu"},
		"interpreter_failed": {map[string]string{"GITLAB_CI": "true"}, s390x, crashed, []string{"newer", "--install s390x"}, "flag F"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := here(func(key string) string { return tc.env[key] }).fix(tc.platform, tc.cause)
			for _, want := range tc.want {
				assert.Assert(t, strings.Contains(got, want), got)
			}
			assert.Assert(t, !strings.Contains(got, tc.not), got)
		})
	}
	assert.Assert(t, strings.HasPrefix(machine.fix(arm64, unregistered), "run `apt-get install qemu-user-static"))
	assert.Assert(t, strings.HasPrefix(machineAsUser.fix(arm64, unregistered), "run `sudo apt-get install"))
	assert.Assert(t, strings.Contains(container.fix(arm64, unregistered), "on the host of this container"))
}

func noEnv(string) string { return "" }
