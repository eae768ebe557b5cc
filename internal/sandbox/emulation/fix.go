package emulation

import (
	"fmt"
	"os"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// place is where we run, as far as it decides who can install an emulator.
type place int

const (
	machine place = iota
	machineAsUser
	container
	kubernetes
	gitlab
	github
)

func here(getenv func(string) string) place {
	switch {
	case getenv("GITHUB_ACTIONS") == "true":
		return github
	case getenv("KUBERNETES_SERVICE_HOST") != "":
		return kubernetes
	case getenv("GITLAB_CI") == "true":
		return gitlab
	case exists("/.dockerenv") || exists("/run/.containerenv"):
		return container
	case os.Geteuid() != 0:
		return machineAsUser
	}
	return machine
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (w place) fix(p ocispecs.Platform, c cause) string {
	switch c {
	case unknown:
		return "build it on a machine of that platform"
	case tooNew:
		return "build it on a machine whose processor has these instructions, or for a lower variant"
	case notFixed:
		return "an interpreter is registered without flag F (fix binary), so it is not found inside an image; register it again with F: " + w.install(p)
	case crashed:
		return "the registered interpreter failed; install a newer one: " + w.install(p)
	}
	return w.install(p)
}

func (w place) install(p ocispecs.Platform) string {
	binfmt := "docker run --privileged --rm tonistiigi/binfmt --install " + p.Architecture
	switch w {
	case github:
		fix := "add the step `uses: docker/setup-qemu-action` (with platforms: " + p.Architecture + ") before this one"
		if p.Architecture == "arm64" {
			fix += ", or run this job natively with `runs-on: ubuntu-24.04-arm`"
		}
		return fix
	case gitlab:
		fix := "run `" + binfmt + "` once on the runner's host"
		if p.Architecture == "arm64" {
			fix += ", or run this job natively with `tags: [saas-linux-small-arm64]`"
		}
		return fix
	case kubernetes:
		return fmt.Sprintf("build on a native node (nodeSelector `kubernetes.io/arch: %s`), or run the image tonistiigi/binfmt with `--install %s` in a privileged pod on this node", p.Architecture, p.Architecture)
	case container:
		return "run `" + binfmt + "` on the host of this container"
	case machineAsUser:
		return "run `sudo apt-get install qemu-user-static binfmt-support` or `" + binfmt + "`"
	}
	return "run `apt-get install qemu-user-static binfmt-support` or `" + binfmt + "`"
}
