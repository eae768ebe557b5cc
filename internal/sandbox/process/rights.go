package process

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/ids"
)

// defaultCaps are what containerd and BuildKit grant.
func defaultCaps() []int {
	return []int{
		unix.CAP_AUDIT_WRITE, unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL,
		unix.CAP_MKNOD, unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW, unix.CAP_SETFCAP, unix.CAP_SETGID,
		unix.CAP_SETPCAP, unix.CAP_SETUID, unix.CAP_SYS_CHROOT,
	}
}

// capSet is a set of capabilities, one bit each.
type capSet uint64

func (c capSet) has(capability int) bool { return c&(1<<capability) != 0 }

// dropRights becomes the user. A process with default rights has its
// capabilities in the bounding set only: exec gives them to root and to nobody
// else. An insecure one keeps all that we have, whoever it is.
func (s *Spec) dropRights() error {
	have, err := permitted()
	if err != nil {
		return fmt.Errorf("reading capabilities: %w", err)
	}
	keep, inherit := have, have
	if !s.Insecure {
		keep, inherit = 0, 0
		for _, c := range defaultCaps() {
			keep |= have & (1 << c)
		}
		if err := limitBoundingSet(); err != nil {
			return fmt.Errorf("dropping capabilities: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keeping capabilities: %w", err)
	}
	// The functions of package syscall change all threads alike.
	if err := setGroups(s.Groups); err != nil {
		return fmt.Errorf("setting the groups: %w", ids.Explain(err, "the step's groups are %v", s.Groups))
	}
	if err := syscall.Setresgid(s.GID, s.GID, s.GID); err != nil {
		return fmt.Errorf("becoming group %d: %w", s.GID, ids.Explain(err, "the step's group is %d", s.GID))
	}
	if err := syscall.Setresuid(s.UID, s.UID, s.UID); err != nil {
		return fmt.Errorf("becoming user %d: %w", s.UID, ids.Explain(err, "the step's user is %d", s.UID))
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keeping capabilities: %w", err)
	}
	if err := setCaps(keep, inherit); err != nil {
		return fmt.Errorf("setting capabilities: %w", err)
	}
	if err := setAmbient(inherit); err != nil {
		return fmt.Errorf("setting ambient capabilities: %w", err)
	}
	return nil
}

// setGroups sets the supplementary groups. A user namespace with one ID forbids
// that: there those of the builder stay.
func setGroups(groups []int) error {
	err := syscall.Setgroups(groups)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	if may, readErr := os.ReadFile("/proc/self/setgroups"); readErr == nil && strings.HasPrefix(string(may), "deny") {
		return nil
	}
	return err
}

func permitted() (capSet, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, err
	}
	return capSet(data[0].Permitted) | capSet(data[1].Permitted)<<32, nil
}

func setCaps(keep, inherit capSet) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(keep), Permitted: uint32(keep), Inheritable: uint32(inherit)},
		{Effective: uint32(keep >> 32), Permitted: uint32(keep >> 32), Inheritable: uint32(inherit >> 32)},
	}
	return unix.Capset(&header, &data[0])
}

func setAmbient(ambient capSet) error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	for c := range 64 {
		if !ambient.has(c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return err
		}
	}
	return nil
}

func limitBoundingSet() error {
	keep := defaultCaps()
	for c := range 64 {
		if slices.Contains(keep, c) {
			continue
		}
		bound, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // past the last one that the kernel knows
		}
		if err != nil {
			return err
		}
		if bound == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return err
		}
	}
	return nil
}
