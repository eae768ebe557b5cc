// Package ids is about what a user namespace does not have: user and group IDs
// that are not in its maps, and what takes root outside of it.
//
// It must not know why we are in one.
package ids

import (
	"errors"
	"fmt"
	"syscall"
)

// MissingError is something that a build needs and that cannot be had here. Who
// made the user namespace knows the fix.
type MissingError struct {
	// What must be right and would be wrong.
	What string
	// Root means that it takes root outside of any user namespace: more IDs are
	// of no use.
	Root bool
}

func (e *MissingError) Error() string {
	if e.Root {
		return e.What + ": this takes root outside of a user namespace"
	}
	return e.What + ": this user or group id is not there"
}

// Explain makes a *MissingError of the error that the kernel gives for an ID
// that the user namespace does not have. Other errors stay as they are.
func Explain(err error, format string, args ...any) error {
	if !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return &MissingError{What: fmt.Sprintf(format, args...)}
}
