package doctor

import (
	"fmt"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	support "github.com/org/kaniko-multiarch/internal/sandbox/emulation"

	"github.com/org/kaniko-multiarch/internal/platform"
)

// Emulator tells which platforms' programs run here.
type Emulator interface {
	Probe(ocispecs.Platform) (support.Support, error)
	// Require's error has the fix.
	Require(ocispecs.Platform) error
}

// common are the platforms that Docker's official images are built for.
var common = []string{
	"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386", "linux/ppc64le", "linux/riscv64", "linux/s390x",
}

func emulation(e Emulator, asked []ocispecs.Platform) []Check {
	status := Lack
	if len(asked) == 0 {
		status = Note
		for _, s := range common {
			if p, err := platform.Parse(s); err == nil {
				asked = append(asked, p)
			}
		}
	}
	var checks []Check
	for _, p := range asked {
		c := Check{Kind: "emulation", Subject: platform.Format(p), Status: OK}
		found, err := e.Probe(p)
		switch {
		case err != nil:
			c.fail(status, err, "make one of the directories /tmp, /var/tmp and /dev/shm writable, without noexec")
		case found == support.None:
			c.Detail = "its programs do not run here"
			if err := e.Require(p); err != nil {
				c.fail(status, err, "")
			}
		default:
			c.Detail = fmt.Sprintf("its programs run here, %s", found)
		}
		checks = append(checks, c)
	}
	return checks
}
