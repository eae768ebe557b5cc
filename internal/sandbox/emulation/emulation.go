// Package emulation finds out whether this machine can run the programs of a
// platform, and says what to do when it cannot.
//
// It runs a tiny program of the platform instead of reading binfmt_misc: a
// container does not see the registrations of its host, but they work in it. It
// must not know what the programs are for.
package emulation

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/cpu"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// Support says how a platform's programs run here.
type Support int

const (
	// None means that they do not run.
	None Support = iota
	// Emulated means that an interpreter such as QEMU runs them.
	Emulated
	// Native means that the processor runs them.
	Native
)

func (s Support) String() string {
	return [...]string{"none", "emulated", "native"}[s]
}

// cause is why a program did not run.
type cause int

const (
	unregistered cause = iota
	// notFixed: an interpreter is registered without flag F, so the kernel looks
	// for it in the root directory of the program.
	notFixed
	// crashed: the program was started and did not end well.
	crashed
	// unknown: there is no probe for the platform.
	unknown
	// tooNew: the processor lacks instructions of the platform's variant.
	tooNew
)

// Prober answers for this machine. It asks the machine once for each platform.
type Prober struct {
	place place
	host  ocispecs.Platform
	dirs  []string

	mu    sync.Mutex
	known map[string]outcome
}

type outcome struct {
	support Support
	cause   cause
	err     error
}

// New returns a Prober. getenv tells it which CI system it is in, to name the
// right fix.
func New(getenv func(string) string) *Prober {
	return &Prober{
		place: here(getenv),
		host:  platforms.Normalize(platforms.DefaultSpec()),
		dirs:  []string{os.TempDir(), "/var/tmp", "/dev/shm", "."},
		known: map[string]outcome{},
	}
}

// Probe says how programs of p run here, within a root directory of their own.
// The error means that it could not be found out.
func (p *Prober) Probe(want ocispecs.Platform) (Support, error) {
	o := p.ask(platforms.Normalize(want))
	return o.support, o.err
}

// Require returns nil when programs of p run here and otherwise a
// *sandbox.UnsupportedError with the fix.
func (p *Prober) Require(want ocispecs.Platform) error {
	want = platforms.Normalize(want)
	o := p.ask(want)
	if o.err != nil || o.support != None {
		return o.err
	}
	return &sandbox.UnsupportedError{
		What: fmt.Sprintf("cannot run programs of %s on %s", platforms.Format(want), platforms.Format(p.host)),
		Fix:  p.place.fix(want, o.cause),
	}
}

// Explain says what an executable file that starts with head needs, when the
// kernel refused to run it as a foreign or broken program.
func (p *Prober) Explain(head []byte) string {
	arch, ok := architectureOf(head)
	switch {
	case !ok:
		return `it is neither an ELF program nor a script with a "#!" line`
	case arch == "":
		return "it is built for an architecture that is not known here"
	case arch == p.host.Architecture:
		return "it is built for this architecture but broken"
	}
	want := platforms.Normalize(ocispecs.Platform{OS: "linux", Architecture: arch})
	var missing *sandbox.UnsupportedError
	if err := p.Require(want); errors.As(err, &missing) {
		return fmt.Sprintf("it is a program for linux/%s and emulation is missing: %s", arch, missing.Fix)
	}
	return fmt.Sprintf("it is a program for linux/%s", arch)
}

func (p *Prober) ask(want ocispecs.Platform) outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := platforms.FormatAll(want)
	if o, ok := p.known[key]; ok {
		return o
	}
	o := p.find(want)
	if o.err == nil {
		p.known[key] = o
	}
	return o
}

func (p *Prober) find(want ocispecs.Platform) outcome {
	host := p.host.Architecture
	switch {
	case want.OS != "linux" || p.host.OS != "linux":
		return outcome{cause: unknown}
	case want.Architecture == host && host == "amd64" && !amd64Has(want.Variant):
		return outcome{cause: tooNew}
	case want.Architecture == host && host != "arm":
		return outcome{support: Native}
	}
	program, ok := probeFor(want)
	if !ok {
		return outcome{cause: unknown}
	}
	why, err := p.run(program.file())
	if err != nil {
		return outcome{err: fmt.Errorf("finding out whether %s runs here: %w", platforms.Format(want), err)}
	}
	switch {
	case why != nil && want.Architecture == host:
		return outcome{cause: tooNew}
	case why != nil:
		return outcome{cause: *why}
	case want.Architecture == host, host == "amd64" && want.Architecture == "386", host == "arm64" && want.Architecture == "arm":
		return outcome{support: Native}
	}
	return outcome{support: Emulated}
}

// run returns nil for a program that ended well. A directory that is mounted
// noexec says nothing about the program, so there are several.
func (p *Prober) run(program []byte) (*cause, error) {
	var last error
	for _, dir := range p.dirs {
		why, err := runIn(dir, program)
		if err == nil {
			return why, nil
		}
		last = err
	}
	return nil, last
}

func runIn(dir string, program []byte) (*cause, error) {
	tmp, err := os.MkdirTemp(dir, "kaniko-multiarch-probe-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	if err := os.WriteFile(filepath.Join(tmp, "probe"), program, 0o700); err != nil {
		return nil, err
	}
	// The own root directory hides an interpreter that is registered without
	// flag F, as the root of a build step does.
	err = start("/probe", tmp)
	if errors.Is(err, syscall.EPERM) {
		err = start(filepath.Join(tmp, "probe"), "")
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil, nil
	case errors.Is(err, syscall.ENOEXEC):
		return because(unregistered), nil
	case errors.Is(err, syscall.ENOENT):
		return because(notFixed), nil
	case errors.As(err, &exit):
		return because(crashed), nil
	}
	return nil, err
}

// start tries again while the file is busy: a child that another goroutine has
// just forked holds our descriptor until it execs (golang.org/issue/22315).
func start(path, root string) error {
	for wait := time.Millisecond; ; wait *= 2 {
		cmd := exec.Command(path)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
		err := cmd.Run()
		if !errors.Is(err, syscall.ETXTBSY) || wait > time.Second {
			return err
		}
		time.Sleep(wait)
	}
}

func because(c cause) *cause { return &c }

// amd64Has tells whether the processor has the instructions of a
// micro-architecture level of the x86-64 psABI, as far as they can be asked for.
func amd64Has(variant string) bool {
	if runtime.GOARCH != "amd64" {
		return variant == ""
	}
	x := cpu.X86
	v2 := x.HasSSE3 && x.HasSSSE3 && x.HasSSE41 && x.HasSSE42 && x.HasPOPCNT && x.HasCX16
	v3 := v2 && x.HasAVX && x.HasAVX2 && x.HasBMI1 && x.HasBMI2 && x.HasFMA
	v4 := v3 && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512CD && x.HasAVX512DQ && x.HasAVX512VL
	switch strings.ToLower(variant) {
	case "", "v1":
		return true
	case "v2":
		return v2
	case "v3":
		return v3
	case "v4":
		return v4
	}
	return false
}
