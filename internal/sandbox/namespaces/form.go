package namespaces

import (
	"fmt"
	"math"
	"os"
	"syscall"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// Form is a way to get a mount namespace. They differ in what the one who
// starts us must be, and in the user and group IDs that there are inside.
type Form int

const (
	// AsRoot needs CAP_SYS_ADMIN; all IDs stay as they are.
	AsRoot Form = iota
	// AllIDs is a user namespace with all IDs that its maker has. It needs
	// CAP_SETUID, CAP_SETGID and CAP_SETFCAP: what root in a container has.
	AllIDs
	// SubordinateIDs is a user namespace in which an ordinary user is root, with
	// the IDs that subuid(5) and subgid(5) give them. newuidmap(1) writes its maps.
	SubordinateIDs
	// OneID is a user namespace in which an ordinary user is root, and nobody
	// else is there.
	OneID
)

func (f Form) String() string {
	return [...]string{
		"as root", "in a user namespace with all ids", "in a user namespace with subordinate ids", "in a user namespace with one id",
	}[f]
}

// Forms are those worth trying, the best first. They depend on who we are.
func Forms() []Form {
	if os.Geteuid() == 0 {
		return []Form{AsRoot, AllIDs}
	}
	return []Form{SubordinateIDs, OneID}
}

// attributes make a child that is in namespaces of this form.
func (f Form) attributes() (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
	}
	if f == AsRoot {
		return attr, nil
	}
	attr.Cloneflags |= unix.CLONE_NEWUSER
	var err error
	switch f {
	case AllIDs:
		// As root we may let the steps choose their groups.
		attr.GidMappingsEnableSetgroups = true
		if attr.UidMappings, err = same("/proc/self/uid_map"); err != nil {
			return nil, err
		}
		attr.GidMappings, err = same("/proc/self/gid_map")
	case SubordinateIDs:
		// Another program writes the maps while the child is there already. As
		// nobody that the namespace knows it would lose its capabilities on exec.
		attr.AmbientCaps = allCaps()
	case OneID:
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return attr, err
}

// same maps each ID that we have to itself. One line of a map must not span two
// of ours.
func same(path string) ([]syscall.SysProcIDMap, error) {
	ours, err := user.ParseIDMapFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading which ids there are: %w", err)
	}
	var out []syscall.SysProcIDMap
	for _, m := range ours {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(m.ID), HostID: int(m.ID), Size: int(min(m.Count, math.MaxInt))})
	}
	return out, nil
}

func allCaps() []uintptr {
	var out []uintptr
	for c := range uintptr(64) {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err != nil {
			break // past the last one that the kernel knows
		}
		out = append(out, c)
	}
	return out
}
