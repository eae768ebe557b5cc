// Package sandbox runs one process in a file tree. It declares what a way to
// isolate must offer; namespaces and inplace are the two ways.
//
// It must not know what a Dockerfile, a vertex or a layer is.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// Runner runs processes. It is safe for concurrent use.
type Runner interface {
	// Run runs p to its end and kills everything that it left running. The
	// error is an *ExitError when the process ran and failed, an
	// *UnsupportedError when this runner cannot do what p asks for. When ctx is
	// cancelled the process gets SIGTERM, then SIGKILL after a grace time.
	Run(ctx context.Context, p Process) error
}

// Process is what to run, and what it finds.
type Process struct {
	// Root is the directory that the process sees as "/".
	Root string
	Args []string
	// Env is complete; PATH and HOME are added when missing.
	Env []string
	Cwd string
	// User is "name", "uid", "name:group" or "uid:gid", looked up in Root; ""
	// is root.
	User string
	// Hostname is "" for the default.
	Hostname   string
	ExtraHosts []HostIP
	Network    Network
	Insecure   bool
	Ulimits    []Ulimit
	Mounts     []Mount
	// RemoveStubs removes the directories made for mount points from Root, too,
	// not just their last element. What the process put there stays.
	RemoveStubs    bool
	Stdout, Stderr io.Writer
}

// HostIP is a line of /etc/hosts.
type HostIP struct{ Host, IP string }

// Ulimit is a resource limit by its name in limits.conf(5).
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// Network is what a process sees of the network.
type Network int

const (
	// NetworkHost is the network of the builder; the default.
	NetworkHost Network = iota
	// NetworkNone has a loopback interface only.
	NetworkNone
)

// Mount puts something at Dest, which is made when missing and removed after.
type Mount struct {
	Dest string
	// Source is a directory or file outside of Root; "" makes a tmpfs of at
	// most Size bytes (0 means no limit), unless File is set.
	Source string
	// File is a file that exists in memory only: secrets come this way and
	// never touch a disk.
	File     *File
	ReadOnly bool
	Size     int64
}

// File is the content and the metadata of a file.
type File struct {
	Data     []byte
	Mode     uint32
	UID, GID int
}

// ExitError is the failure of a process that ran.
type ExitError struct {
	// Code is the exit code; 128 plus the signal's number for a killed process.
	Code int
}

func (e *ExitError) Error() string { return fmt.Sprintf("exit code: %d", e.Code) }

// UnsupportedError says what this environment cannot do, and the fix.
type UnsupportedError struct{ What, Fix string }

func (e *UnsupportedError) Error() string { return e.What + ": " + e.Fix }

// Cause is the system's error without the paths, which are those of the builder
// and mean nothing to the user.
func Cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
