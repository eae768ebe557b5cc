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
	name := filepath.Join(stateDir, journalName)
	for {
		root, err := rootOf(name)
		if err != nil || root == "" {
			return err
		}
		lock, err := lockRoot(ctx, root)
		if err != nil {
			return fmt.Errorf("recovering from a killed build: %w", err)
		}
		// While we waited its guard, or another builder, may have done it, and a
		// next one may have begun elsewhere.
		again, err := rootOf(name)
		if err == nil && again == root {
			err = recoverLocked(name)
		}
		lock.Close()
		if err != nil || again == root || again == "" {
			return err
		}
	}
}

// rootOf is the root that a journal is about, "" when there is no journal.
func rootOf(name string) (string, error) {
	file, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("recovering from a killed build: %w", err)
	}
	defer file.Close()
	j, err := readJournal(file)
	if err != nil {
		return "", unreadable(name, err)
	}
	return j.Root, nil
}

func unreadable(name string, err error) error {
	return fmt.Errorf("recovering from a killed build: reading the journal %s: %w: start the next build in a fresh container; if / is as it should be, removing that file is enough", name, err)
}

func recoverLocked(name string) error {
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("recovering from a killed build: %w", err)
	}
	defer file.Close()
	return putBack(file)
}

// putBack wants the root to be locked.
func putBack(file *os.File) error {
	j, err := readJournal(file)
	if err != nil {
		return unreadable(file.Name(), err)
	}
	if err := j.seeMounts(); err != nil {
		return fmt.Errorf("recovering from a killed build: %w", err)
	}
	if err := j.leave(); err != nil {
		return fmt.Errorf("recovering from a killed build: %w; start the next build in a fresh container, or move what is named here by hand and remove %s", err, file.Name())
	}
	return errors.Join(j.blame(), j.finish(filepath.Dir(file.Name())))
}

// finish is the end of a swap after which all is back. The journal goes last:
// whoever finds none takes everything to be as it was.
func (j *journal) finish(stateDir string) error {
	return errors.Join(removeRest(stateDir), j.close())
}

// removeRest removes the directories of a swap, which are empty unless
// something could not be put back.
func removeRest(stateDir string) error {
	for _, name := range []string{stashName, asidesName} {
		dir := filepath.Join(stateDir, name)
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("tidying up: %s: %w: a step has put files there; remove them, or start the next build in a fresh container", dir, sandbox.Cause(err))
		}
	}
	return nil
}
