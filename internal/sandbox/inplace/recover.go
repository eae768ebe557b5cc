package inplace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

// Files of a Runner in its state directory.
const (
	journalName = "swap.journal"
	stashName   = "swap.stash"
	asidesName  = "swap.mounts"
)

// Recover puts everything back after a builder was killed in the middle of a
// step: "/" is again as it was before, and what the step had made lies in its
// tree, complete or not. It does nothing when there is nothing to recover. An
// error says what is where; the answer to it is a fresh container.
//
// New does this, too. It waits for another builder that is busy in the same
// root.
func Recover(ctx context.Context, stateDir string) error {
	file, err := os.OpenFile(filepath.Join(stateDir, journalName), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("recovering from a killed build: %w", err)
	}
	defer file.Close()
	j, err := readJournal(file)
	if err != nil {
		return fmt.Errorf("recovering from a killed build: %w", err)
	}
	if j.Root == "" {
		return j.close()
	}
	lock, err := lockRoot(ctx, j.Root)
	if err != nil {
		return fmt.Errorf("recovering from a killed build: %w", err)
	}
	defer lock.Close()
	// Its guard may have done it while we waited.
	if !exists(file.Name()) {
		return nil
	}
	return putBack(file)
}

// putBack wants the root to be locked.
func putBack(file *os.File) error {
	j, err := readJournal(file)
	if err != nil {
		return fmt.Errorf("recovering from a killed build: %w", err)
	}
	if j.Root == "" {
		return j.close()
	}
	if err := j.leave(); err != nil {
		return fmt.Errorf("recovering from a killed build: %w; start the next build in a fresh container, or move what is named here by hand and remove %s", err, file.Name())
	}
	return errors.Join(j.blame(), j.close(), removeRest(filepath.Dir(file.Name())))
}

// removeRest removes the directories of a swap, which are empty unless
// something could not be put back.
func removeRest(stateDir string) error {
	for _, name := range []string{stashName, asidesName} {
		if err := os.Remove(filepath.Join(stateDir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("tidying up the state directory: %w", sandbox.Cause(err))
		}
	}
	return nil
}
