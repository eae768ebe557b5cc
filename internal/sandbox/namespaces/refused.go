package namespaces

import (
	"errors"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// refused says why the kernel does not let us make namespaces of a form, and
// what to do. sys is /proc/sys. Errors that mean something else stay as they are.
func refused(f Form, err error, sys fs.FS) error {
	on := func(name, value string) bool {
		text, err := fs.ReadFile(sys, name)
		return err == nil && strings.TrimSpace(string(text)) == value
	}
	denied := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
	lack := func(what, fix string) error { return &sandbox.UnsupportedError{What: what, Fix: fix} }
	const root = ", or build as root"
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		if f != AsRoot && on("user/max_user_namespaces", "0") {
			return lack("user namespaces are switched off here", "run as root: sysctl -w user.max_user_namespaces=15000"+root)
		}
		return lack("cannot create more namespaces", "raise the limits in /proc/sys/user/max_*_namespaces")
	case f == AsRoot && denied:
		return lack("cannot create namespaces", "run as root with CAP_SYS_ADMIN and without a seccomp profile that forbids clone and mount, or use --isolation=inplace in a container")
	case denied && on("kernel/unprivileged_userns_clone", "0"):
		return lack("ordinary users may not create user namespaces here", "run as root: sysctl -w kernel.unprivileged_userns_clone=1"+root)
	case denied && on("kernel/apparmor_restrict_unprivileged_userns", "1"):
		return lack("AppArmor keeps ordinary users from user namespaces here",
			"run as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give this program an AppArmor profile with the rule userns"+root)
	case f == AllIDs && denied:
		return lack("cannot create a user namespace",
			"give the container CAP_SYS_ADMIN, or CAP_SETUID, CAP_SETGID and CAP_SETFCAP without a seccomp profile that forbids clone (docker: --security-opt seccomp=unconfined), or use --isolation=inplace in a container")
	case denied:
		return lack("cannot create a user namespace",
			"allow the system calls clone and mount (docker: --security-opt seccomp=unconfined; Kubernetes: seccompProfile Unconfined)"+root)
	case errors.Is(err, unix.EINVAL):
		// QEMU's answer to clone with any of these flags, and that of a kernel
		// without user namespaces.
		what := "cannot create namespaces: this program seems to be emulated"
		if f != AsRoot {
			what += ", or the kernel has no user namespaces"
		}
		return lack(what, "use the program for this machine's architecture, or --isolation=inplace in a container")
	}
	return err
}

// moreIDs is what to do for a user or group ID that a form does not have. lack
// is why it was not a better form.
func moreIDs(f Form, lack error) string {
	var missing *sandbox.UnsupportedError
	switch {
	case f == OneID && errors.As(lack, &missing):
		return missing.Fix + ", so that there are more ids than root's (" + missing.What + ")"
	case f == SubordinateIDs:
		return "give the user more ids in " + subuidFile + " and " + subgidFile + ", or build as root"
	}
	return "build outside of a user namespace, where all ids are"
}
